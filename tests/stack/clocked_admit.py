"""``sluice run admit`` on a machine whose clock is told by a file: ``python clocked_admit.py CLOCK CONFIG [P,P]``.

So the hours of an account pass in seconds, with the holds and windows that ship, and a worker's clock is as wrong as a
test wants it. Nothing else differs. Without partitions the worker is a member of its group.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from unittest import mock

from pipeline import cli
from pipeline.admit import partition as admit
from pipeline.admit import request_queue as opening
from pipeline.kafka import clock_watch


def main(told: Path, config: str, *partitions: str) -> int:
    """The exit status of the stage.

    ``told`` holds Unix ms, or with a sign the ms that this clock is ahead (+) or behind (-); it is only ever replaced
    as a whole.
    """

    def clock() -> int:
        text = told.read_text()
        return int(text) + (time.time_ns() // 1_000_000 if text[0] in "+-" else 0)

    assigned = ["--assign", *partitions] if partitions else []

    with contextlib.ExitStack() as patches:
        for module in (admit, opening, clock_watch):
            patches.enter_context(mock.patch.object(module, "now_ms", clock))
        return cli.main(["--config", config, "run", "admit", *assigned])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
