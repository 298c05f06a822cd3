"""One file per stage: a pure core driven over batches."""
