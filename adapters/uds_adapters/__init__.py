"""Adapters that put `uds_core` policies into training loops; each module imports its own framework and no other."""
