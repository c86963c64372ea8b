"""`uds show`: records as the model will read them, before anything is trained."""
