"""The log of a stage leaves out what libraries quote."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from pipeline.cli import stage

LIBRARIES = ("faust", "mode", "asyncio", "urllib3", "aiohttp")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_no_library_quotes_what_it_could_not_read(level: int, caplog: pytest.LogCaptureFixture) -> None:
    stage._keep_log(level)
    for name in ("aiohttp.server", "aiohttp.access", "aiohttp.web"):
        logging.getLogger(name).error("canary: %s", "Authorization: Bearer sk-sluice-k.secret")
    assert caplog.text == ""
    logging.getLogger("pipeline.gateway.app").error("heard")
    assert "heard" in caplog.text
