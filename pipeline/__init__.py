"""The streaming pipeline: stages, quotas, audit log and their adapters."""
