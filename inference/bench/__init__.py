"""Measurements of the engine on this machine; every figure states its load."""
