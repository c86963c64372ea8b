"""Held-out measurements of a model, with their intervals."""
