"""Comparison of policies: runs, processes, statistics, results and verdict."""
