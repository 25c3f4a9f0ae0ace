"""Numerics without domain types: runs of equal keys, selection, ridge, sparse products, randomized SVD, tiled matrices.
Imports `tables`.
"""
