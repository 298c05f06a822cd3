"""Guards stand around the model: some text it does not get to read, and some of its answer is not let out.

Every guard of an answer has one shape: a redactor finds and takes out, the plan's act says what follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, Protocol

from detectors.base import HIGH, LOW, MEDIUM, Finding
from detectors.pii import SentenceRedactor, StreamRedactor, find
from detectors.verbatim import ProtectedIndex, VerbatimRedactor
from pipeline.events import quoting
from pipeline.events.messages import Work
from pipeline.events.wire import Message

MARKER = "[removed]"
"""Stands for what the policy took out of a prompt."""
PERSONAL, VERBATIM, SYSTEM_PROMPT = "pii.", "output.verbatim.", "output.system_prompt."
"""Beginnings of the rules of the guards of an answer."""
FOREIGN = "output.foreign."
"""Beginning of the rules for canaries of other tenants, which are let out under no policy."""
RECITED = 32
"""Letters of the caller's own system prompt, as ``detectors.verbatim`` counts them, that are a recital."""
CANARY_LETTERS = 26
_CONFIDENCE = 90
_SEVERITY = {"redact": LOW, "withhold": MEDIUM, "review": MEDIUM}
_GRAVE = {"redact": MEDIUM, "withhold": HIGH, "review": HIGH}
_ORDER = ("withhold", "review", "redact")
Act = Literal["release", "redact", "withhold", "review"]


def cleaned(work: Work, messages: Sequence[Message]) -> tuple[Message, ...]:
    """Give the messages as the model may read them.

    A marker is no longer than what it stands for and what is put around a quotation is counted, so the bound on the
    prompt's tokens holds.
    """
    if not work.masked_spans and not work.mask_personal and not work.quotes:
        return tuple(messages)
    return tuple(Message(m.role, _cleaned(work, turn, m.content)) for turn, m in enumerate(messages))


def _cleaned(work: Work, turn: int, text: str) -> str:
    masked = [(start, end) for number, start, end in work.masked_spans if number == turn]
    changes = [(start, end, _fitted(MARKER, text[start:end])) for start, end in masked]
    quoted = [quoting.passage(text, start, end) for number, start, end in work.quotes if number == turn]
    for start, end in quoting.apart(quoted, masked):
        changes += [(start, start, quoting.OPEN), (end, end, quoting.CLOSE)]
        # a sign that ends the quotation does not stand in it
        text = text[:start] + text[start:end].replace('"', "'") + text[end:]
    for start, end, instead in sorted(changes, reverse=True):
        text = text[:start] + instead + text[end:]
    if work.mask_personal:
        found = find(text, contextual=work.personal == "all")
        for item in [item for item in reversed(found) if item.type not in work.personal_off]:
            text = text[: item.start] + _fitted(f"[{item.type}]", text[item.start : item.end]) + text[item.end :]
    return text


def _fitted(marker: str, removed: str) -> str:
    return marker[: len(removed.encode("utf-8", "surrogatepass"))]


class Redactor(Protocol):
    """A redactor takes items out of a text that arrives in pieces."""

    @property
    def counts(self) -> dict[str, int]:
        """Items taken out so far, by kind."""
        ...

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """Give the span of the first item of a kind in the answer as the model gave it; kinds may be absent."""
        ...

    def push(self, text: str) -> str: ...
    def flush(self) -> str: ...


class Redaction:
    """A redaction is a guard; each kind that was found is one finding, its rule ``rules`` and the kind.

    ``redact`` takes items out, ``withhold`` ends the answer before the first one, ``review`` lets them pass and tells.
    """

    def __init__(self, act: Act, redactor: Redactor, rules: str) -> None:
        self._act = act
        self._redactor = redactor
        self._rules = rules

    @property
    def verdict(self) -> str:
        return self._act if self._redactor.counts else "release"

    def push(self, text: str) -> str:
        return self._passed(text, self._redactor.push(text))

    def flush(self) -> str:
        return self._passed("", self._redactor.flush())

    def _passed(self, text: str, redacted: str) -> str:
        if self._act == "review":
            return text
        return "" if self.verdict == "withhold" else redacted

    @property
    def findings(self) -> tuple[Finding, ...]:
        severity = (_SEVERITY if self._rules == PERSONAL else _GRAVE)[self._act]
        return tuple(
            Finding(f"{self._rules}{kind}", severity, _CONFIDENCE, *self._redactor.spans.get(kind, (0, 0)), "raw", 0)
            for kind in sorted(self._redactor.counts)
        )


class Guards:
    """Several guards are one, each over the text that the one before let out; none lets everything through."""

    def __init__(self, guards: Sequence[Redaction]) -> None:
        self._guards = tuple(guards)

    @property
    def verdict(self) -> str:
        return _worst({guard.verdict for guard in self._guards})

    def push(self, text: str) -> str:
        for guard in self._guards:
            text = guard.push(text)
        return text

    def flush(self) -> str:
        text = ""
        for guard in self._guards:
            text = guard.push(text) + guard.flush()
        return text

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for guard in self._guards for finding in guard.findings)


def guard_of(
    work: Work,
    messages: Sequence[Message] = (),
    protected: ProtectedIndex | None = None,
    canaries: tuple[str, ...] = (),
    foreign: OtherTenantsCanaries | None = None,
) -> Guards:
    """The guards that the tenant's policy asks for, and the one against what other tenants planted (``foreign``);
    ``canaries`` are the tenant's own, of the data key in use and of former ones."""
    guards = [] if foreign is None else [Redaction("withhold", VerbatimRedactor(foreign), FOREIGN)]
    if work.system_prompt != "release":
        system = [message.content for message in messages if message.role == "system"]
        recited = ProtectedIndex({"recited": system}, RECITED) if any(system) else None
        indices = (recited, _canaries(canaries) if canaries else None)
        guards += [Redaction(work.system_prompt, VerbatimRedactor(index), SYSTEM_PROMPT) for index in indices if index]
    if work.verbatim != "release" and protected:
        guards.append(Redaction(work.verbatim, VerbatimRedactor(protected), VERBATIM))
    if work.output != "release":
        off = work.personal_off
        personal = SentenceRedactor(off) if work.personal == "all" else StreamRedactor(off)
        guards.append(Redaction(work.output, personal, PERSONAL))
    return Guards(guards)


class OtherTenantsCanaries:
    """The canaries of all tenants are protected texts, but for a tenant's ``own``."""

    def __init__(self, planted: ProtectedIndex, own: tuple[str, ...]) -> None:
        self._planted = planted
        self._own = _canaries(own)
        self.run = planted.run

    def leads(self, codes: Sequence[int]) -> bool:
        return self._planted.leads(codes)

    def owner(self, codes: Sequence[int]) -> str | None:
        owner = self._planted.owner(codes)
        return owner if owner is None or self._own.owner(codes) is None else None


@lru_cache(maxsize=4096)
def _canaries(canaries: tuple[str, ...]) -> ProtectedIndex:
    return ProtectedIndex({"canary": canaries}, CANARY_LETTERS)


def acts(work: Work) -> dict[str, Act]:
    """Give the act of the policy for the findings of each guard, by the beginning of their rules."""
    return {FOREIGN: "withhold", SYSTEM_PROMPT: work.system_prompt, VERBATIM: work.verbatim, PERSONAL: work.output}


def verdict(work: Work, findings: Sequence[Finding]) -> str:
    """Give the gravest act that follows from ``findings`` of an answer; release for none."""
    return _worst({act for rule, act in acts(work).items() if any(f.rule.startswith(rule) for f in findings)})


def withheld_for(work: Work, findings: Sequence[Finding]) -> str:
    """Name the guard that ended the answer, such as ``output.verbatim`` or ``pii``; empty where none did."""
    for rule, act in acts(work).items():
        if act == "withhold" and any(f.rule.startswith(rule) for f in findings):
            return rule.removesuffix(".")
    return ""


def _worst(acts: set[str]) -> str:
    return next((act for act in _ORDER if act in acts), "release")
