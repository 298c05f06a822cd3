"""An act counts under the name of the operator who signed it, in a role that may do it, while that one was known."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.events.codec import decode, encode
from pipeline.events.messages import Access
from pipeline.events.signed_access import SKEW_MS, fault_of, operator_who_signed, sign_access
from tests.signatures import OPERATORS, ROOTS, STRANGER, SignedLog

ANALYST = OPERATORS["analyst"]
LATER = 10 * SKEW_MS


@pytest.fixture
def log() -> SignedLog:
    return SignedLog()


def act(log: SignedLog, name: str = "label.attack", time: int = 1_000) -> Access:
    return sign_access(Access(time, "analyst", name, "acme", "g1-0-1"), log.generation, ANALYST)


def test_an_act_that_was_signed_is_the_analysts(log: SignedLog) -> None:
    record = decode(Access, encode(act(log)))
    found = operator_who_signed(record, log.fold)
    assert found is not None
    assert (found.id, fault_of(encode(record), log.fold)) == ("analyst", "")


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "administrator"},
        {"act": "label.benign"},
        {"target": "g1-0-2"},
        {"time": 1_001},
        {"tenant": "globex"},
        {"count": 2},
        {"key": OPERATORS["administrator"].key},
        {"key": STRANGER.key},
        {"signature": b""},
        {"signature": b"\0" * 64},
        {"key": ""},
    ],
)
def test_an_act_with_another_field_is_nobodys(log: SignedLog, change: dict[str, object]) -> None:
    record = msgspec.structs.replace(act(log), **change)
    assert operator_who_signed(record, log.fold) is None
    assert fault_of(encode(record), log.fold) == f"no operator known then signed this act: {record.act}"


def test_an_act_of_another_deployment_is_nobodys(log: SignedLog) -> None:
    record = sign_access(Access(1_000, "analyst", "label.attack"), "g0", ANALYST)
    assert operator_who_signed(record, log.fold) is None


@pytest.mark.parametrize(("name", "counts"), [("account.cleared", True), ("key.add", False), ("tenant.change", False)])
def test_an_act_counts_in_a_role_that_may_do_it(log: SignedLog, name: str, *, counts: bool) -> None:
    assert (operator_who_signed(act(log, name), log.fold) is not None) == counts


def test_an_act_after_the_operator_was_revoked_is_nobodys(log: SignedLog) -> None:
    current = log.fold.control.require_deployment()
    left = tuple(operator for operator in current.operators if operator.id != "analyst")
    value = log.signed(current.model_copy(update={"operators": left}), ROOTS[0])
    assert log.fold.read(1, value, LATER) is None
    assert operator_who_signed(act(log, time=1_000), log.fold) is not None
    assert operator_who_signed(act(log, time=LATER + SKEW_MS), log.fold) is None


def test_what_the_gateway_tells_bears_no_signature_and_is_no_fault(log: SignedLog) -> None:
    assert fault_of(encode(Access(1, "10.0.0.1", "refused", "acme", "quota", 3)), log.fold) == ""
    assert fault_of(b"{", log.fold) == ""
