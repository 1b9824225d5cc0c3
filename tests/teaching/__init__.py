"""Records -> lessons -> rows -> batches."""
