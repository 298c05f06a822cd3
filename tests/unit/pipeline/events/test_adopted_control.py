"""A deployment from before documents were signed is taken over whole, or not at all."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.events.codec import decode, encode
from pipeline.events.control import Deployment, Key, Organisation, Plan, Principal, Tenant
from pipeline.events.signed_control import ControlFold, PassedOver
from pipeline.events.signed_document import SignedDocument, digest, message, sign
from tests.signatures import ADMINISTRATOR, ROOTS, named

PLAN = Plan(id="team")
TENANT = Tenant(
    id="acme", organisation="acme", plan="team", data_key="k:AA==", hpke_public="AA==", hpke_private="k:AA=="
)
VICTIM = Principal(id="acme-app", tenant="acme")
KEY = Key(id="k1", principal="acme-app", secret="k:AA==")
UNSIGNED = [
    document.model_dump_json().encode()
    for document in (Deployment(generation="g7", partitions=4), PLAN, Organisation(id="acme"), TENANT, VICTIM, KEY)
]


def taken_over(values: list[bytes], **changes: Any) -> tuple[str, bytes]:
    """Pin and record of a document that adopts ``values``."""
    fold = ControlFold("")
    for offset, value in enumerate(values):
        fold.read(offset, value)
    place = {"adopts": len(values), "adopted": fold.prefix, **changes}
    document = named(fold.control.require_deployment().model_copy(update=place))
    record = sign("", document, fold.digest_of("deployment/deployment"), ROOTS[:1])
    return digest(message("", "deployment/deployment", record.replaces, record.document)), encode(record)


def read(pin: str, values: list[bytes]) -> tuple[ControlFold, list[str | None]]:
    fold = ControlFold(pin)
    return fold, [fold.read(offset, value) for offset, value in enumerate(values)]


def test_an_older_deployment_is_taken_over_whole_and_signed_from_there_on() -> None:
    pin, record = taken_over(UNSIGNED)
    fold, reasons = read(pin, [*UNSIGNED, record, UNSIGNED[1]])
    assert reasons == [None] * 7 + [PassedOver.UNSIGNED]
    assert (fold.control.generation, sorted(fold.control.keys)) == ("g7", ["k1"])
    text = PLAN.model_copy(update={"max_tokens": 5})
    signed = sign("g7", text, fold.digest_of("plan/team"), [ADMINISTRATOR])
    assert fold.read(8, encode(signed)) is None
    assert fold.control.plans["team"].max_tokens == 5


@pytest.mark.parametrize("at", range(len(UNSIGNED)))
def test_an_older_deployment_with_another_byte_is_not_taken_over(at: int) -> None:
    pin, record = taken_over(UNSIGNED)
    for other in (
        [*UNSIGNED[:at], UNSIGNED[at] + b" ", *UNSIGNED[at + 1 :]],
        [*UNSIGNED[:at], *UNSIGNED[at + 1 :]],
        [*UNSIGNED[:at], UNSIGNED[at], *UNSIGNED[at:]],
    ):
        fold, reasons = read(pin, [*other, record])
        assert (reasons[-1], fold.signed) == (PassedOver.NOT_ADOPTED, False)


def test_a_signature_of_roots_that_a_stranger_put_in_takes_nothing_over() -> None:
    pin, record = taken_over(UNSIGNED)
    mine = decode(SignedDocument, record)
    forged = msgspec.structs.replace(mine.signatures[0], signature=b"\0" * 64)
    fold, reasons = read(pin, [*UNSIGNED, encode(msgspec.structs.replace(mine, signatures=(forged,)))])
    assert (reasons[-1], fold.signed) == (PassedOver.BAD_SIGNATURE, False)
