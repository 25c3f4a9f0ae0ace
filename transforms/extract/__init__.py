"""The extract stage: one row of features a post, reusing those of an earlier run. Imports `media`, `text`, `linalg`,
`tables`.
"""
