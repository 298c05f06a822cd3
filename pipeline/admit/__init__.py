"""ADMIT answers every request once: identity, policy, screening, quotas; it alone writes `decisions`."""
