"""The `uds` command: train with data-selection policies on your own model and data, and compare them."""
