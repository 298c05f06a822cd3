"""What was made by hand is closed to others, once, and a folder that is not ours is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.keys.rights import ALL_BUT_OWNER, OTHERS, take_rights


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_rights_are_taken_and_told_once(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    (folder / "roots").mkdir(parents=True)
    secret, outside = folder / "roots" / "first.pem", tmp_path / "outside"
    secret.write_text("x")
    outside.write_text("y")
    (folder / "link").symlink_to(outside)
    for path, rights in ((folder, 0o755), (folder / "roots", 0o750), (secret, 0o644), (outside, 0o644)):
        path.chmod(rights)
    assert take_rights(folder, ALL_BUT_OWNER) == [
        f"{folder}: mode 0755 is now 0700",
        f"{folder / 'roots'}: mode 0750 is now 0700",
        f"{secret}: mode 0644 is now 0600",
    ]
    assert take_rights(folder, ALL_BUT_OWNER) == []
    assert (mode(folder), mode(secret), mode(outside)) == (0o700, 0o600, 0o644)


def test_a_group_that_was_given_rights_keeps_them_where_only_others_lose_theirs(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    tmp_path.chmod(0o750)
    assert take_rights(tmp_path, OTHERS) == [f"{secret}: mode 0644 is now 0640"]
    assert mode(tmp_path) == 0o750


def test_a_folder_that_all_accounts_share_is_no_home(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(ConfigError, match="expected a folder of its own"):
        take_rights(tmp_path, ALL_BUT_OWNER)
    assert mode(tmp_path) == 0o1777
