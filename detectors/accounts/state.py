"""The state of an account: what its requests add up to, integers alone, O(1) per request, about 1 KB.

The state counts each fact over the account's life and over its last RECENT requests, so a slow attack and a sudden one
both show, and remembers just enough of the past to know the next request's facts: a ring of sketches, and the openings,
closings, texts, biases and parameters that come back.
"""

from __future__ import annotations

from struct import Struct

import msgspec

from detectors.accounts.facts import FACTS
from detectors.accounts.features import Trace
from detectors.accounts.history import AccountHistory, facts_of
from detectors.accounts.sketch import Ring

RING = 20
"""Sketches that are kept, without those of texts that only came back."""
SKETCHES = Ring(RING)
TEXTS = RING
"""Hashes of texts, and of forms, that are kept with their counts; no fewer than sketches, so that a text which only
counts on is known for that."""
EDGES = 8
"""The same for openings, and for closings."""
PARAMETERS = 6
"""The same for biases, their tokens, and sampling parameters."""
RECENT = 32
"""Requests of which the facts are kept one by one."""
FACTS_BYTES = 8
"""Bytes of one request's facts."""
MAX_DISTANCE = 64
"""Bits that one request adds to the sum of distances at most."""
MAX_COUNTED = (1 << 32) - 1
"""Requests whose facts are counted, since four bytes hold no more: a century of one a second."""
MAX_REMEMBERED = 8_192
_TOTALS = Struct(f"<{len(FACTS)}I")


class AccountState(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The traffic of one account. Stored by position: a field is never moved.

    Tables are flat: hash, count, hash, count and so on, the latest first. Times are in milliseconds, scores in
    thousandths of log-odds.
    """

    count: int = 0
    """Requests."""
    time: int = 0
    """Of the latest request, as are `gap` before it, `length` of its text and its packed `sampling`."""
    gap: int = 0
    length: int = 0
    sampling: int = 0
    ring: bytes = b""
    """Sketches of new texts, the latest first."""
    texts: tuple[int, ...] = ()
    forms: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    tails: tuple[int, ...] = ()
    bias_tokens: tuple[int, ...] = ()
    biases: tuple[int, ...] = ()
    samplings: tuple[int, ...] = ()
    recent: bytes = b""
    """Facts of the last RECENT requests, FACTS_BYTES each, the latest first."""
    totals: bytes = bytes(_TOTALS.size)
    """How often each fact was raised, four bytes each."""
    distance: int = 0
    """Sum of the distances of requests to the nearest text before them."""
    score: int = 0
    """Of the latest reading by the trees."""
    cusum: int = 0
    alarm: int = 0
    """The rule that fired first, 0 for none."""


def counted(table: tuple[int, ...], value: int, size: int) -> tuple[tuple[int, ...], int]:
    """The table with `value` seen once more, in front, and how often it was there before; a value of 0 is none.

    A table of `size` pairs forgets the rarest of its older half, so a template outlives the texts between its uses.
    """
    if not value:
        return table, 0
    if table and table[0] == value:
        return (value, table[1] + 1, *table[2:]), table[1]
    values = table[::2]
    if value in values:
        index = 2 * values.index(value)
        return (value, table[index + 1] + 1, *table[:index], *table[index + 2 :]), table[index + 1]
    if len(table) >= 2 * size:
        if table[-1] == 1:
            return (value, 1, *table[:-2]), 0
        counts = table[size + 1 :: 2]
        rarest = len(counts) - 1 - counts[::-1].index(min(counts))
        index = size + 2 * rarest
        table = table[:index] + table[index + 2 :]
    return (value, 1, *table), 0


def advance(state: AccountState, request: Trace, time: int) -> AccountState:
    """The state after one request at `time` (ms); score and alarm are left as they are. Pure."""
    texts, same = counted(state.texts, request.text_hash, TEXTS)
    if request.form_hash == request.text_hash and (state.forms is state.texts or state.forms == state.texts):
        forms, form = texts, same  # an account without numbers has two tables of one content
    else:
        forms, form = counted(state.forms, request.form_hash, TEXTS)
    heads, head = counted(state.heads, request.head_hash, EDGES)
    tails, tail = counted(state.tails, request.tail_hash, EDGES)
    bias_tokens, tokens_before = state.bias_tokens, 0
    biases, biases_before = state.biases, 0
    if request.biases:
        bias_tokens, tokens_before = counted(bias_tokens, request.bias_tokens, PARAMETERS)
        biases, biases_before = counted(biases, request.biases, PARAMETERS)
    samplings, sampling_before = counted(state.samplings, request.sampling, PARAMETERS)
    sketch = request.sketch_high << 64 | request.sketch_low
    # a text that came back is at no distance, whether or not its sketch is still kept
    nearest, latest = (0, 0) if same else SKETCHES.nearest(state.ring, sketch)
    gap = max(0, time - state.time) if state.count else 0
    raised = facts_of(request, AccountHistory(
        first=not state.count, same=same, same_as_last=same > 0 and state.texts[0] == request.text_hash, form=form,
        head=head, head_as_last=head > 0 and state.heads[0] == request.head_hash, tail=tail,
        bias_tokens=tokens_before, biases=biases_before, sampling=sampling_before, last_sampling=state.sampling,
        last_length=state.length, nearest=nearest, latest=latest, gap=gap, last_gap=state.gap,
    ))  # fmt: skip
    ring = SKETCHES.added(state.ring, sketch) if request.length and not same else state.ring
    recent = (raised.to_bytes(FACTS_BYTES, "little") + state.recent)[: RECENT * FACTS_BYTES]
    distance = state.distance + (min(nearest, MAX_DISTANCE) if state.count else 0)
    # in the order of the fields: keywords would take half a microsecond
    return AccountState(
        state.count + 1, max(time, state.time), gap, request.length, request.sampling, ring, texts, forms, heads,
        tails, bias_tokens, biases, samplings, recent, _added(state, raised), distance, state.score, state.cusum,
        state.alarm,
    )  # fmt: skip


def totals(state: AccountState) -> tuple[int, ...]:
    """The requests that raised each fact of FACTS."""
    return _TOTALS.unpack(state.totals)


def latest_facts(state: AccountState) -> int:
    """The facts of the latest request."""
    return int.from_bytes(state.recent[:FACTS_BYTES], "little")


class _OneEach(dict[int, int]):
    """Facts -> 1 for each of them, four bytes apart, to be added to totals; there are few kinds of request."""

    def __missing__(self, raised: int) -> int:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        ones = sum(1 << 32 * index for index in range(len(FACTS)) if raised >> index & 1)
        self[raised] = ones
        return ones


_one_each = _OneEach()


def _added(state: AccountState, raised: int) -> bytes:
    """The totals with these facts counted once more."""
    if state.count >= MAX_COUNTED:
        return state.totals
    return (int.from_bytes(state.totals, "little") + _one_each[raised]).to_bytes(_TOTALS.size, "little")
