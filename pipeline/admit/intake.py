"""Intake turns records of ``requests`` into facts: genuine or not, readable or not, and what detectors saw in them.

The first half of ADMIT, free of state: a batch of raw records in, one ``Intake`` each out. The signature is checked
before anything is parsed, the text is opened last, and a fault is a reason, never an exception. The texts are screened
between ``RequestReader.open`` and ``DecryptedBatch.intakes``.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice

from detectors.base import Part
from pipeline.admit.callers import caller_of
from pipeline.admit.clocks import Clocks
from pipeline.admit.drafts import UNREADABLE, DecryptedBatch, Draft, Intake, Raw, keeps
from pipeline.errors import Malformed, Retryable
from pipeline.events import wire
from pipeline.events.control import Control
from pipeline.events.records import Facts
from pipeline.keys.vault import UnknownKey, Vault, WrapAltered

__all__ = ["UNREADABLE", "DecryptedBatch", "Intake", "Raw", "RequestReader", "keeps"]


class RequestReader:
    """The reader opens the records of one partition.

    ``caught_up`` reads ``control`` to its end, False where it could not.
    """

    def __init__(
        self,
        control: Control,
        vault: Vault,
        partition: int,
        caught_up: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self._control = control
        self._vault = vault
        self._partition = partition
        self._caught_up = caught_up

    def open(self, batch: Iterable[Raw], clocks: Clocks, take: int = sys.maxsize) -> DecryptedBatch:
        """Verify, decrypt and parse; the texts are to be screened together.

        It opens ``take`` of them at a time, and stops once that many are no strangers'.
        """
        drafts: list[Draft] = []
        known, rest = 0, iter(batch)
        while known < take and (opened := [Draft(raw, clocks) for raw in islice(rest, take)]):
            # step by step over the batch, as a loop of one step keeps its code in the processor's cache
            for step in (self._read, self._verify, self._check, _parse, self._decrypt, _parse_messages):
                for draft in opened:
                    if not draft.fault:
                        step(draft)
            drafts += opened
            known += sum(not draft.stranger for draft in opened)
        return DecryptedBatch(drafts)

    async def learn_keys(self, batch: DecryptedBatch) -> None:
        """Read ``control`` to its end where records were sealed for keys that are not known, and open those again.

        A writer had read the key's document before, so no genuine record is refused for a reader's delay. One look a
        batch, however many records ask for it. Raises Retryable where ``control`` cannot be read: nothing is refused.
        """
        unknown = batch.unknown_keys
        if not unknown or self._caught_up is None:
            return
        if not await self._caught_up():
            raise Retryable("control could not be read to its end, and requests name keys that are not known here")
        for draft in unknown:
            draft.fault, draft.unknown_key = "", False
            self._decrypt(draft)
            if not draft.fault:
                _parse_messages(draft)

    def reopen(self, raw: Raw) -> Intake:
        """Give body and wrap of a record whose decision is known already; nothing is verified again."""
        envelope = wire.open_envelope(raw.headers)
        return Intake(Facts(raw.offset, raw.time), wire.decode_inference(raw.value), envelope.wrap)

    def _read(self, draft: Draft) -> None:
        if draft.raw.first >= 0:
            draft.fault = "unreadable_batch"
            return
        try:
            envelope = draft.envelope = wire.open_envelope(draft.raw.headers)
        except Malformed:
            draft.fault = "malformed"
            return
        draft.caller = caller_of(self._control, envelope.key)
        if draft.caller is None:
            draft.fault = "unknown_key"

    def _verify(self, draft: Draft) -> None:
        envelope, value = draft.envelope, draft.raw.value
        assert envelope is not None
        try:
            secret = self._vault.key_secret(envelope.key)
        except WrapAltered:
            # the document bears another key's secret: no record is signed with this one
            draft.fault = "unsigned"
            return
        draft.genuine = envelope.genuine(secret, value)
        if not draft.genuine:
            draft.fault = "unsigned"

    def _check(self, draft: Draft) -> None:
        envelope, caller = draft.envelope, draft.caller
        assert envelope is not None
        assert caller is not None
        if not draft.clocks.fresh(envelope.time, draft.raw.time):
            draft.fault = "clock_skew"
        elif caller.home != self._partition:
            draft.fault = "misrouted"
        elif not -1 <= envelope.lane < self._control.require_deployment().partitions:
            draft.fault = "malformed"
        elif len(draft.raw.value) > wire.MAX_VALUE_BYTES:
            draft.fault = "input_too_long"

    def _decrypt(self, draft: Draft) -> None:
        envelope, caller = draft.envelope, draft.caller
        body = draft.body
        if body is None or envelope is None or caller is None:
            return
        try:
            draft.text = self._vault.decrypt(
                caller.tenant.id, "request", "messages", envelope.request, body.sealed, envelope.wrap
            )
        except Malformed as error:
            draft.fault = "undecryptable"
            draft.unknown_key = isinstance(error, UnknownKey)


def _parse(draft: Draft) -> None:
    envelope, value = draft.envelope, draft.raw.value
    assert envelope is not None
    try:
        if envelope.kind == "inference":
            draft.body = wire.decode_inference(value)
        elif envelope.kind == "cancel":
            draft.target = wire.decode_cancel(value).target
        else:
            draft.fault = "malformed"
    except Malformed:
        draft.fault = "malformed"


def _parse_messages(draft: Draft) -> None:
    if draft.body is None:
        return
    try:
        messages = wire.decode_messages(draft.text)
    except Malformed:
        draft.fault = "malformed"
    else:
        draft.transcript = tuple([Part(m.role, m.content) for m in messages])  # type: ignore[arg-type]
