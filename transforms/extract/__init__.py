"""The extract stage: one row of features a post, with what an earlier run can be asked for. Imports `media`, `text`,
`linalg`, `tables`.
"""
