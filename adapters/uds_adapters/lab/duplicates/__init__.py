"""Near-duplicates: sketches of records, and the search among them."""
