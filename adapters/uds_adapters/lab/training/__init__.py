"""One training run: settings, budget, trainer and result."""
