"""Starts Python again for a module of ours: it is the one that lies beside this file, never one of the current folder.

A child runs with this process's keys, so what it imports must not depend on where the operator happened to stand.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""Folder of the packages: a checkout, or where they are installed."""


def module_command(module: str, *arguments: str) -> list[str]:
    """Give the command line that runs ``module`` as a program without the current folder on its path (``-P``)."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment() -> dict[str, str]:
    """Give the variables with which that command finds the packages.

    A variable of the caller's own is replaced: an empty entry in it would stand for the current folder.
    """
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    # installed packages are found anyway, and in this variable they would come before the standard library
    return {} if ROOT in installed else {"PYTHONPATH": str(ROOT)}
