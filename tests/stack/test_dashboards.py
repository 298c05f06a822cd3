"""Every dashboard query on the real embedded store: empty, with rows, and for one tenant among two."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from dashboards.panels import PANELS
from dashboards.render import QueryScope, names, raw, render
from detectors.base import Finding
from pipeline.audit.rows import manifest_row, typed
from pipeline.clickhouse.accounts import OPERATOR, VIEW
from pipeline.clickhouse.native import MIGRATIONS
from pipeline.embedded.local_accounts import LocalAccounts
from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.events.codec import encode
from pipeline.events.messages import Access, Alert, Delivery, Manifest
from pipeline.events.records import Decision, Facts, Outcome
from pipeline.tables import MANIFESTS, RECORDS

T0 = 1_760_000_400
"""Start of the time range, Unix seconds; everything happens in its third minute."""
EVENT_MS = (T0 + 150) * 1000
ALL = QueryScope(T0, T0 + 600, 60, {"tenant": ""})


class Store:
    """The embedded store by plain HTTP; queries of panels are asked under the account of the dashboards."""

    def __init__(self, url: str, passwords: Path) -> None:
        self._url = url
        self._passwords = passwords

    def run(self, sql: str, body: bytes = b"", account: str = OPERATOR) -> bytes:
        url = self._url + "/?" + urllib.parse.urlencode({"query": sql}) if body else self._url + "/"
        headers = {"X-ClickHouse-User": account, "X-ClickHouse-Key": (self._passwords / account).read_text()}
        request = urllib.request.Request(url, data=body or sql.encode(), headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text: bytes = answer.read()
                return text
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{error.read().decode()}\n{sql}") from None

    def ask(self, name: str, view: QueryScope = ALL) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.run(render(raw(name), view) + "\nFORMAT JSON", account=VIEW))[
            "data"
        ]
        return rows

    def fill(self, table: str, rows: list[dict[str, Any]]) -> None:
        self.run(f"INSERT INTO {table} FORMAT JSONEachRow", "\n".join(json.dumps(row) for row in rows).encode())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    supervisor = Supervisor()
    accounts = LocalAccounts(tmp_path / "keys", authenticates=True)
    accounts.ensure_passwords()
    embedded = EmbeddedStore(StoreSettings(tmp_path / "store", free_port(), passwords=accounts.folder), supervisor)
    embedded.start()
    store = Store(embedded.url, accounts.folder)
    for path in sorted(MIGRATIONS.glob("*.sql")):
        for statement in re.sub(r"--[^\n]*", "", path.read_text()).split(";"):
            if statement.strip():
                store.run(statement)
    yield store
    supervisor.stop_all()


class Log:
    """One origin: records of one topic as they lie in the store, and one manifest over all of them."""

    def __init__(self, topic: str) -> None:
        self.topic, self.origin = topic, f"g1/{topic}/0"
        self.rows: list[dict[str, Any]] = []

    def add(self, record: msgspec.Struct) -> None:
        value, n = encode(record), len(self.rows)
        columns = typed(self.topic, EVENT_MS, value)
        row = dict(zip(RECORDS.columns, [self.origin, 0, n, n, *columns, value.decode()], strict=True))
        row["time"] = columns.time / 1000
        self.rows.append(row)

    def manifest(self) -> dict[str, Any]:
        size = len(self.rows)
        made = Manifest(
            "g1", self.origin, 0, self.topic, 0, 0, size - 1, b"", size, 0, size, b"r" * 32, (), b"", EVENT_MS, ""
        )
        row = dict(zip(MANIFESTS.columns, manifest_row(made), strict=True))
        return {**row, "body": "", "time": EVENT_MS / 1000}

    def put(self, store: Store) -> None:
        store.fill("records", self.rows)
        store.fill("manifests", [self.manifest()])


def decision(n: int, tenant: str, reason: str = "", rule: str = "") -> Decision:
    findings = (Finding(rule, 3, 90, 0, 4, "raw", 0),) if rule else ()
    facts = Facts(n, EVENT_MS + n, "inference", model="glossary", max_tokens=10, input_bound=5, findings=findings)
    verdict: Literal["admit", "deny"] = "deny" if reason else "admit"
    return Decision(
        f"g1-0-{n}",
        facts,
        verdict,
        3,
        1,
        "org",
        tenant,
        "p1",
        n + 1,
        reasons=(reason,) if reason else (),
    )


def outcome(n: int, tenant: str, latency_ms: int) -> Outcome:
    return Outcome(
        f"g1-0-{n}", EVENT_MS + n + latency_ms, "finished", "org", tenant, "p1", n + 1, n, "w", "glossary", "stop",
        input_tokens=4, output_tokens=6, latency_ms=latency_ms, first_token_ms=latency_ms // 2,
    )  # fmt: skip


def day(store: Store) -> Log:
    """Six decisions (acme: two admitted, two refused; globex: two admitted), three outcomes, two alerts."""
    log = Log("decisions")
    for n, (tenant, reason, rule) in enumerate(
        [
            ("acme", "", ""),
            ("acme", "", ""),
            ("acme", "injection", "injection.override.ignore-previous"),
            ("acme", "rate_limited", ""),
            ("globex", "", "injection.frame.end-of-document"),
            ("globex", "", ""),
        ]
    ):
        log.add(decision(n, tenant, reason, rule))
    for n, tenant, latency in ((0, "acme", 100), (1, "acme", 300), (4, "globex", 1000)):
        log.add(outcome(n, tenant, latency))
    alerts, deliveries = Log("alerts"), Log("deliveries")
    for name, tenant in (("a1", "acme"), ("a2", "globex")):
        alerts.add(Alert(name, EVENT_MS, "repeated-injection", 3, "org", tenant, "p1", "A title", 3, EVENT_MS))
    deliveries.add(Delivery("a1", "acme", "hook", EVENT_MS, 1, "retry", 500, EVENT_MS + 5000))
    deliveries.add(Delivery("a1", "acme", "hook", EVENT_MS + 5000, 2, "delivered", 200))
    for one in (log, alerts, deliveries):
        one.put(store)
    return log


def test_on_an_empty_store_every_query_runs_and_shows_nothing(store: Store) -> None:
    for name in names():
        for row in store.ask(name):
            assert all(not value or key == "time" for key, value in row.items()), (name, row)
    assert len(store.ask("decisions_per_minute")) == 10
    assert store.ask("freshness") == [{"age": None}]
    assert store.ask("refused_share") == [{"refused": None}]


def test_on_a_known_day_every_panel_shows_it(store: Store) -> None:
    day(store)
    assert store.ask("decisions_total") == [{"decisions": 6}]
    assert store.ask("refused_share") == [{"refused": pytest.approx(1 / 3)}]
    assert store.ask("alerts_total") == [{"alerts": 2}]
    minutes = store.ask("decisions_per_minute")
    assert [(row["admitted"], row["refused"]) for row in minutes] == [(0, 0)] * 2 + [(4, 2)] + [(0, 0)] * 7
    assert minutes[2]["time"] == "2025-10-09 09:02:00"
    assert store.ask("refusals_by_reason") == [
        {"reason": "injection", "refusals": 1},
        {"reason": "rate_limited", "refusals": 1},
    ]
    assert {row["rule"]: (row["prompts"], row["answers"]) for row in store.ask("findings_by_rule")} == {
        "injection.override.ignore-previous": (1, 0),
        "injection.frame.end-of-document": (1, 0),
    }
    assert store.ask("tokens_by_tenant") == [
        {"tenant": "acme", "input_tokens": 8, "output_tokens": 12, "outcomes": 2, "finished": 2},
        {"tenant": "globex", "input_tokens": 4, "output_tokens": 6, "outcomes": 1, "finished": 1},
    ]
    (latency,) = store.ask("latency")
    assert (latency["p50"], latency["first_token_p50"]) == (300, 150)
    assert 900 < latency["p99"] <= 1000
    found = store.ask("alerts")
    assert [(row["alert"], row["delivery"], row["attempts"], row["hits"]) for row in found] == [
        ("a1", "delivered", 2, 3),
        ("a2", "none", 0, 3),
    ]
    assert [(row["delivered"], row["failed"]) for row in store.ask("deliveries") if row["failed"]] == [(1, 1)]
    assert store.ask("freshness")[0]["age"] > 0
    (risky,) = [row for row in store.ask("risk_per_minute") if row["high"]]
    assert (risky["grave"], risky["high"], risky["medium"], risky["low"]) == (0, 2, 0, 0)


def test_the_newest_label_of_a_request_counts_for_each_rule_that_fired(store: Store) -> None:
    day(store)
    labels = Log("access")
    for at, (request, verdict, tenant) in enumerate(
        [
            ("g1-0-2", "benign", "acme"),
            ("g1-0-2", "attack", "acme"),
            ("g1-0-4", "benign", "globex"),
            ("x", "attack", ""),
        ]
    ):
        labels.add(Access(EVENT_MS + 9000 + at, "ana", f"label.{verdict}", tenant, request))
    labels.put(store)
    assert store.ask("precision_by_rule") == [
        {"rule": "injection.frame.end-of-document", "confirmed": 0, "false_alarms": 1, "precision": 0},
        {"rule": "injection.override.ignore-previous", "confirmed": 1, "false_alarms": 0, "precision": 1},
    ]
    acme = QueryScope(T0, T0 + 600, 60, {"tenant": "acme"})
    assert [row["rule"] for row in store.ask("precision_by_rule", acme)] == ["injection.override.ignore-previous"]


def test_one_tenant_sees_its_own_and_a_hostile_name_nothing(store: Store) -> None:
    day(store)
    filtered = [panel.query for panel in PANELS if "$tenant" in raw(panel.query)]
    assert len(filtered) >= 8
    acme, hostile = (QueryScope(T0, T0 + 600, 60, {"tenant": name}) for name in ("acme", "\\' OR 1=1 -- "))
    assert store.ask("decisions_total", acme) == [{"decisions": 4}]
    assert [row["alert"] for row in store.ask("alerts", acme)] == ["a1"]
    for name in filtered:
        assert "globex" not in json.dumps(store.ask(name, acme))
        for row in store.ask(name, hostile):
            assert all(not value or key == "time" for key, value in row.items()), (name, row)


def test_outside_of_the_time_range_there_is_nothing(store: Store) -> None:
    day(store)
    later = QueryScope(T0 + 600, T0 + 1200, 60, {"tenant": ""})
    assert store.ask("decisions_total", later) == [{"decisions": 0}]
    assert store.ask("alerts", later) == store.ask("latency", later) == []


def test_a_whole_log_is_complete(store: Store) -> None:
    day(store)
    found = {row["log"]: row for row in store.ask("completeness")}
    assert {row["state"] for row in found.values()} == {"complete"}
    log = found["g1/decisions/0"]
    assert (log["decisions"], log["admitted"], log["outcomes"], log["open"]) == (6, 4, 3, 1)
    assert (log["sealed_rows"], log["stored_rows"], log["batches"]) == (9, 9, 1)


@pytest.mark.parametrize(
    ("break_it", "state"),
    [
        ("ALTER TABLE records DELETE WHERE leaf = 3 AND kind = 'decision'", "rows missing"),
        ("ALTER TABLE manifests DELETE WHERE topic = 'decisions'", "rows without a manifest"),
        ("ALTER TABLE manifests UPDATE size = 10 WHERE topic = 'decisions'", "manifests disagree"),
        (
            (
                "ALTER TABLE records DELETE WHERE leaf = 7 AND kind = 'outcome';"
                "INSERT INTO records SELECT * FROM records WHERE leaf = 8 AND kind = 'outcome'"
            ),
            "leaf doubled",
        ),
        ("ALTER TABLE records UPDATE request = 'g1-0-0' WHERE leaf = 1 AND kind = 'decision'", "answered twice"),
        ("INSERT INTO records SELECT * FROM records WHERE leaf = 0 AND kind = 'decision'", "rows too many"),
        ("ALTER TABLE records UPDATE verdict = 'deny' WHERE kind = 'decision'", "outcome without admission"),
    ],
)
def test_an_altered_log_is_not_complete(store: Store, break_it: str, state: str) -> None:
    day(store)
    for statement in break_it.split(";"):
        store.run(statement + (" SETTINGS mutations_sync = 2" if "ALTER" in statement else ""))
    first = store.ask("completeness")[0]
    assert (first["log"], first["state"]) == ("g1/decisions/0", state)
