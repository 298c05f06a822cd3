"""Records of ``decisions``, a partition's history, and of ``snapshots`` are defined here.

Encoded as JSON in declaration order by msgspec, which makes the bytes a function of the value. The stored bytes
are what is hashed and signed; nothing downstream encodes a record again. Times are Unix milliseconds, token
counts are tokens, digests are SHA-256.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from detectors.accounts.response import Step
from detectors.base import Finding

DECIDER = 7
"""Version of the rules in ``decide``; a verifier of another version cannot re-derive decisions."""
LEDGER_FORMAT = 4
"""Version of a ledger's stored form; a snapshot of another is passed over. Belongs to DECIDER, which rises with it."""

AHEAD_MS = 5_000
"""A record's time may be ahead of a clock that it is held against by this much."""

Kind = Literal["inference", "cancel", "unknown"]
Result = Literal["finished", "withheld", "failed", "expired", "cancelled"]
Meter = Literal["rate", "window", "budget", "open"]
Unit = Literal["requests", "tokens", "input_tokens", "output_tokens", "cost"]
"""``tokens`` are input and output together; ``cost`` is in millionths of a currency, by the model's price."""


class Charge(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One quota cell changes; ``amount`` is negative when something is given back."""

    cell: str
    meter: Meter
    unit: Unit
    amount: int
    quantity: int
    """rate: units per period; window, budget and open: the ceiling."""
    period_ms: int
    start: int = 0
    """budget: when the period that is charged began. rate: when what is given back was taken. Else 0."""
    end: int = 0
    """budget: when the period that is charged ends (exclusive). Else 0."""


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: bool = False
    top_logprobs: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()


class Watermark(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """So many tokens of an answer bear the tenant's watermark: ``inference.types.MarkAccount``."""

    scheme: str
    epoch: int = 0
    skipped: str = ""
    marked: int = 0
    no_context: int = 0
    repeated: int = 0
    code: int = 0


EndUser = Annotated[str, msgspec.Meta(max_length=128)]
"""The caller's own name for the user on whose behalf it asks."""
Fingerprints = Annotated[bytes, msgspec.Meta(max_length=8192)]
"""Keyed hashes of passages of the delivered text (``inference.watermark.winnow``), eight bytes each; empty for none."""


class ToolCall(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A model asks for a tool by its name; the policy's answer is ``verdict``."""

    name: str
    verdict: Literal["release", "redact", "withhold", "review"] = "release"


class Facts(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A decision about one record of ``requests`` depends on these facts, and on the text behind the findings."""

    offset: int
    time: int
    kind: Kind = "unknown"
    fault: str = ""
    """Reason found before any state was read (see ``reasons``), or empty."""
    key: str = ""
    client_request: str = ""
    session: str = ""
    counter: int = 0
    sent: int = 0
    lane: int = -1
    idempotency: str = ""
    target: str = ""
    """cancel only: the client request id to be cancelled."""
    model: str = ""
    max_tokens: int = 0
    input_bound: int = 0
    """Proven upper bound of the prompt's tokens."""
    deadline: int = 0
    findings: tuple[Finding, ...] = ()
    documents: tuple[int, ...] = ()
    """Turns with findings that are documents, and so nobody's own words."""
    top_logprobs: int = -1
    """Log-probabilities asked for beside each token's own; -1 for none at all."""
    biases: int = 0
    """Tokens whose logits the request bends."""
    features: tuple[int, ...] = ()
    """The trace by which the account is judged (``detectors.accounts.features.Trace``); empty if nothing was read."""
    text_digest: bytes = b""
    """SHA-256 of the sealed text as it was received."""
    text: bytes = b""
    """The sealed text itself, only where the tenant's policy keeps it."""
    skipped: int = 0
    """Offsets just before ``start`` that hold no request (markers of transactions); the one before them is decided."""
    end_user: str = ""
    """The caller's own user on whose behalf it asks, as it names them."""
    pool: str = ""
    """The model's workers; empty for the shared ones."""
    served: bool = True
    """A worker that has the model is known."""
    asked: int = 0
    """Tokens asked for, where ``max_tokens``, which is what is granted, is fewer; else 0."""
    tools: tuple[str, ...] = ()
    """Names of the tools that the model may call."""
    first: int = -1
    """The first of a run of offsets that end at ``offset`` and are answered together; -1 where it is answered alone.
    Such a run names no caller: nothing in it was genuine."""

    @property
    def start(self) -> int:
        """The first offset that is answered."""
        return self.offset if self.first < 0 else self.first

    @property
    def orderly(self) -> bool:
        """Offsets are answered together only where they name no caller."""
        return self.first < 0 or (self.first < self.offset and bool(self.fault) and not self.key)


class Decision(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag="decision", tag_field="kind"):
    """One record of ``requests`` gets one answer; a run of records of nobody's gets one together."""

    request: str
    facts: Facts
    verdict: Literal["admit", "deny"]
    control: int
    decider: int = 6
    """The rules in force. Decider 6 wrote no number, so its records have none."""
    organisation: str = ""
    tenant: str = ""
    principal: str = ""
    sequence: int = 0
    """Dense per tenant within the partition, 1 for the first; 0 where no tenant was identified."""
    reasons: tuple[str, ...] = ()
    limit: str = ""
    """The limit that refused."""
    retry_after_ms: int = 0
    charges: tuple[Charge, ...] = ()
    findings: tuple[Finding, ...] = ()
    """Findings that needed state, on top of ``facts.findings``."""
    shadowed: str = ""
    """Admitted by a plan in shadow mode, which else had refused for this reason."""
    first: str = ""
    """duplicate: the request that holds the idempotency key; cancel: the request that is to stop."""
    step: Step = "observe"
    """How an account that copies the model is answered: what ``DUTIES`` of it oblige to holds for this request."""
    score: int = 0
    """Of the account, in thousandths of log-odds, where ``signatures`` are to be compared."""
    signatures: tuple[int, ...] = ()
    """Hashes of wording that the account keeps using, to be compared across accounts; empty where not due."""
    price: tuple[int, int] | None = None
    """Of a million input and output tokens of the model, in millionths of a currency."""
    copying: str = ""
    """What the account does, as a kind of ``detectors.accounts.rules``, where its step is why it is answered so."""
    estimated: bool = False
    """Admitted to a model whose tokens are estimated here: usage above what was reserved is charged in full."""


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag="outcome", tag_field="kind"):
    """An admitted request ends; each exactly once."""

    request: str
    time: int
    result: Result
    organisation: str
    tenant: str
    principal: str
    sequence: int
    completion: int = -1
    """Offset in ``completions`` of the report that was taken; -1 for expired."""
    worker: str = ""
    model: str = ""
    finish: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    latency_ms: int = 0
    """From the request's record time to the completion's record time."""
    first_token_ms: int = 0
    charges: tuple[Charge, ...] = ()
    findings: tuple[Finding, ...] = ()
    text_digest: bytes = b""
    text: bytes = b""
    client_request: str = ""
    lane: int = -1
    version: int = 0
    """Of the model that answered; 0 where it has none."""
    watermark: Watermark | None = None
    fingerprints: Fingerprints = b""
    adapter: str = ""
    """Of the tenant, ADAPTER@VERSION, through which it was answered."""
    tools: tuple[ToolCall, ...] = ()
    """The tools that the model called, in order."""
    pool: str = ""
    """The workers that ran it; empty for the shared ones."""
    cost: int = 0
    """By the model's prices, in millionths of the currency."""
    overshoot: int = 0
    """Tokens used beyond what was reserved, which only another server's model can."""


class ControlMark(msgspec.Struct, frozen=True, tag="policy", tag_field="kind"):
    """Decisions use the control documents up to and including ``control`` from here on."""

    time: int
    control: int


class Tick(msgspec.Struct, frozen=True, tag="tick", tag_field="kind"):
    """Time passes, while no request comes and something falls due."""

    time: int
    """By the clock of the worker that wrote it; it counts for no more than its append time (``landed``)."""


class Upgrade(msgspec.Struct, frozen=True, tag="upgrade", tag_field="kind", rename={"from_": "from"}):
    """From here on the partition is decided by the rules of ``to``; its ledger is converted at this record."""

    time: int
    from_: int
    to: int
    requests: int
    """The next offset of ``requests``: behind everything that has a decision, also where one has two."""


class SnapshotMark(msgspec.Struct, frozen=True, tag="snapshot", tag_field="kind"):
    """A snapshot with this digest is stored; it holds the fold up to ``position`` (exclusive)."""

    time: int
    position: int
    digest: bytes
    slot: int
    chunks: int


class SnapshotChunk(msgspec.Struct, frozen=True):
    """A piece of a ledger is stored as of ``position``; a ``SnapshotMark`` in ``decisions`` makes it trusted."""

    slot: int
    chunk: int
    chunks: int
    position: int
    chain: bytes
    """Digest of the chain at ``position``."""
    digest: bytes
    """SHA-256 over all chunks."""
    content: bytes


LogRecord = Decision | Outcome | ControlMark | Tick | Upgrade | SnapshotMark


def time_of(record: LogRecord) -> int:
    """Give the record's own time, Unix ms."""
    return record.facts.time if isinstance(record, Decision) else record.time


def landed(record: LogRecord, appended: int) -> LogRecord:
    """Give the record as it counts where it lies: a tick for no more than the append time of its batch, Unix ms."""
    return Tick(appended) if isinstance(record, Tick) and record.time > appended else record
