"""Protected texts of a deployment: what is read, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectors.verbatim import MARKER, VerbatimRedactor
from pipeline.errors import ConfigError
from pipeline.generate.protected_texts import read_protected

TEXT = "The reserve price of the northern depot is four hundred and twelve thousand pounds."


def test_files_and_folders_are_one_index_by_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "house rules.md").write_text(TEXT, "utf-8")
    (tmp_path / "deep" / "picture.png").write_bytes(b"\xff\xfe")
    one = tmp_path / "合同.txt"
    one.write_text("供应商应当在收到订单之日起十四日内将货物运至买方仓库", "utf-8")
    index = read_protected(f"{tmp_path / 'deep'}, {one}")
    assert index
    redactor = VerbatimRedactor(index)
    said = f"{TEXT} 应当在收到订单之日起十四日内将货物运至"
    assert redactor.push(said) + redactor.flush() == f"{MARKER}. {MARKER}"
    assert set(redactor.counts) == {"house_rules", "__"}


def test_nothing_named_is_no_index() -> None:
    assert read_protected("") is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "expected UTF-8, byte 0"),
        (b"too short", "at least 48 letters"),
    ],
)
def test_what_cannot_be_protected_is_said(tmp_path: Path, raw: bytes | None, message: str) -> None:
    path = tmp_path / "secret.txt"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(ConfigError, match=message):
        read_protected(str(path))
