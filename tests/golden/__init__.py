"""Fitted models of each release, with what they predicted."""
