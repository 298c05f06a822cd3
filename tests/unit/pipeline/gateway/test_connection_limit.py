"""The number of connections fits the files that may be open; faults are logged without what they quote."""

from __future__ import annotations

import resource

import pytest

from pipeline.gateway import connections
from pipeline.gateway.refusals import Refusal

CANARY = "canary-7f3a"


@pytest.mark.parametrize(
    ("limits", "wanted", "expected", "raised"),
    [
        ((1024, 4096), 12_000, 3840, 4096),
        ((1024, resource.RLIM_INFINITY), 12_000, 12_000, 12_256),
        ((20_000, 20_000), 12_000, 12_000, 0),
        ((64, 64), 12_000, 16, 64),
    ],
)
def test_the_bound_fits_the_files_that_may_be_open(
    limits: tuple[int, int], wanted: int, expected: int, raised: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, found: set_to.append(found))
    assert connections.connection_limit(wanted) == expected
    assert [soft for soft, _ in set_to] == ([raised] if raised else [])


def test_an_unexpected_fault_is_logged_by_type_and_place_only(caplog: pytest.LogCaptureFixture) -> None:
    connections.log_unexpected(ValueError(CANARY))
    assert "unexpected ValueError" in caplog.text
    assert CANARY not in caplog.text
    assert isinstance(connections.malformed_http(None, None), Refusal)
