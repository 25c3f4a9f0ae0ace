"""Input files -> canonical rows: readers of JSONL, CSV and Parquet, types, times, deduplication, erasure. Imports
`tables`, `linalg`.
"""
