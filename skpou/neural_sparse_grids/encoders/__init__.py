"""Encoders into the unit box, and where they start."""
