"""Text -> terms -> TF-IDF and its truncated SVD; language tags. Imports `tables`, `linalg`."""
