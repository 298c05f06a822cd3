"""Identities that may take models out, and their bytes a day.

``access.toml`` in the registry's folder, one table for each identity::

    [identity.alice]
    roles = ["model:export"]
    daily_bytes = 20_000_000_000
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from inference.registry.events import RegistryEvent
from inference.registry.refusal import ModelRefused

DAY_MS = 86_400_000
NEAR = 0.8
"""Share of a day's budget from which an export raises the alarm."""
Role = Literal["model:export"]


class AccessGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rights of one identity. ``daily_bytes``: ciphertext that may leave in 24 hours."""

    roles: tuple[Role, ...] = ()
    daily_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0


class AccessPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's contents; an absent file allows nothing."""

    identity: dict[str, AccessGrant] = {}


@dataclass(frozen=True, slots=True)
class Allowance:
    """An export that may go on; ``alarm`` where it comes near the day's budget."""

    left: int
    alarm: bool


def read_access(path: Path) -> AccessPolicy:
    """The policy of a file. Raises ModelRefused naming the fault in it."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), AccessPolicy)
    except FileNotFoundError:
        return AccessPolicy()
    except (OSError, ValueError, msgspec.ValidationError) as fault:
        raise ModelRefused("role", f"{path}: {fault}") from None


def allow_export(
    access: AccessPolicy, actor: str, count: int, now_ms: int, events: Iterable[RegistryEvent]
) -> Allowance:
    """Allow ``count`` bytes to leave to ``actor``'s account; the bytes that left before are read from the record.

    Raises ModelRefused with code ``role`` or ``budget``.
    """
    identity = access.identity.get(actor, AccessGrant())
    if "model:export" not in identity.roles:
        raise ModelRefused(
            "role", f"{actor}: expected the role model:export, got none; an operator adds it in access.toml"
        )
    spent = sum(event.count for event in events if event.time > now_ms - DAY_MS and _left_to(event, actor))
    left = identity.daily_bytes - spent
    if count > left:
        raise ModelRefused(
            "budget",
            f"{actor}: expected at most {max(left, 0)} bytes more today of {identity.daily_bytes}, got {count}; wait, "
            "or have daily_bytes raised in access.toml",
        )
    return Allowance(left - count, spent + count >= NEAR * identity.daily_bytes)


def _left_to(event: RegistryEvent, actor: str) -> bool:
    return event.act == "export" and event.outcome != "refused" and event.actor == actor
