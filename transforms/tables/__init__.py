"""Arrow blocks, Parquet tables, the shuffle, rejects and counts: what every other package stands on. Imports nothing
of ours.
"""
