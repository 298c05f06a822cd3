"""The records of the topics behind the requests door, but for a partition's history (``records``) and ``control``.

Encoded as ``records`` are: JSON in declaration order, a function of the value.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from detectors.base import Finding
from pipeline.events.records import Fingerprints, Result, Sampling, Watermark


class Work(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One admitted request to run, or (``cancel``) one to stop."""

    request: str
    partition: int
    organisation: str
    tenant: str
    principal: str
    client_request: str
    lane: int
    deadline: int
    cancel: bool = False
    model: str = ""
    max_tokens: int = 0
    input_bound: int = 0
    sampling: Sampling = Sampling()
    sealed: bytes = b""
    wrap: bytes = b""
    keep: Literal["none", "findings", "all"] = "none"
    """When the completion carries the sealed text."""
    blanks: tuple[tuple[int, int, int], ...] = ()
    """(turn, start, end) in code points of what the model is not to read."""
    blank_personal: bool = False
    """Nor any personal data, all of it: findings name the worst items only."""
    output: Literal["release", "redact", "withhold", "review"] = "redact"
    """What becomes of personal data and secrets in the answer."""
    personal: Literal["structured", "all"] = "structured"
    """What counts as such: see ``control.Plan``."""
    conceal: bool = False
    """The account copies the model: no log-probabilities, no logit bias, and an answer that bears the watermark."""
    weight: int = 100
    """Of the plan, among tenants that wait for one worker."""
    risk: int = 0
    """Of the prompt, 0 to 100: see ``detectors.base.risk``."""
    verbatim: Literal["release", "redact", "withhold", "review"] = "redact"
    """What becomes of runs of protected texts in it."""
    system_prompt: Literal["release", "redact", "withhold", "review"] = "review"
    """What becomes of runs of the caller's own system prompt in it."""
    adapter: str = ""
    """Of the tenant, by its id in the model registry."""
    quotes: tuple[tuple[int, int, int], ...] = ()
    """(turn, start, end) of what speaks like an order in a document: its passage is quoted and marked as data."""


class Completion(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A worker's report on one run."""

    request: str
    organisation: str
    tenant: str
    result: Result
    worker: str
    attempt: str
    model: str = ""
    finish: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    first_token_ms: int = 0
    findings: tuple[Finding, ...] = ()
    text_digest: bytes = b""
    """SHA-256 of the delivered text."""
    text: bytes = b""
    """The delivered text, sealed, where policy keeps it."""
    version: int = 0
    """Of the model that answered; 0 where it has none."""
    watermark: Watermark | None = None
    fingerprints: Fingerprints = b""
    adapter: str = ""
    """Of the tenant, ADAPTER@VERSION, through which it was answered."""


class Response(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A place in the queue, a chunk, the end, or a refusal, for whoever waits."""

    request: str
    client_request: str
    tenant: str
    event: Literal["chunk", "end", "refusal", "place"]
    attempt: str = ""
    position: int = 0
    """Tokens before this chunk."""
    sealed: bytes = b""
    prefix: bytes = b""
    """SHA-256 of the delivered text up to and including this chunk."""
    result: str = ""
    finish: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    reason: str = ""
    """Why it was refused; of an answer that was withheld, the guard that ended it."""
    limit: str = ""
    retry_after_ms: int = 0
    logprobs: bytes = b""
    """end: what the model gave each token of the answer (``stages.readout``), sealed."""
    completion: bytes = b""
    """end: SHA-256 of the acknowledged completion's bytes."""
    ahead: int = 0
    """place: 1 is the next to run."""
    eta_ms: int = -1
    """place: estimated time until it runs; -1 while too little has been measured."""
    first: str = ""
    """refusal as duplicate: the request that holds the idempotency key."""
    found: str = ""
    """refusal as injection: the family of rules, the index of the message and the severity; never a word of it."""


class FindingEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request that had findings, or a refusal worth correlating."""

    request: str
    time: int
    organisation: str
    tenant: str
    principal: str
    stage: Literal["admit", "generate"]
    verdict: str
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    signature: int = 0
    """Not 0: the account keeps using this wording (a hash). Such a record lies on the partition of the signature,
    where those of all organisations meet, and says nothing else."""
    score: int = 0
    """signature: the account's, in thousandths of log-odds."""


class Alert(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of an alert. ``alert`` is deterministic, so a repeat changes nothing."""

    alert: str
    time: int
    rule: str
    severity: int
    organisation: str
    tenant: str
    principal: str
    title: str
    count: int
    first_time: int
    requests: tuple[str, ...] = ()
    campaign: str = ""
    """What the accounts of a campaign share, the same for every tenant: 16 hex digits of a hash."""


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attempt to deliver an alert to one target."""

    alert: str
    tenant: str
    target: str
    time: int
    attempt: int
    status: Literal["delivered", "retry", "dead"]
    http_status: int = 0
    next_time: int = 0


class Access(msgspec.Struct, frozen=True, omit_defaults=True):
    """An act of a person or operator, or refusals at the gateway aggregated by minute."""

    time: int
    actor: str
    act: str
    tenant: str = ""
    target: str = ""
    count: int = 1


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One sealed batch of one origin."""

    generation: str
    origin: str
    index: int
    """Batches of this origin before this one."""
    topic: str
    partition: int
    first: int
    """Offset in the source of the first record read for this batch, valid or not."""
    last: int
    chain: bytes
    """The source's chain digest after ``last``; empty for topics without one."""
    rows: int
    skipped: int
    size: int
    """Leaves in the tree with this batch included."""
    root: bytes
    frontier: tuple[bytes, ...]
    """Right edge of the tree, largest subtree first: enough to append, proven by ``root``."""
    previous: bytes
    """SHA-256 of the previous checkpoint of this origin; empty for the first."""
    time: int
    checkpoint: str
    """C2SP signed note over origin, size and root."""


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes that could not be understood, with the reason. The bytes themselves stay in the source topic."""

    topic: str
    partition: int
    offset: int
    time: int
    reason: str
    size: int
    digest: bytes
