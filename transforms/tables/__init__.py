"""Arrow blocks, Parquet tables, the shuffle, rejects and counts: the base of every other package. Imports no other
package of this project.
"""
