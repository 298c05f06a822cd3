"""The archive of Kafka's classes: made once, passed over where it cannot be made, never waited for twice."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.embedded import class_archive
from pipeline.errors import Retryable

JAVA = """\
import sys
told = dict(word.split("=", 1) for word in sys.argv if "=" in word)
assert told["-XX:AOTMode"] == "create"
made = open(told["-XX:AOTConfiguration"]).read()
open(told["-XX:AOTCache"], "w").write(made)
sys.exit({code})
"""


@pytest.fixture
def java(tmp_path: Path) -> Callable[[int], list[str]]:
    """What stands in for Java: it makes an archive of its record, or fails half-way through."""

    def command(code: int = 0) -> list[str]:
        program = tmp_path / f"java{code}.py"
        program.write_text(JAVA.format(code=code))
        return [sys.executable, str(program)]

    return command


def recorded(options: Sequence[str]) -> None:
    record = next(word for word in options if word.startswith("-XX:AOTConfiguration="))
    Path(record.partition("=")[2]).write_text("classes")


def test_it_is_made_once_and_then_used(tmp_path: Path, java: Callable[[int], list[str]]) -> None:
    archive, rehearsals = tmp_path / "kafka-classes-1.aot", []

    def rehearse(options: Sequence[str]) -> None:
        rehearsals.append(options)
        recorded(options)

    assert class_archive.options(archive) == []
    for _ in range(2):
        class_archive.ensure(archive, java(0), rehearse)
    assert len(rehearsals) == 1
    assert archive.read_text() == "classes"
    assert f"-XX:AOTCache={archive}" in class_archive.options(archive)
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob("*.record"))


def failing(options: Sequence[str]) -> None:
    raise Retryable("no answer")


@pytest.mark.parametrize(("rehearse", "code"), [(failing, 0), (recorded, 1)])
def test_where_it_cannot_be_made_brokers_start_without(
    tmp_path: Path, java: Callable[[int], list[str]], rehearse: Callable[[Sequence[str]], None], code: int
) -> None:
    archive = tmp_path / "kafka-classes-1.aot"
    class_archive.ensure(archive, java(code), rehearse)
    assert class_archive.options(archive) == []

    def again(options: Sequence[str]) -> None:
        raise AssertionError("it was tried already")

    class_archive.ensure(archive, java(code), again)


def test_nobody_waits_for_another_process_that_makes_it(tmp_path: Path, java: Callable[[int], list[str]]) -> None:
    archive = tmp_path / "kafka-classes-1.aot"
    with (tmp_path / "classes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        class_archive.ensure(archive, java(0), recorded)
    assert not archive.exists()


def test_archives_of_other_versions_go_after_a_week(tmp_path: Path, java: Callable[[int], list[str]]) -> None:
    old, young = tmp_path / "kafka-classes-old.aot", tmp_path / "kafka-classes-young.aot"
    for other in (old, young):
        other.write_text("classes")
    os.utime(old, (time.time() - 8 * 86_400,) * 2)
    class_archive.ensure(tmp_path / "kafka-classes-1.aot", java(0), recorded)
    assert (old.exists(), young.exists()) == (False, True)


def test_another_java_option_or_jar_means_another_archive(tmp_path: Path) -> None:
    jar = tmp_path / "kafka.jar"
    jar.write_bytes(b"")
    places = {class_archive.place(tmp_path, ["java", option], [jar]) for option in ("-a", "-a", "-b")}
    os.utime(jar, (1, 1))
    places.add(class_archive.place(tmp_path, ["java", "-a"], [jar]))
    assert len(places) == 3
    here = class_archive.place(tmp_path, ["java", "-b"], [jar])
    assert class_archive.place(tmp_path, ["other/java", "-b"], [jar]) == here
