"""`uds dedup`: near-duplicates of a data set, and the data set without them."""
