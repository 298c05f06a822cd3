"""Wrapped secrets stand in documents of ``control``; one that was replaced stays there as long as it must open."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.events.document import Document

Wrapped = Annotated[
    str, Field(max_length=4096, description="base64 of bytes wrapped by the keyring, and the secret's id behind a #")
]
MAX_FORMER = 8
"""Former secrets of one kind that a tenant keeps: each is tried on a text that names no key."""


class FormerSecret(Document):
    """A secret was replaced by a newer one and opens what was sealed under it, until it is forgotten."""

    secret: Wrapped
    retired: Annotated[int, Field(ge=0)]
    """Unix ms at which its replacement was written."""
    until: Annotated[int, Field(ge=0)] = 0
    """Of a webhook's secret: Unix ms until which deliveries bear its signature beside that of the newer one."""


FORMER_FIELDS = ("former_data_keys", "former_hpke_keys", "former_webhook_secrets")
"""Fields of a tenant's document that hold them."""
Former = Annotated[tuple[FormerSecret, ...], Field(max_length=MAX_FORMER)]


def secret_id(wrapped: str) -> str:
    """Give the id (16 hex digits) of a wrapped secret, empty for one that was wrapped before secrets had ids."""
    return wrapped.partition("#")[2]
