"""Loops that move a basis' parameters, and starts for them."""
