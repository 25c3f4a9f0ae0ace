"""Interactions: weights of kinds, history, reposts, the users x posts matrix and its collaborative factors. Imports
`tables`, `linalg`.
"""
