"""Hyperparameters of the embedding space, found on validation splits. Imports `embed`, `fuse`, `metrics`, `linalg`,
`tables`.
"""
