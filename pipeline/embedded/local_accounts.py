"""The accounts of the embedded store: a password each, in a file of its own, and what a stage's process is told."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pipeline.clickhouse.accounts import NAMES, OPERATOR, SEAL

_STAGES = {"seal": SEAL}
"""Stages that ask the store; the others are given no account."""


class LocalAccounts:
    """A file for each account in ``keys/clickhouse``, mode 0600.

    ``authenticates``: each use has an account of its own; else the settings name the operator's alone, in the way that
    builds before these accounts read.
    """

    def __init__(self, keys: Path, *, authenticates: bool) -> None:
        self.folder = keys / "clickhouse"
        self._before = keys / "store-password"
        """Where the one account of earlier builds had its password."""
        self._authenticates = authenticates

    def ensure_passwords(self) -> None:
        """Make the passwords that are missing; that of a home made by an earlier build stays the operator's."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._before.exists():
            self._before.replace(self.folder / OPERATOR)
            (self.folder / OPERATOR).chmod(0o600)
        for path in (self.folder / name for name in NAMES):
            if path.exists():
                continue
            partial = path.with_name(f"{path.name}.partial")
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
            partial.replace(path)

    @property
    def operator_section(self) -> dict[str, object]:
        """Settings of a command, which takes the account of what it does."""
        if self._authenticates:
            return {"password_folder": str(self.folder)}
        return {"password": (self.folder / OPERATOR).read_text("utf-8")}

    def environment(self, stage: str) -> dict[str, str]:
        """Give the settings by which a stage has its own account and no other."""
        if not self._authenticates:
            return {}
        variables = {"SLUICE_CLICKHOUSE__PASSWORD_FOLDER": ""}
        if stage in _STAGES:
            account = _STAGES[stage]
            variables["SLUICE_CLICKHOUSE__USER"] = account
            variables["SLUICE_CLICKHOUSE__PASSWORD_FILE"] = str(self.folder / account)
        return variables
