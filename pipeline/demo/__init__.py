"""The demo: realistic traffic through every door, and what became of it."""
