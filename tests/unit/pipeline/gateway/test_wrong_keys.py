"""An address that sends wrong keys waits, is remembered within bounds, and becomes a finding that raises an alert."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.errors import Retryable
from pipeline.events.codec import decode
from pipeline.events.messages import Access, FindingEvent
from pipeline.gateway.access_log import AccessLog
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.open_connections import address_of
from pipeline.gateway.wrong_keys import BURST, CODE, MAX_ADDRESSES, MAX_REPORTED, PER_S, REPORTED_FROM, Named, WrongKeys
from pipeline.watch import correlate

NOBODY = Named()


def test_an_address_is_forgiven_as_time_passes() -> None:
    keys = WrongKeys(Metrics())
    for _ in range(10 * BURST):
        keys.add("a", 0.0, NOBODY)
    assert 0 < keys.wait_s("a", 0.0) <= 3 * PER_S
    assert keys.wait_s("a", 3 * PER_S) == 0
    for _ in range(2):
        keys.add("a", 3 * PER_S, NOBODY)
    assert keys.wait_s("a", 3 * PER_S) > 0
    assert keys.wait_s("a", 3 * PER_S + BURST * PER_S) == 0
    assert keys.wait_s("b", 0.0) == 0


def test_addresses_are_remembered_within_bounds() -> None:
    metrics = Metrics()
    keys = WrongKeys(metrics)
    for n in range(MAX_ADDRESSES + 50):
        keys.add(f"a{n}", 0.0, NOBODY)
    assert len(keys._addresses) == MAX_ADDRESSES
    assert b"sluice_gateway_wrong_key_addresses 10000.0" in metrics.render()


def test_a_report_names_so_many_addresses_and_no_more() -> None:
    keys = WrongKeys(Metrics())
    for n in range(MAX_REPORTED + 5):
        for _ in range(REPORTED_FROM + n):
            keys.add(f"a{n}", 0.0, NOBODY)
    reports = keys.reports()
    assert len(reports) == MAX_REPORTED
    assert reports[0].times == REPORTED_FROM + MAX_REPORTED + 4


class Written:
    """A writer that keeps what it is given, or fails."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, bytes]] = []
        self.down = False

    async def send_plain(self, topic: str, key: str, value: bytes) -> None:
        if self.down:
            raise Retryable("down")
        self.records.append((topic, key, value))

    def of(self, topic: str) -> list[bytes]:
        return [value for name, _, value in self.records if name == topic]


@pytest.mark.parametrize("named", [NOBODY, Named("org", "acme", "acme-app")], ids=["no key of ours", "a key of ours"])
def test_sixty_in_a_row_are_an_act_in_the_log_and_a_finding_that_raises_an_alert(named: Named) -> None:
    writer, keys = Written(), WrongKeys(Metrics())
    log = AccessLog(writer, Metrics(), keys)  # type: ignore[arg-type]
    for _ in range(REPORTED_FROM):
        keys.add("203.0.113.7", 0.0, named)
    writer.down = True
    asyncio.run(log.flush())
    writer.down = False
    asyncio.run(log.flush())
    asyncio.run(log.flush())
    (act,) = [decode(Access, value) for value in writer.of("access")]
    assert (act.actor, act.act, act.tenant, act.count) == ("203.0.113.7", "wrong_keys", named.tenant, REPORTED_FROM)
    (event,) = [decode(FindingEvent, value) for value in writer.of("findings")]
    assert (event.stage, event.reasons, event.findings[0].rule) == ("gateway", (CODE,), "access.wrong_keys")
    (alert,) = correlate.replay([event])
    expected = (named.tenant, named.principal or "203.0.113.7")
    assert (alert.rule, alert.tenant, alert.principal) == ("wrong-keys", *expected)


HOSTS: list[tuple[Any, str]] = [
    ("203.0.113.7", "203.0.113.7"),
    ("::ffff:203.0.113.7", "203.0.113.7"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
    ("fe80::1%eth0", "fe80::/64"),
    (None, "-"),
    ("", "-"),
]


@pytest.mark.parametrize(("host", "address"), HOSTS)
def test_a_caller_has_the_address_of_its_network(host: Any, address: str) -> None:
    assert address_of(host) == address
