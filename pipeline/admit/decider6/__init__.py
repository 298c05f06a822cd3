"""Decider 6, the one of version 0.1.0, is kept as it was: logs that it wrote are folded and derived again by it.

Nothing here is to be improved. It decides no request of today: ``pipeline.admit.upgrade`` converts its ledger, and the
verifier derives its decisions, byte for byte, faults included.
"""
