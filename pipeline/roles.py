"""The one table of roles: the documents of ``control`` an operator may sign, and the acts it may put on record.

Every reader of ``control`` refuses what a role may not sign, so a command that forgot to ask changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

ANY: frozenset[str] = frozenset()
"""In ``Role.signs``: every field of the kind may change, and new documents of it may be made."""


class Role(NamedTuple):
    """An operator of this role may sign these kinds of documents and record acts that begin so."""

    name: str
    signs: Mapping[str, frozenset[str]]
    """Kind of document to the fields that may change, where it is not ANY. ``deployment`` is signed by roots alone."""
    acts: Sequence[str]
    why: str

    def may_sign(self, kind: str) -> bool:
        """Tell whether documents of this kind may be signed at all."""
        return kind in self.signs

    def may_record(self, act: str) -> bool:
        """Tell whether this act in ``access`` counts under this role."""
        return act.startswith(tuple(self.acts))


_PEOPLE = ("label.", "account.", "silence.", "alert.")
ROLES: tuple[Role, ...] = (
    Role(
        "administrator",
        dict.fromkeys(("plan", "organisation", "tenant", "principal", "key", "model"), ANY),
        ("policy.", "organisation.", "tenant.", "principal.", "key.", "operator.", "deployment.", *_PEOPLE),
        "keeps the deployment, and every other role's acts in hand",
    ),
    Role("policy", dict.fromkeys(("plan", "model"), ANY), ("policy.",), "writes plans and models, and gives no keys"),
    Role(
        "tenants",
        dict.fromkeys(("organisation", "tenant", "principal", "key"), ANY),
        ("organisation.", "tenant.", "principal.", "key."),
        "serves tenants: their keys and webhooks, under plans that others write",
    ),
    Role(
        "analyst",
        {"principal": frozenset({"extraction"}), "tenant": frozenset({"calibrated"})},
        _PEOPLE,
        "judges accounts and findings, says when plans may act on accounts, and changes nothing else of them",
    ),
    Role("auditor", {}, (), "reads and verifies, and signs nothing"),
)
BY_ROLE: dict[str, Role] = {role.name: role for role in ROLES}
NOTHING = Role("", {}, (), "a role that this build does not know signs nothing")


def role_named(name: str) -> Role:
    """Give the role of this name; one that this build does not know may do nothing."""
    return BY_ROLE.get(name, NOTHING)
