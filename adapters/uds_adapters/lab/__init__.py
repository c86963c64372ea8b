"""The `uds` command: demonstrate, compare and train, on one machine and on files that lie there."""
