"""Scoring: from a model and a batch to the features of a policy."""
