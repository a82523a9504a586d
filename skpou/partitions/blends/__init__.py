"""Soft partitions whose experts are solved for jointly."""
