"""Beam transforms (nouns) and, under each, the pure functions that do the work."""
