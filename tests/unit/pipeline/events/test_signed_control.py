"""Who may write to ``control`` but holds no key changes nothing: each attempt is passed over, for a reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.events.codec import decode, encode
from pipeline.events.control import Deployment, Key, Model, Operator, Organisation, Plan, Principal, Tenant
from pipeline.events.signed_control import ControlFold, PassedOver
from pipeline.events.signed_document import MAX_DOCUMENT, SignedDocument, message
from tests.signatures import ADMINISTRATOR, OPERATORS, ROOTS, STRANGER, SignedLog, named, signer

PLAN = Plan(id="team")
TENANT = Tenant(
    id="acme", organisation="acme", plan="team", data_key="k:AA==", hpke_public="AA==", hpke_private="k:AA=="
)
VICTIM = Principal(id="acme-app", tenant="acme")
KEY = Key(id="k1", principal="acme-app", secret="k:AA==")


@pytest.fixture
def log() -> SignedLog:
    made = SignedLog()
    for document in (PLAN, Organisation(id="acme"), TENANT, VICTIM, KEY, Model(id="glossary", context=256)):
        made.write(document)
    return made


def state(fold: ControlFold) -> Any:
    control = fold.control
    return (
        control.deployment, control.plans, control.organisations, control.tenants, control.principals, control.keys,
        control.models, fold.terms, fold._digests,
    )  # fmt: skip


def refused(log: SignedLog, value: bytes, reason: PassedOver) -> None:
    """The record is passed over for this reason, moves the version on and changes no document."""
    before, version = msgspec.json.encode(str(state(log.fold))), log.fold.control.version
    assert log.add(value) == reason
    assert msgspec.json.encode(str(state(log.fold))) == before
    assert log.fold.control.version == version + 1


def test_the_generation_follows_from_the_first_document(log: SignedLog) -> None:
    assert log.generation == f"g{log.pin[:16]}"
    assert (log.fold.control.deployment or named(Deployment(partitions=1))).partitions == 4


@pytest.mark.parametrize(
    "document",
    [
        VICTIM.model_copy(update={"tenant": "globex"}),
        PLAN.model_copy(update={"max_tokens": 10**9}),
        named(Deployment(partitions=4)).model_copy(update={"log_keys": ("mine+00000000+AA==",)}),
        KEY.model_copy(update={"principal": "other"}),
    ],
    ids=["identity", "limits", "log keys", "key"],
)
def test_a_writer_without_a_key_forges_nothing(log: SignedLog, document: Any) -> None:
    refused(log, document.model_dump_json().encode(), PassedOver.UNSIGNED)
    if isinstance(document, Deployment):
        document = document.model_copy(update={"generation": log.generation})
    refused(log, log.signed(document, STRANGER), PassedOver.UNKNOWN_KEY)
    forged = decode(SignedDocument, log.signed(document, STRANGER))
    key = ROOTS[0].key if isinstance(document, Deployment) else ADMINISTRATOR.key
    claimed = msgspec.structs.replace(forged.signatures[0], key=key)
    refused(log, encode(msgspec.structs.replace(forged, signatures=(claimed,))), PassedOver.BAD_SIGNATURE)


def test_what_was_signed_once_counts_once_and_in_its_place(log: SignedLog) -> None:
    raised = log.signed(PLAN.model_copy(update={"max_tokens": 9}))
    fork = log.signed(PLAN.model_copy(update={"max_tokens": 8}))
    assert log.add(raised) is None
    refused(log, raised, PassedOver.REPLACED)
    refused(log, fork, PassedOver.REPLACED)
    refused(log, log.records[0], PassedOver.REPLACED)
    refused(log, log.records[1], PassedOver.REPLACED)
    # what was written before comes back as a new version alone
    log.write(PLAN)
    refused(log, raised, PassedOver.REPLACED)


def test_reordered_documents_are_passed_over(log: SignedLog) -> None:
    first = log.signed(PLAN.model_copy(update={"max_tokens": 9}))
    ahead = SignedLog()
    for value in log.records[1:]:
        ahead.add(value)
    assert ahead.add(first) is None
    second = ahead.signed(PLAN.model_copy(update={"max_tokens": 10}))
    refused(log, second, PassedOver.REPLACED)
    assert log.add(first) is None
    assert log.add(second) is None
    assert log.fold.control.plans["team"].max_tokens == 10


def test_a_signature_opens_nothing_but_its_own_document(log: SignedLog) -> None:
    mine = decode(SignedDocument, log.signed(Organisation(id="other")))
    text = mine.document.replace('"other"', '"acme2"')
    refused(log, encode(msgspec.structs.replace(mine, document=text)), PassedOver.BAD_SIGNATURE)
    refused(log, log.signed(Organisation(id="other"), generation="g1"), PassedOver.BAD_SIGNATURE)
    refused(log, log.signed(Organisation(id="other"), generation=""), PassedOver.BAD_SIGNATURE)
    twice = msgspec.structs.replace(mine, signatures=mine.signatures * 2)
    refused(log, encode(twice), PassedOver.TOO_FEW)
    refused(log, encode(msgspec.structs.replace(mine, signatures=())), PassedOver.TOO_FEW)
    foreign = decode(SignedDocument, log.signed(Organisation(id="other"), STRANGER)).signatures
    beside = msgspec.structs.replace(mine, signatures=mine.signatures + foreign)
    refused(log, encode(beside), PassedOver.UNKNOWN_KEY)
    refused(log, encode(msgspec.structs.replace(mine, signatures=mine.signatures * 17)), PassedOver.MALFORMED)
    short = msgspec.structs.replace(mine.signatures[0], signature=b"short")
    refused(log, encode(msgspec.structs.replace(mine, signatures=(short,))), PassedOver.BAD_SIGNATURE)


def test_one_form_of_a_record_counts(log: SignedLog) -> None:
    value = log.signed(Organisation(id="other"))
    fields = json.loads(value)
    double = value.replace(b'{"document"', b'{"replaces":"","document"', 1)
    for other in (
        double,
        value + b" ",
        value[:-1],
        value[: len(value) // 2],
        json.dumps(fields).encode(),
        json.dumps({**fields, "more": 1}, separators=(",", ":")).encode(),
        value.replace(b'"replaces":""', b'"replaces":null'),
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
    ):
        refused(log, other, PassedOver.MALFORMED)
    refused(log, log.signed(Organisation(id="other")) + b" " * 1_000_000, PassedOver.TOO_LONG)
    refused(log, b"x" * (MAX_DOCUMENT + 1), PassedOver.TOO_LONG)
    text = '{"doc":"organisation","id":"other","surplus":1}'
    signed = message(log.generation, "organisation/other", "", text)
    mine = decode(SignedDocument, value)
    surplus = msgspec.structs.replace(
        mine,
        document=text,
        signatures=(msgspec.structs.replace(mine.signatures[0], signature=ADMINISTRATOR.sign(signed)),),
    )
    refused(log, encode(surplus), PassedOver.MALFORMED)
    assert log.add(value) is None


@pytest.mark.parametrize(
    ("role", "document", "fits"),
    [
        ("policy", PLAN, True),
        ("policy", TENANT, False),
        ("tenants", TENANT.model_copy(update={"webhook": "https://a.example"}), True),
        ("tenants", PLAN, False),
        ("analyst", VICTIM.model_copy(update={"extraction": "confirmed"}), True),
        ("analyst", VICTIM.model_copy(update={"tenant": "globex"}), False),
        ("analyst", VICTIM.model_copy(update={"tenant": "globex", "extraction": "confirmed"}), False),
        ("analyst", Principal(id="new", tenant="acme"), False),
        ("analyst", KEY, False),
        ("analyst", TENANT.model_copy(update={"calibrated": 7}), True),
        ("analyst", TENANT.model_copy(update={"calibrated": 7, "plan": "mine"}), False),
        ("analyst", TENANT.model_copy(update={"calibrated": 7, "id": "new"}), False),
        ("auditor", VICTIM, False),
    ],
)
def test_a_role_signs_what_the_table_says(log: SignedLog, role: str, document: Any, *, fits: bool) -> None:
    value = log.signed(document, OPERATORS[role])
    if fits:
        assert log.add(value) is None
    else:
        refused(log, value, PassedOver.ROLE)


def test_an_operator_signs_no_deployment_and_a_root_nothing_else(log: SignedLog) -> None:
    current = log.fold.control.require_deployment()
    refused(log, log.signed(current.model_copy(update={"log_keys": ("x",)})), PassedOver.UNKNOWN_KEY)
    refused(log, log.signed(PLAN, ROOTS[0]), PassedOver.UNKNOWN_KEY)


def test_a_revoked_operator_signs_nothing_more(log: SignedLog) -> None:
    current = log.fold.control.require_deployment()
    early = log.signed(PLAN.model_copy(update={"max_tokens": 7}), OPERATORS["policy"])
    left = tuple(operator for operator in current.operators if operator.id != "policy")
    log.write(current.model_copy(update={"operators": left}), ROOTS[0])
    refused(log, early, PassedOver.UNKNOWN_KEY)
    [term] = log.fold.terms[OPERATORS["policy"].key]
    assert (term.operator.role, term.since, term.until) == ("policy", 1, len(log.records) - 1)
    [kept] = log.fold.terms[ADMINISTRATOR.key]
    assert kept.until == 2**63


def test_a_role_that_this_build_does_not_know_signs_nothing(log: SignedLog) -> None:
    later = signer("later", 50)
    current = log.fold.control.require_deployment()
    more = Operator(id="later", public=later.public, role="emperor")
    log.write(current.model_copy(update={"operators": (*current.operators, more)}), ROOTS[0])
    refused(log, log.signed(PLAN, later), PassedOver.ROLE)


def test_a_threshold_of_roots_signs_the_deployment() -> None:
    log = SignedLog(named(Deployment(partitions=4), roots=3, threshold=2), signers=2)
    changed = log.fold.control.require_deployment().model_copy(update={"log_keys": ("x",)})
    refused(log, log.signed(changed, ROOTS[0]), PassedOver.TOO_FEW)
    refused(log, log.signed(changed, signers=[ROOTS[0], ROOTS[0]]), PassedOver.TOO_FEW)
    refused(log, log.signed(changed, signers=[ROOTS[0], STRANGER]), PassedOver.UNKNOWN_KEY)
    assert log.add(log.signed(changed, signers=[ROOTS[2], ROOTS[0]])) is None
    assert log.fold.control.require_deployment().log_keys == ("x",)
    with_itself = changed.model_copy(update={"roots": changed.roots[:1], "threshold": 1})
    refused(log, log.signed(with_itself, ROOTS[0]), PassedOver.TOO_FEW)


@pytest.mark.parametrize(
    "change",
    [{"generation": "g0"}, {"partitions": 8}, {"adopts": 3}, {"adopted": "0" * 64}, {"roots": (), "threshold": 0}],
)
def test_what_never_changes_is_not_changed_by_roots(log: SignedLog, change: dict[str, Any]) -> None:
    current = log.fold.control.require_deployment()
    refused(log, log.signed(current.model_copy(update=change), ROOTS[0]), PassedOver.FIXED)


def test_another_deployment_is_not_this_one(log: SignedLog) -> None:
    other = SignedLog(named(Deployment(partitions=8)))
    fold = ControlFold(other.pin)
    assert [fold.read(n, value) for n, value in enumerate(log.records)][:2] == ["other_deployment", "early"]
    assert (fold.signed, fold.other, fold.control.deployment) == (False, log.pin, None)
    unpinned = ControlFold("")
    assert {unpinned.read(n, value) for n, value in enumerate(log.records)} == {"other_deployment", "early"}
    refused(log, other.records[0], PassedOver.REPLACED)


def test_what_lies_before_the_first_document_of_a_new_deployment_is_forgotten(log: SignedLog) -> None:
    fold = ControlFold(log.pin)
    planted = [Deployment(generation="g0", partitions=1), Organisation(id="planted"), PLAN]
    for offset, document in enumerate(planted):
        assert fold.read(offset, document.model_dump_json().encode()) is None
    for offset, value in enumerate(log.records, len(planted)):
        assert fold.read(offset, value) is None
    assert "planted" not in fold.control.organisations
    assert fold.control.generation == log.generation


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_changed_byte_and_no_other_order_puts_anything_else_in_force(data: st.DataObject) -> None:
    """Live state is a prefix of what operators signed, whatever a writer without a key makes of their records."""
    log = SignedLog()
    states = {repr(state(log.fold))}
    for number in range(4):
        log.write(PLAN.model_copy(update={"max_tokens": number + 1}))
        states.add(repr(state(log.fold)))
    records = list(log.records[1:])
    fold = ControlFold(log.pin)
    fold.read(0, log.records[0], 1)
    for offset in range(1, data.draw(st.integers(1, 12))):
        value = data.draw(st.sampled_from(records))
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(value) - 1))
            value = value[:at] + bytes([value[at] ^ data.draw(st.integers(1, 255))]) + value[at + 1 :]
        fold.read(offset, value, 1)
        assert repr(state(fold)) in states
