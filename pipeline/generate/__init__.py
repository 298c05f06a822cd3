"""GENERATE runs admitted requests in batches, guards each answer, and reports what became of it."""
