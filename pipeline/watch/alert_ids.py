"""An alert's name is a function of what it is about, so every worker that comes to it gives it the same name."""

from __future__ import annotations

import hashlib

from pipeline.events.codec import encode


def alert_id(rule: str, tenant: str, about: str, bucket: int) -> str:
    """Give 32 hex digits of SHA-256 over the alert's identity; ``bucket`` in Unix ms."""
    return hashlib.sha256(encode((rule, tenant, about, bucket))).hexdigest()[:32]


def bucket_of(time: int, length_ms: int) -> int:
    """Give the start of the bucket of that length which holds ``time`` (Unix ms)."""
    return time - time % length_ms
