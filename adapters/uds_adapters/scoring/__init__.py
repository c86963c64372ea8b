"""Computation of a policy's features with a model."""
