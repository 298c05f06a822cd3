"""Benchmarks against the goals: ``python -m tests.bench``, or one figure: ``python -m tests.bench admit``."""
