"""Lists of recommendations and of similar posts, with reasons. Imports `embed`, `search`, `interactions`, `text`,
`linalg`, `tables`.
"""
