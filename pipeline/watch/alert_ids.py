"""Names of alerts: a function of what they are about, so whoever comes to the same alert gives it the same name."""

from __future__ import annotations

import hashlib

from pipeline.events.codec import encode


def alert_id(rule: str, tenant: str, about: str, bucket: int) -> str:
    """32 hex digits of SHA-256 over the alert's identity; ``bucket`` in Unix ms."""
    return hashlib.sha256(encode((rule, tenant, about, bucket))).hexdigest()[:32]


def bucket_of(time: int, length_ms: int) -> int:
    """Start of the bucket of that length which holds ``time`` (Unix ms)."""
    return time - time % length_ms
