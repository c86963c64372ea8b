"""Selection: from features to the samples that each process trains, and the history of it."""
