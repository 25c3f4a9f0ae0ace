"""Checks of the written tables, their statistics, and drift between runs. Imports `tables`, `text`."""
