"""Runs on disk or in an object store: paths, names, the lock, replacement and cleanup. Never imports `stage`."""
