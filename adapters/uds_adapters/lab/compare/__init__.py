"""The command that compares policies on one model and data set."""
