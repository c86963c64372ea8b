"""The demonstration: generated data and a small model made in seconds."""
