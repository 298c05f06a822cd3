"""The short form of ``make soak``: every process is killed, paused or restarted under load, and every count holds."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.faults.soak import Options, storm


def test_twenty_kills_under_load_and_every_count_holds(tmp_path: Path) -> None:
    options = Options(seed=20, kills=20, wave=5.0, hold_s=3.0, timeout_ms=2_500, patience_s=8.0, calls=2_000)
    verdict = asyncio.run(storm(options, tmp_path / "home", lambda text: print(text, file=sys.stderr)))
    verdict.show()
    assert [line for line in verdict.lines if not line.holds] == []
    assert dict(verdict.figures)["calls: answered"]
