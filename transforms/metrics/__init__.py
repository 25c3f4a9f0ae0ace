"""Metrics of rankings and of lists of recommendations. Imports `linalg`."""
