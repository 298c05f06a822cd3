"""The demo, whole: every client, every refusal, every alert and equation, the verdict; nothing is left running."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.embedded.supervisor import free_port
from tests.patience import STUCK_S

ROOT = Path(__file__).parents[2]
PORTS = ("--port", "--kafka-port", "--kafka-controller-port", "--kafka-producers-port", "--clickhouse-port")


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("demo")
    argv = [sys.executable, "-m", "pipeline", "--home", str(home), "demo", "--once", "--json"]
    argv += [text for name in PORTS for text in (name, str(free_port()))]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=2 * STUCK_S, check=False)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["ok"], done.returncode) == (True, 0), (found["surprises"], found["reconciliation"], found["audit"])
    return found


def test_every_equation_holds_over_real_counts(summary: dict[str, Any]) -> None:
    assert all(line["holds"] and line["left"] == line["right"] for line in summary["reconciliation"])
    counts = {line["name"]: line["left"] for line in summary["reconciliation"]}
    assert counts["requests = decisions"] > 100
    assert counts["admitted = outcomes"] > 50
    assert summary["audit"]["ok"] is True


def test_every_kind_of_client_was_used(summary: dict[str, Any]) -> None:
    assert {"openai", "openai-stream", "curl", "kafka", "kafka abuse", "gateway refusals"} == set(summary["doors"])


def test_each_tenant_has_what_its_part_says(summary: dict[str, Any]) -> None:
    tenants = {row["tenant"]: row for row in summary["tenants"]}
    assert tenants["initech"]["admitted"] == 10
    assert "rate_limited" in tenants["initech"]["denied"]
    assert tenants["globex"]["denied"].startswith("injection 4")
    assert {"malformed 1", "unsigned 1", "unknown_key 1"} == set(tenants["(unknown)"]["denied"].split(", "))
    for name in ("acme", "globex", "initech"):
        assert 0 < tenants[name]["settled"] <= tenants[name]["reserved"]
    assert sum(row["alerts"] for row in summary["tenants"]) == 3


def test_the_model_answers_sensibly(summary: dict[str, Any]) -> None:
    words = " ".join(summary["answers"].values())
    assert "machine" in words
    assert len(summary["answers"]) > 3


def test_the_dashboard_shows_the_same_figures(summary: dict[str, Any]) -> None:
    panels = summary["dashboard"]
    counts = {line["name"]: line["left"] for line in summary["reconciliation"]}
    assert panels["Decided"] == [{"decisions": counts["requests = decisions"]}]
    assert panels["Alerts"][0] == {"alerts": 3}
    assert all(row["state"] == "complete" for row in panels["Completeness of the log"])
