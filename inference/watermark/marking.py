"""The marked tokens of an answer, and the account of them. Policy decides, never the caller.

Not marked: temperature 0 and ``top_k`` 1 (no choice to make), JSON and code (little choice, and a wrong token breaks
them), tenants that opted out. In a marked answer the first four tokens have no context yet, and a context that came
before in the answer is passed over (repeated context masking): its bits were spent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from inference.types import GenerationRequest, MarkAccount
from inference.watermark.keys import CONTEXT, MarkKey, epoch_of

Skip = Literal["off", "opted_out", "temperature_zero", "single_candidate", "json", "code"]
Form = Literal["text", "json", "code"]
_FENCE = b"```"


@dataclass(frozen=True, slots=True)
class MarkPolicy:
    """A tenant's part of the policy."""

    enabled: bool = True
    opted_out: bool = False


def skipped(policy: MarkPolicy, *, temperature: float, top_k: int, form: Form) -> Skip | None:
    """The reason why a whole answer is not marked; None where it is."""
    if not policy.enabled:
        return "off"
    if policy.opted_out:
        return "opted_out"
    if temperature == 0.0:
        return "temperature_zero"
    if top_k == 1:
        return "single_candidate"
    return None if form == "text" else form


class CodeFence:
    """Tells whether bytes that arrive piece by piece stand inside a fenced block of Markdown."""

    def __init__(self) -> None:
        self.inside = False
        self._tail = b""

    def push(self, piece: bytes) -> None:
        """Take in the bytes of one token."""
        text = self._tail + piece
        fences = text.count(_FENCE)
        self.inside ^= bool(fences % 2)
        rest = text[text.rfind(_FENCE) + len(_FENCE) :] if fences else text
        self._tail = rest[-(len(_FENCE) - 1) :]


@dataclass(slots=True)
class AnswerMark:
    """The mark of one answer as it grows. ``key`` None: not marked, for the reason in ``account``."""

    key: MarkKey | None
    account: MarkAccount = field(default_factory=MarkAccount)
    _seen: set[tuple[int, ...]] = field(default_factory=set)
    _fence: CodeFence = field(default_factory=CodeFence)

    def __post_init__(self) -> None:
        if self.key is not None:
            self.account.epoch = self.key.epoch

    def context(self, output: Sequence[int]) -> tuple[int, ...] | None:
        """The context of the next token after ``output`` ids; None where it is drawn unmarked. Asked once a token."""
        if self.key is None:
            return None
        if len(output) < CONTEXT:
            self.account.no_context += 1
            return None
        if self._fence.inside:
            self.account.code += 1
            return None
        context = tuple(output[-CONTEXT:])
        if context in self._seen:
            self.account.repeated += 1
            return None
        self._seen.add(context)
        self.account.marked += 1
        return context

    def accept(self, piece: bytes) -> None:
        """Take in the bytes of the token that was drawn."""
        self._fence.push(piece)


Marker = Callable[[GenerationRequest], AnswerMark]
"""Gives a request its mark when it joins an engine."""
_MAX_KEYS = 4096


class TenantMarker:
    """A ``Marker`` that gives each tenant its key of the current epoch.

    ``secret`` gives a tenant's secret, ``clock`` Unix milliseconds.
    """

    def __init__(
        self, secret: Callable[[str], bytes], policy: Callable[[str], MarkPolicy], clock: Callable[[], int]
    ) -> None:
        self._secret = secret
        self._policy = policy
        self._clock = clock
        self._keys: OrderedDict[tuple[str, int], MarkKey] = OrderedDict()

    def __call__(self, request: GenerationRequest) -> AnswerMark:
        sampling = request.sampling
        policy = self._policy(request.tenant)
        reason = skipped(policy, temperature=sampling.temperature, top_k=sampling.top_k, form="text")
        if reason is not None:
            return AnswerMark(None, MarkAccount(skipped=reason))
        return AnswerMark(self._key(request.tenant, epoch_of(self._clock())))

    def _key(self, tenant: str, epoch: int) -> MarkKey:
        key = self._keys.get((tenant, epoch))
        if key is None:
            key = self._keys[tenant, epoch] = MarkKey(self._secret(tenant), tenant, epoch)
            if len(self._keys) > _MAX_KEYS:
                self._keys.popitem(last=False)
        return key
