"""Hyperparameter search for a policy."""
