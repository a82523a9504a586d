"""Pieces with shrunk experts, for tables."""
