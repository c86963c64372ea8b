"""Training records: reading, encoding, order and near-duplicates."""
