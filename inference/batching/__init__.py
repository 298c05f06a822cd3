"""Continuous batching: scheduler, KV blocks, fairness between tenants, and the loop that drives a model."""
