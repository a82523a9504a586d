"""Encoders trained by first-order descent."""
