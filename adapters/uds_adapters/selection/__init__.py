"""Selection of the samples that each process trains."""
