"""The deployment document says who may change ``control``, and with which keys the log is signed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.events.document import Document, Id

Public = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$", description="base64 of an Ed25519 public key")]


class RootKey(Document):
    """A root signs deployment documents, and nothing else; its private half is kept offline."""

    name: Id
    public: Public


class Operator(Document):
    """An operator signs what ``pipeline.roles`` lets its role sign."""

    id: Id
    public: Public
    role: Id


class Deployment(Document):
    """The deployment: written when the topics are created, changed by its root keys alone."""

    _LATER = frozenset({"log_key_ends"})
    doc: Literal["deployment"] = "deployment"
    id: Literal["deployment"] = "deployment"
    generation: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9._-]{0,62})?$")] = ""
    """Empty in the first signed document, whose digest gives it."""
    partitions: Annotated[int, Field(ge=1, le=4096)]
    log_keys: tuple[str, ...] = ()
    """Verifier keys of the audit log in C2SP form, name+hash+base64, in the order in which they came into force."""
    log_key_ends: dict[str, int] = Field({})
    """Unix s, by a verifier key's name+hash, after which it signed nothing."""
    capacity_tokens: int = 2**30
    """Open reserved tokens per partition before ``busy``."""
    roots: Annotated[tuple[RootKey, ...], Field(max_length=16)] = ()
    threshold: Annotated[int, Field(ge=0, le=16)] = 0
    """So many roots must sign a deployment document; 0 in one from before documents were signed."""
    operators: Annotated[tuple[Operator, ...], Field(max_length=1000)] = ()
    adopts: Annotated[int, Field(ge=-1)] = -1
    """Its own offset, in a first signed document that takes over all unsigned ones below; -1 takes over none."""
    adopted: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """SHA-256 over offset, length and value of every record below ``adopts``."""
    former: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Generations on other brokers that this one follows, the newest first: their documents were put back here."""
    salt: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = ""
    """So that what follows twice from one backup is two generations."""

    @model_validator(mode="after")
    def _signable(self) -> Deployment:
        for kind, names, keys in (
            ("root", [r.name for r in self.roots], [r.public for r in self.roots]),
            ("operator", [o.id for o in self.operators], [o.public for o in self.operators]),
        ):
            if len(set(names)) != len(names) or len(set(keys)) != len(keys):
                raise ValueError(f"expected each {kind} and its key once")
        if not min(1, len(self.roots)) <= self.threshold <= len(self.roots):
            raise ValueError(f"expected a threshold of 1 to {len(self.roots)} roots, got {self.threshold}")
        return self
