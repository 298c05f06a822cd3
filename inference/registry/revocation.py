"""Versions that must not be served again: a signed list whose number rises."""

from __future__ import annotations

from typing import Annotated

import msgspec

from inference.registry.dsse import Trust
from inference.registry.manifest import Count, Name, Version
from inference.registry.refusal import ModelRefused

REVOCATION_TYPE = "application/vnd.sluice.model-revocations+json"
MAX_REVOKED = 4096


class Revoked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version and why."""

    model: Name
    version: Version
    reason: Annotated[str, msgspec.Meta(max_length=512)]


class RevocationList(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sluice/model-revocations/1"):
    """``sequence`` rises with each issue; ``issued`` in Unix seconds."""

    sequence: Count
    issued: Count
    revoked: tuple[Revoked, ...] = ()

    @property
    def pairs(self) -> frozenset[tuple[str, int]]:
        return frozenset((entry.model, entry.version) for entry in self.revoked)


def open_revocations(raw: bytes, trust: Trust, least: int) -> RevocationList:
    """The list of a signed envelope. Raises ModelRefused where it does not hold or is older than ``least``."""
    try:
        issue = msgspec.json.decode(trust.open(raw, REVOCATION_TYPE), type=RevocationList)
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise ModelRefused("signature", f"revocation list: {fault}") from None
    if issue.sequence < least or len(issue.revoked) > MAX_REVOKED:
        raise ModelRefused(
            "rolled_back",
            f"revocation list: expected number {least} or later with at most {MAX_REVOKED} entries, got "
            f"{issue.sequence}; restore the latest list",
        )
    return issue


def extended(before: RevocationList, entry: Revoked, issued: int) -> RevocationList:
    """The next issue of the list."""
    kept = tuple(e for e in before.revoked if (e.model, e.version) != (entry.model, entry.version))
    return RevocationList(before.sequence + 1, issued, (*kept, entry))
