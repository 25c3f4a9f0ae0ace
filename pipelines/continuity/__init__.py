"""Continuity of a run with the last published one: its embedding space, its model, erased ids."""
