"""Engines behind one port: the torch engine, an echo for tests, and versions that roll out."""
