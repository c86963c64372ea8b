"""Previews of data: records as the model reads them, and what is trained on."""
