"""The signed log: leaves, proofs, checkpoints, verification."""
