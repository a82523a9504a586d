"""Bases: maps from points to the columns of a separable model. They know nothing of training."""
