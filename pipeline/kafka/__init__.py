"""Readers, writers, group membership and the compare-and-swap log, over aiokafka."""
