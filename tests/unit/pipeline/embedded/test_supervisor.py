"""Children: who gives way to the others."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from pipeline.embedded.supervisor import spawn

_SHOW = "import os; print(os.getpriority(os.PRIO_PROCESS, 0), open('/proc/self/autogroup').read().split()[-1])"


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="sessions share cores by weight on Linux alone")
@pytest.mark.parametrize(("gives_way", "wanted"), [(False, "0 0"), (True, "10 10")])
def test_what_nobody_waits_for_gives_way_as_a_process_and_as_a_session(
    tmp_path: Path, gives_way: bool, wanted: str
) -> None:
    child = spawn([sys.executable, "-c", _SHOW], name="child", log=tmp_path / "log", gives_way=gives_way)
    while child.alive():
        time.sleep(0.01)
    child.terminate()
    assert child.log_tail() == wanted
