"""The cost of selection on this machine: measurement, model and advice."""
