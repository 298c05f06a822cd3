"""Rights of folders that hold secrets: what was made by hand, or by an earlier build, is closed to others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ConfigError

OTHERS, ALL_BUT_OWNER = 0o007, 0o077


def take_rights(folder: Path, away: int, *, inside: bool = True) -> list[str]:
    """Take ``away`` these rights on a folder and on what lies in it; tell of each change.

    Links in it are left alone. Raises ConfigError where the folder is shared, or another account's.
    """
    told = []
    for path in (folder, *(_within(folder) if inside else ())):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path is folder and mode & stat.S_ISVTX:
            raise ConfigError(f"{folder}: expected a folder of its own, got one that all accounts share; name another")
        if mode & away:
            try:
                path.chmod(mode & ~away)
            except OSError as error:
                raise ConfigError(
                    f"{path}: expected secrets that only this account reads, got mode {mode:04o}, which cannot be "
                    f"changed ({error.strerror}); give it to this account (chown), or set the mode where it is mounted"
                ) from None
            told.append(f"{path}: mode {mode:04o} is now {mode & ~away:04o}")
    return told


def _within(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        yield from (path for name in (*folders, *files) if not (path := Path(root) / name).is_symlink())
