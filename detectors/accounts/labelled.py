"""Labelled sessions of the developer pack, for training and evaluation alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.accounts.columns import COLUMNS, row
from detectors.accounts.judge import CHECK
from detectors.accounts.replay import Account, read
from detectors.accounts.state import AccountState, advance

BENIGN, GREY = "benign", "grey_benchmark_run"
LEARNT_FROM = 10
"""Requests after which the trees learn from an account, a little before they may judge it."""


class _LabelledEvent(msgspec.Struct):
    t: float
    attack: int | None = None


class _Labels(msgspec.Struct):
    label: str
    subtype: str
    events: list[_LabelledEvent]
    campaign: str | None = None
    source: str = ""


_decode = msgspec.json.Decoder(_Labels).decode


class LabelledSession(NamedTuple):
    """An account with its labels."""

    account: Account
    label: str
    subtype: str
    campaign: str
    source: str
    attacks: npt.NDArray[np.int64]
    """Attack requests among the first k + 1, at each index k."""


class AccountReadings(NamedTuple):
    """The rows that the trees read of one account, and after how many requests each."""

    counts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]


def sessions(file: Path) -> list[LabelledSession]:
    """All but the grey ones. Exits where a line is no session."""
    found = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                session = labelled(line)
            except (msgspec.DecodeError, ValueError) as error:
                raise SystemExit(f"{file}:{number}: expected a labelled session: {error}") from error
            if session.label != GREY:
                found.append(session)
    return found


def labelled(line: bytes) -> LabelledSession:
    """The session of one line. Raises DecodeError or ValueError."""
    labels, account = _decode(line), read(line)
    default = int(labels.label != BENIGN)
    ordered = sorted(labels.events, key=lambda event: event.t)
    attacks = np.cumsum([default if event.attack is None else event.attack for event in ordered])
    return LabelledSession(account, labels.label, labels.subtype, labels.campaign or "", labels.source, attacks)


def readings(session: LabelledSession, most: int) -> AccountReadings:
    """The readings of the account's first requests, `most` of them."""
    state = AccountState()
    counts, rows = [], []
    for time, request in session.account.requests[:most]:
        state = advance(state, request, time)
        if state.count % CHECK == 0 and state.count >= LEARNT_FROM:
            counts.append(state.count)
            rows.append(row(state))
    return AccountReadings(np.array(counts, dtype=np.int64), np.array(rows, dtype=np.int32).reshape(-1, COLUMNS))
