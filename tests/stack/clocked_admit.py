"""``sluice run admit`` on a machine whose clock stands where a file says: ``python clocked_admit.py CLOCK CONFIG``.

So the hours of an account pass in seconds, with the holds and windows that ship. Nothing else differs.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from unittest import mock

from pipeline import cli
from pipeline.admit import partition as admit
from pipeline.admit import request_queue as opening
from pipeline.kafka import clock_watch


def main(told: Path, config: str) -> int:
    """The exit status of the stage. ``told`` holds Unix ms and is only ever replaced as a whole."""

    def clock() -> int:
        return int(told.read_text())

    with contextlib.ExitStack() as patches:
        for module in (admit, opening, clock_watch):
            patches.enter_context(mock.patch.object(module, "now_ms", clock))
        return cli.main(["--config", config, "run", "admit", "--assign", "0"])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
