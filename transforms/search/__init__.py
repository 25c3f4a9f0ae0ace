"""Exact top-K by inner product over a catalog of any size. Imports `tables`, `linalg`."""
