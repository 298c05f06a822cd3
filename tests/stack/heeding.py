"""A process is asked to end once it can hear it: one that has nothing to do may be asked before it has begun."""

from __future__ import annotations

import re
import time
from pathlib import Path


def await_heeding(pid: int, number: int) -> None:
    """Wait until a process catches a signal; at once where nothing tells."""
    while True:
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
        if caught is None or int(caught[1], 16) >> (number - 1) & 1:
            return
        time.sleep(0.05)
