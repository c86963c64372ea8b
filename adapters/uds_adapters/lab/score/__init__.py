"""Offline scores of a whole data set."""
