"""The real worker around a reader that does what a text tells it, as if a detector had such a fault."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from detectors.base import Finding, Transcript
from detectors.screening import Screened
from detectors.worker import main


def _spin() -> str:
    while True:
        pass


def _hoard() -> str:
    return str(len(bytearray(3 << 30)))


def _open() -> str:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return "refused"
    return "opened"


ACTS: dict[str, Callable[[], str]] = {
    "spin": _spin,
    "hoard": _hoard,
    "open": _open,
    "environment": lambda: " ".join(sorted(os.environ)),
    "end": lambda: os._exit(3),
}


def obey(transcripts: Sequence[Transcript]) -> list[Screened]:
    said = [ACTS.get(parts[0].text, lambda: "fine")() for parts in transcripts]
    return [Screened((Finding(word, 1, 1, 0, 0, "raw", 0),)) for word in said]


if __name__ == "__main__":
    main(obey)
