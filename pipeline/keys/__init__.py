"""Keys at rest and what they encrypt: the vault, the sealing of texts, key files, grants to workers."""
