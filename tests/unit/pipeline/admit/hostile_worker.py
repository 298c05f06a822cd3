"""The real worker around a reader that does what a text tells it, as if a detector had such a fault."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

from detectors.base import Finding, Screened, Transcript
from detectors.worker import main


def _spin() -> str:
    while True:
        pass


def _hoard() -> str:
    return str(len(bytearray(3 << 30)))


def _tried(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError:
        return "refused"
    return "done"


def _open() -> object:
    return os.open(os.devnull, os.O_RDONLY)


def _open_in_place_of_another() -> object:
    os.close(2)
    return _open()


def _connect() -> object:
    return socket.create_connection(("127.0.0.1", 9), timeout=5)


ACTS: dict[str, Callable[[], str]] = {
    "spin": _spin,
    "hoard": _hoard,
    "open": lambda: _tried(_open),
    "write": lambda: _tried(lambda: os.open("left-behind", os.O_CREAT | os.O_WRONLY)),
    "open in place of another": lambda: _tried(_open_in_place_of_another),
    "socket": lambda: _tried(socket.socket),
    "connect": lambda: _tried(_connect),
    "pipe": lambda: _tried(os.pipe),
    "environment": lambda: " ".join(sorted(f"{name}={value}" for name, value in os.environ.items())),
    "end": lambda: os._exit(3),
}


def obey(transcripts: Sequence[Transcript]) -> list[Screened]:
    said = [ACTS.get(parts[0].text, lambda: "fine")() for parts in transcripts]
    return [Screened((Finding(word, 1, 1, 0, 0, "raw", 0),)) for word in said]


if __name__ == "__main__":
    main(obey)
