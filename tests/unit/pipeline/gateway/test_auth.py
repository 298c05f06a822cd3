"""Only the right secret of a live key gets in; unknown key and wrong secret cannot be told apart."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from pipeline.events.control import AnyDocument, Control, Deployment, Key, Organisation, Plan, Principal, Tenant
from pipeline.gateway.auth import ApiCaller, Authenticator, authenticate, bearer, parse_bearer
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.refusals import Refusal
from pipeline.gateway.wrong_keys import BURST, REPORTED_FROM, WrongKeys
from pipeline.keys.vault import FileKeyring, Vault

SECRET, OTHER = b"s" * 32, b"o" * 32
NOW = 1_000


@pytest.fixture
def site(tmp_path: Path) -> tuple[Control, Vault]:
    keyring = FileKeyring.create(tmp_path / "keyring.json")
    control = Control()

    def key(name: str, principal: str = "p", **rest: object) -> Key:
        return Key(id=name, principal=principal, secret=keyring.wrap(SECRET, f"key/{name}"), **rest)  # type: ignore[arg-type]

    def tenant(name: str, **rest: object) -> Tenant:
        return Tenant(id=name, organisation="o", plan="s", data_key="-", hpke_public="-", hpke_private="-", **rest)  # type: ignore[arg-type]

    found: list[AnyDocument] = [
        Deployment(generation="g", partitions=4),
        Plan(id="s"),
        Organisation(id="o"),
        tenant("t"),
        tenant("closed", status="suspended"),
        Principal(id="p", tenant="t"),
        Principal(id="c", tenant="closed"),
        key("k.1-a"),
        key("revoked", status="revoked"),
        key("expired", expires=NOW),
        key("late", expires=NOW + 1),
        key("suspended", "c"),
        key("orphan", "nobody"),
    ]
    for version, document in enumerate(found):
        control.apply(version, document)
    return control, Vault(keyring, control)


def enter(site: tuple[Control, Vault], header: str | None) -> ApiCaller:
    return authenticate(*site, header, NOW)


def test_the_right_secret_gets_in(site: tuple[Control, Vault]) -> None:
    caller = enter(site, f"Bearer {bearer('k.1-a', SECRET)}")
    assert (caller.key, caller.secret, caller.principal.id, caller.tenant.id) == ("k.1-a", SECRET, "p", "t")
    assert enter(site, f"bearer {bearer('late', SECRET)}").key == "late"


@pytest.mark.parametrize(
    ("header", "reason", "status"),
    [
        (None, "unknown_key", 401),
        ("", "unknown_key", 401),
        (f"Basic {bearer('k.1-a', SECRET)}", "unknown_key", 401),
        ("Bearer sk-other", "unknown_key", 401),
        ("Bearer " + "x" * 10_000, "unknown_key", 401),
        (f"Bearer {bearer('k.1-a', OTHER)}", "unknown_key", 401),
        (f"Bearer {bearer('nobody', SECRET)}", "unknown_key", 401),
        (f"Bearer {bearer('orphan', SECRET)}", "unknown_key", 401),
        (f"Bearer {bearer('revoked', OTHER)}", "unknown_key", 401),
        (f"Bearer {bearer('revoked', SECRET)}", "revoked_key", 401),
        (f"Bearer {bearer('expired', SECRET)}", "expired_key", 401),
        (f"Bearer {bearer('suspended', SECRET)}", "suspended", 403),
    ],
)
def test_all_others_do_not(site: tuple[Control, Vault], header: str | None, reason: str, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        enter(site, header)
    assert (caught.value.code, caught.value.status) == (reason, status)


def test_wrong_secret_and_unknown_key_read_the_same(site: tuple[Control, Vault]) -> None:
    texts = set()
    for header in (bearer("k.1-a", OTHER), bearer("nobody", SECRET), bearer("orphan", SECRET)):
        with pytest.raises(Refusal) as caught:
            enter(site, f"Bearer {header}")
        texts.add(caught.value.body())
    assert len(texts) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-sluice-",
        "sk-sluice-k",
        "sk-sluice-.AAAA",
        "sk-sluice-k.AAAA",
        bearer("k", b"x" * 31),
        bearer("k", b"x" * 33),
        bearer("k", SECRET) + "\n",
        bearer("k", SECRET)[:-1] + "é",
    ],
)
def test_texts_that_are_no_key(text: str) -> None:
    assert parse_bearer(text) is None


class Door:
    """An authenticator whose clock stands still, and how often it had control read."""

    def __init__(self, site: tuple[Control, Vault]) -> None:
        self.reads = 0
        self.wrong_keys = WrongKeys(Metrics())
        self._authenticator = Authenticator(*site, self._caught_up, self.wrong_keys)

    async def _caught_up(self) -> bool:
        self.reads += 1
        return True

    def status(self, header: str | None, address: str = "203.0.113.7") -> tuple[int, str]:
        """Status and seconds to wait."""
        try:
            asyncio.run(self._authenticator.caller(header, address))
        except Refusal as refusal:
            return refusal.status, refusal.headers.get("Retry-After", "")
        return 200, ""


@pytest.fixture
def door(site: tuple[Control, Vault], monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    return Door(site)


WRONG = f"Bearer {bearer('k.1-a', OTHER)}"


def test_wrong_keys_in_a_row_are_throttled_by_address_and_a_genuine_one_never(door: Door) -> None:
    told = [door.status(WRONG) for _ in range(60)]
    assert told[:BURST] == [(401, "")] * BURST
    assert {status for status, _ in told[BURST:]} == {429}
    assert all(1 <= int(wait) <= 60 for _, wait in told[BURST:])
    assert door.reads == BURST
    assert door.status(WRONG, "203.0.113.8") == (401, "")
    assert door.status(f"Bearer {bearer('k.1-a', SECRET)}") == (200, "")


@pytest.mark.parametrize("header", [f"Bearer {bearer('nobody', SECRET)}", "Bearer sk-other-abc", "Basic dTpw"])
def test_whatever_is_no_key_of_ours_counts(door: Door, header: str) -> None:
    assert [door.status(header)[0] for _ in range(BURST + 1)] == [401] * BURST + [429]


def test_no_header_and_keys_that_no_longer_work_are_no_guesses(door: Door) -> None:
    for header in (None, f"Bearer {bearer('revoked', SECRET)}", f"Bearer {bearer('suspended', SECRET)}"):
        assert {door.status(header)[0] for _ in range(2 * BURST)} <= {401, 403}


def test_what_goes_on_is_a_finding_of_the_key_that_was_named(door: Door) -> None:
    for _ in range(REPORTED_FROM):
        door.status(WRONG)
    for _ in range(REPORTED_FROM - 1):
        door.status(WRONG, "203.0.113.8")
    (report,) = door.wrong_keys.reports()
    assert report == ("203.0.113.7", REPORTED_FROM, ("o", "t", "p"))
    assert door.wrong_keys.reports() == []
