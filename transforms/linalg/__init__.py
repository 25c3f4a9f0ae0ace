"""Numerics without domain types: runs of equal keys, selection, unit vectors, PCA, ridge, sparse products, truncated
SVD, tiled matrices. Imports `tables`.
"""
