"""Mixtures of polynomial experts, and expectation maximization."""
