"""The commands of `uds`, one a file: options in, tables out."""
