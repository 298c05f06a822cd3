"""Signed, encrypted, versioned models: what may be served, by whom, and that it is what was signed."""
