"""Pieces found bottom-up in the data, and the sharp gates between them."""
