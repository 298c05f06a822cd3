"""What an account's requests add up to: integers alone, O(1) per request, about 1 KB.

The state counts each fact over the account's life and over its last RECENT requests, so a slow attack and a sudden one
both show, and remembers just enough of the past to know the next request's facts: a ring of sketches, and the openings,
closings, texts, biases and dials that come back.
"""

from __future__ import annotations

from struct import Struct

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.accounts import facts
from detectors.accounts.facts import NAMES, Past
from detectors.accounts.features import Trace
from detectors.accounts.sketch import Ring

RING = 20
"""Sketches that are kept, without those of texts that only came back."""
SKETCHES = Ring(RING)
TEXTS, EDGES, DIALS = RING, 8, 6
"""Hashes of texts and forms each, no fewer than sketches, so that a text which only counts on is known for that; of
openings and closings each, and of biases and dials each, with their counts."""
RECENT = 32
COUNTED = tuple(NAMES.index(name) for name in (
    "same", "near", "akin", "edited", "edited_inside", "elicits_end", "elicits_end_weakly", "elicits_end_known",
    "elicits_start_known", "elicits_known", "makes_known", "verbatim_known", "verbatim_open", "salad",
    "same_hot", "bias_new", "dials_new", "tail_only", "returns", "babble",
))  # fmt: skip
"""Facts whose very number tells something, however many other requests surround them."""
_TOLD = len(NAMES)
_TALLY = Struct(f"<{_TOLD}I")
_FACTS = 8
"""Bytes of one request's facts."""
_MOST_COUNTED, _MOST_SEEN, _MOST_DISTANT = 60, 200, 64
_MOST_TOLD = (1 << 32) - 1
"""Requests whose facts are counted, since four bytes hold no more: a century of one a second."""
_COUNTED = np.array(COUNTED)
COLUMNS = 1 + 2 * len(NAMES) + len(COUNTED) + 1 + 9


class AccountState(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Tables are flat: hash, count, hash, count ..., the latest first. ``ring`` holds
    sketches, ``recent`` the facts of requests, the latest first, ``totals`` how often each fact held, four bytes each.
    Times in milliseconds, scores in thousandths of log-odds; ``alarm`` is the rule that fired first, 0 for none."""

    count: int = 0
    time: int = 0
    gap: int = 0
    length: int = 0
    dials: int = 0
    ring: bytes = b""
    texts: tuple[int, ...] = ()
    forms: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    tails: tuple[int, ...] = ()
    bias_sets: tuple[int, ...] = ()
    biases: tuple[int, ...] = ()
    settings: tuple[int, ...] = ()
    recent: bytes = b""
    totals: bytes = bytes(4 * len(NAMES))
    distance: int = 0
    score: int = 0
    cusum: int = 0
    alarm: int = 0


def counted(table: tuple[int, ...], value: int, size: int) -> tuple[tuple[int, ...], int]:
    """The table with `value` seen once more, in front, and how often it was there before; a value of 0 is none.

    A table of `size` pairs forgets the rarest of its older half, so a template outlives the texts between its uses.
    """
    if not value:
        return table, 0
    if table and table[0] == value:
        return (value, table[1] + 1, *table[2:]), table[1]
    if value in table and value in table[::2]:
        at = 2 * table[::2].index(value)
        return (value, table[at + 1] + 1, *table[:at], *table[at + 2 :]), table[at + 1]
    if len(table) >= 2 * size:
        if table[-1] == 1:
            return (value, 1, *table[:-2]), 0
        counts = table[size + 1 :: 2]
        out = size + 2 * (len(counts) - 1 - counts[::-1].index(min(counts)))
        table = table[:out] + table[out + 2 :]
    return (value, 1, *table), 0


def advance(state: AccountState, seen: Trace, time: int) -> AccountState:
    """The state after one request at `time` (ms); score and alarm are left as they are. Pure."""
    texts, same = counted(state.texts, seen.text, TEXTS)
    if seen.form == seen.text and state.forms == state.texts:
        forms, form = texts, same  # an account without numbers has two tables of one content
    else:
        forms, form = counted(state.forms, seen.form, TEXTS)
    heads, head = counted(state.heads, seen.head, EDGES)
    tails, tail = counted(state.tails, seen.tail, EDGES)
    sets, bias_set, biases, bias = state.bias_sets, 0, state.biases, 0
    if seen.biases:
        sets, bias_set = counted(sets, seen.biased, DIALS)
        biases, bias = counted(biases, seen.biases, DIALS)
    settings, setting = counted(state.settings, seen.dials, DIALS)
    full = seen.high << 64 | seen.low
    if same:  # a text that came back is at no distance, whether or not its sketch is still held
        nearest = latest = 0
    else:
        nearest, latest = SKETCHES.nearest(state.ring, full)
    gap = max(0, time - state.time) if state.count else 0
    on = facts.facts(seen, Past(
        not state.count, same, same > 0 and state.texts[0] == seen.text, form, head, tail, bias_set, bias, setting,
        state.dials, head > 0 and state.heads[0] == seen.head, state.length, nearest, latest, gap, state.gap,
    ))  # fmt: skip
    fresh = seen.length > 0 and not same
    return AccountState(
        state.count + 1, max(time, state.time), gap, seen.length, seen.dials,
        SKETCHES.added(state.ring, full) if fresh else state.ring, texts, forms, heads, tails, sets, biases, settings,
        (on.to_bytes(_FACTS, "little") + state.recent)[: RECENT * _FACTS], _added(state, on),
        state.distance + (min(nearest, _MOST_DISTANT) if state.count else 0), state.score, state.cusum, state.alarm,
    )  # fmt: skip


class _Ones(dict[int, int]):
    """Facts -> one for each that holds, four bytes apart; an account repeats itself, and there are few kinds of
    request."""

    def __missing__(self, on: int) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        ones = self[on] = sum(1 << 32 * at for at in range(_TOLD) if on >> at & 1)
        return ones


_REMEMBERED = 8_192
_ONES = _Ones()


def _added(state: AccountState, on: int) -> bytes:
    if state.count >= _MOST_TOLD:
        return state.totals
    return (int.from_bytes(state.totals, "little") + _ONES[on]).to_bytes(4 * _TOLD, "little")


def tally(state: AccountState) -> tuple[int, ...]:
    """How often each fact of NAMES held."""
    return _TALLY.unpack(state.totals)


def row(state: AccountState) -> npt.NDArray[np.int32]:
    """What the scorer reads, COLUMNS integers: shares in thousandths, counts up to a bound."""
    count = max(1, state.count)
    bits = np.unpackbits(np.frombuffer(state.recent, np.uint8), bitorder="little")
    # eight facts at a time are added, as bytes of one number: RECENT fits into each
    recent = np.add.reduce(bits.view("<u8").reshape(-1, _FACTS)).view(np.uint8)
    rest = [state.distance // count]
    for table in (state.texts, state.heads, state.tails):
        rest += _shares(table, count)
    rest.append(min(state.count, _MOST_SEEN))
    told = np.frombuffer(state.totals, "<u4").astype(np.int64)
    found = np.empty(COLUMNS, dtype=np.int32)
    found[:_TOLD] = told * 1000 // count
    found[_TOLD : 2 * _TOLD] = recent[:_TOLD]
    found[2 * _TOLD : -len(rest)] = np.minimum(told.take(_COUNTED), _MOST_COUNTED)
    found[-len(rest) :] = rest
    return found


def _shares(table: tuple[int, ...], count: int) -> list[int]:
    """The share of the commonest and of the three commonest values, and the count of the first."""
    counts = sorted(table[1::2])
    most = counts[-1] if counts else 0
    return [1000 * most // count, 1000 * sum(counts[-3:]) // count, min(most, _MOST_COUNTED)]
