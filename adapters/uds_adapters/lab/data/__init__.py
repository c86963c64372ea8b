"""Training records: reading, encoding and order."""
