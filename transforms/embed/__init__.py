"""The embedding space: how posts and users become vectors whose inner product is the score. Imports `fuse`, `text`,
`linalg`, `tables`.
"""
