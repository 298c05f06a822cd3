"""Operators are added and revoked by as many roots as the deployment asks for, also over a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.control import operators
from pipeline.errors import ConfigError
from pipeline.events.codec import encode
from pipeline.events.control import Deployment
from tests.signatures import ROOTS, STRANGER, SignedLog, named


class RegistryStub:
    """Gives what is in force in a log."""

    def __init__(self, log: SignedLog) -> None:
        self.control = log.fold.control
        self.table = self
        self.fold = log.fold


@pytest.fixture
def log() -> SignedLog:
    return SignedLog(named(Deployment(partitions=4), roots=3, threshold=2), signers=2)


def proposed(log: SignedLog, roots: int) -> operators.Proposal:
    registry: Any = RegistryStub(log)
    document = operators.with_operator(log.fold.control.require_deployment(), "eve", STRANGER.public, "policy")
    return operators.propose(registry, document, "operator.add", "operator/eve", ROOTS[:roots])


def test_a_proposal_counts_once_enough_roots_have_signed_it(log: SignedLog, tmp_path: Path) -> None:
    first = proposed(log, 1)
    assert log.add(encode(first.record)) == "too_few"
    operators.write_proposal(tmp_path / "eve.json", first)
    second = operators.sign_proposal(operators.read_proposal(tmp_path / "eve.json"), ROOTS[:2])
    assert [operator.id for operator in second.document.operators][-1] == "eve"
    assert log.add(encode(second.record)) is None
    assert (tmp_path / "eve.json").stat().st_mode & 0o777 == 0o600


def test_a_root_signs_once_and_a_stranger_in_vain(log: SignedLog) -> None:
    with pytest.raises(ConfigError, match="a root that has not signed yet"):
        operators.sign_proposal(proposed(log, 1), ROOTS[:1])
    foreign = operators.sign_proposal(proposed(log, 1), [STRANGER])
    assert log.add(encode(foreign.record)) == "unknown_key"


@pytest.mark.parametrize(
    ("name", "public", "role", "fault"),
    [
        ("eve", STRANGER.public, "emperor", "expected a role of administrator, policy"),
        ("policy", STRANGER.public, "policy", "operator policy has this name"),
        ("eve", named(Deployment(partitions=1)).operators[0].public, "policy", "operator administrator has this name"),
    ],
)
def test_an_operator_that_does_not_fit_is_refused(
    log: SignedLog, name: str, public: str, role: str, fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        operators.with_operator(log.fold.control.require_deployment(), name, public, role)


@pytest.mark.parametrize(
    ("name", "by", "fault"),
    [
        ("nobody", "policy", "no operator 'nobody'"),
        ("policy", "policy", "cannot revoke itself"),
        ("administrator", "policy", "last administrator"),
    ],
)
def test_a_deployment_keeps_an_administrator_and_the_one_who_acts(
    log: SignedLog, name: str, by: str, fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        operators.without_operator(log.fold.control.require_deployment(), name, by)


def test_a_file_that_is_no_proposal_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{}")
    with pytest.raises(ConfigError, match="expected what sluice operator add --propose writes"):
        operators.read_proposal(tmp_path / "x")
