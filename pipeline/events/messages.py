"""Records of every topic but ``requests`` (``wire``), ``decisions`` (``records``) and ``control`` are defined here.

Encoded as ``records`` are: JSON in declaration order, a function of the value.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from detectors.base import Finding
from detectors.personal import TECHNICAL
from pipeline.events.limits import QuotaState
from pipeline.events.records import Fingerprints, Result, Sampling, ToolCall, Watermark


class Work(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A worker is to run one admitted request, or (``cancel``) to stop one."""

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
    """The completion carries the sealed text always, with findings, or never."""
    masked_spans: tuple[tuple[int, int, int], ...] = msgspec.field(default=(), name="blanks")
    """(turn, start, end) in code points of each passage that the model is not to read."""
    mask_personal: bool = msgspec.field(default=False, name="blank_personal")
    """The model is to read no personal data either, also none that findings did not have room for."""
    output: Literal["release", "redact", "withhold", "review"] = "redact"
    """The act on personal data and secrets in the answer."""
    personal: Literal["structured", "all"] = "structured"
    """The kinds that count as such: see ``control.Plan``."""
    personal_off: tuple[str, ...] = TECHNICAL
    """Types that stay as they are."""
    degrade: bool = msgspec.field(default=False, name="conceal")
    """The account copies the model: no log-probabilities, no logit bias, and an answer that bears the watermark."""
    weight: int = 100
    """Of the plan, among tenants that wait for one worker."""
    risk: int = 0
    """Of the prompt, 0 to 100: see ``detectors.base.risk``."""
    verbatim: Literal["release", "redact", "withhold", "review"] = "redact"
    """The act on runs of protected texts in it."""
    system_prompt: Literal["release", "redact", "withhold", "review"] = "review"
    """The act on runs of the caller's own system prompt in it."""
    adapter: str = ""
    """Of the tenant, by its id in the model registry."""
    quotes: tuple[tuple[int, int, int], ...] = ()
    """(turn, start, end) of what speaks like an order in a document: its passage is quoted and marked as data."""
    ticket: bytes = b""
    """The worker returns it with its completion, which counts for nothing without."""
    quota: QuotaState | None = None
    """What the decision left of the caller's limits, where a gateway waits; the first response repeats it."""
    estimated: bool = False
    """The model is another's server's: its usage is reported as it tells it, also above what was reserved."""


class Completion(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A worker reports on one run."""

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
    ticket: bytes = b""
    """As it stood in the work."""
    tools: tuple[ToolCall, ...] = ()
    """The tools that the model called, in order."""
    pool: str = ""
    """The workers that ran it; empty for the shared ones."""


class Response(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The waiting gateway is told a place in the queue, a chunk, the end, or a refusal."""

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
    """end: the encrypted log-probabilities of the answer's tokens (``events.logprobs``)."""
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
    quota: QuotaState | None = None
    """First chunk, or end or refusal without one: what the decision left of the caller's limits."""


class FindingEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request had findings, or a refusal worth correlating."""

    request: str
    time: int
    organisation: str
    tenant: str
    principal: str
    stage: Literal["gateway", "admit", "generate"]
    verdict: str
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    signature: int = 0
    """Not 0: the account keeps using this wording (a hash). Such a record lies on the partition of the signature,
    where those of all organisations meet, and says nothing else."""
    score: int = 0
    """signature: the account's, in thousandths of log-odds."""


class Alert(msgspec.Struct, frozen=True, omit_defaults=True):
    """An alert is raised. ``alert`` is deterministic, so a repeat changes nothing."""

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
    """Name of a campaign, the same for every tenant: 16 hex digits of the hash of the shared wording."""


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt is made to deliver an alert to a target."""

    alert: str
    tenant: str
    target: str
    time: int
    attempt: int
    status: Literal["delivered", "retry", "dead"]
    http_status: int = 0
    next_time: int = 0


class Access(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person or operator acts, or the gateway refuses; refusals are aggregated by minute."""

    time: int
    actor: str
    act: str
    tenant: str = ""
    target: str = ""
    count: int = 1
    key: str = ""
    """Of the operator who acts: see ``DocumentSignature``. Empty for an act of the gateway or a worker."""
    signature: bytes = b""


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One batch of one origin is sealed."""

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
    leaves: int = 1
    """3: columns of ``control`` are those of the document that was signed; 2: leaves of ``decisions`` hold the append
    time; 1: the record's own time, as version 0.1.0 sealed them."""
    source: int = -1
    """decisions: the next offset of ``requests`` after ``last``; -1 where no link has told it yet."""


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes could not be understood, for a reason. The bytes themselves stay in the source topic.

    A run of such records leaves one: ``offset`` and ``time`` are the last one's, ``size`` and ``digest`` those of all
    values together, or of the packed bytes where a batch was not unpacked.
    """

    topic: str
    partition: int
    offset: int
    time: int
    reason: str
    size: int
    digest: bytes
    first: int = -1
    """The first offset of a run that ends at ``offset``; -1 for a single record."""
