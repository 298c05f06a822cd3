"""The log is signed: leaves, proofs, checkpoints, verification."""
