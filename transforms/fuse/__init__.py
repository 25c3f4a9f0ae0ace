"""Content vectors: every modality scaled and reduced by tensorflow-transform, side by side. Imports `text`, `linalg`,
`tables`.
"""
