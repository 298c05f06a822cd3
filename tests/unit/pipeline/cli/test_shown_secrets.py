"""A command that shows a secret puts that on record before it does."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import pytest

from pipeline.cli import operate

SHOWS = {"webhook": operate._webhook, "canary": operate._tenant_canary}


class RegistryStub:
    """Notes in which order it is asked; where ``absent``, nothing can be put on record."""

    def __init__(self, *, absent: bool = False) -> None:
        self.asked: list[str] = []
        self._absent = absent

    async def record_shown(self, what: str, tenant: str) -> None:
        if self._absent:
            raise ConnectionError
        self.asked.append(f"record {what} {tenant}")

    def webhook(self, tenant: str) -> tuple[str, str]:
        self.asked.append(f"show webhook {tenant}")
        return "", "whsec_secret"

    def canary(self, tenant: str) -> str:
        self.asked.append(f"show canary {tenant}")
        return "secret"


@pytest.mark.parametrize("secret", SHOWS)
def test_what_is_shown_is_on_record_first(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    registry: Any = RegistryStub()
    arguments = argparse.Namespace(tenant="acme", url=None, json=True)
    assert asyncio.run(SHOWS[secret](arguments, registry)) == 0
    assert registry.asked == [f"record {secret} acme", f"show {secret} acme"]
    assert "secret" in capsys.readouterr().out


@pytest.mark.parametrize("secret", SHOWS)
def test_what_cannot_be_put_on_record_is_not_shown(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    registry: Any = RegistryStub(absent=True)
    with pytest.raises(ConnectionError):
        asyncio.run(SHOWS[secret](argparse.Namespace(tenant="acme", url=None, json=True), registry))
    assert "secret" not in capsys.readouterr().out
