"""Bases that only the search offers."""
