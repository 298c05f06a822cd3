"""Tables in pages are those of the product: settings, plans, limits, routes, refusals, alerts, exit codes."""

from __future__ import annotations

import json
import re
import tomllib
from typing import get_args

from detectors.accounts.response import STEPS
from detectors.base import CRITICAL, HIGH, LOW, MEDIUM
from detectors.catalogue import CATALOGUE
from pipeline import cli, config
from pipeline.events.control import Limit, Plan
from pipeline.events.reasons import REASONS
from pipeline.events.signed_control import PassedOver
from pipeline.gateway.routes import ROUTES
from pipeline.metrics import METRICS, Metric
from pipeline.roles import ROLES
from pipeline.watch import campaign
from pipeline.watch.correlate import RULES
from tests.unit.docs.pages import code, table, text
from tests.unit.docs.sources import ROOT

SEVERITIES = {LOW: "low", MEDIUM: "medium", HIGH: "high", CRITICAL: "critical"}


def test_every_setting_is_told_with_its_default_and_meaning() -> None:
    told = [(code(name), code(default), meaning) for name, default, meaning in table("pipeline/README.md", "setting")]
    assert told == [(f"{section}.{field}", default, meaning) for section, field, default, meaning in config.table()]
    assert all(meaning for _, _, meaning in told)


def test_every_field_of_a_plan_is_told_with_its_default() -> None:
    told = {code(name): code(default) for name, default, _ in table("pipeline/control/README.md", "field of a plan")}
    fields = {name: field.default for name, field in Plan.model_fields.items() if name not in ("doc", "id")}
    assert told == {name: json.dumps(default).strip('"') for name, default in fields.items()}


def test_every_meter_is_told() -> None:
    told = [code(row[0]) for row in table("pipeline/control/README.md", "`meter`")]
    assert told == list(get_args(Limit.model_fields["meter"].annotation))


def test_every_step_of_an_answer_to_a_copier_is_told() -> None:
    assert [code(row[0]) for row in table("pipeline/control/README.md", "step")] == list(STEPS)


def test_every_route_is_told() -> None:
    told = [code(row[0]) for row in table("pipeline/gateway/README.md", "route")]
    assert told == [f"{route.method} {re.sub(r':[^}]*}', '}', route.path)}" for route in ROUTES]


def test_every_metric_is_told_with_its_labels_and_stages() -> None:
    every: dict[Metric, list[str]] = {metric: [] for rows in METRICS.values() for metric in rows}
    for stage, rows in METRICS.items():
        for metric in rows:
            every[metric].append(stage)
    short = {6: "all", 5: "all but gateway"}
    wanted = [
        [
            f"`{m.name}`",
            m.kind,
            ", ".join(f"`{label}`" for label in m.labels),
            short.get(len(of), ", ".join(of)),
            m.help,
        ]
        for m, of in every.items()
    ]
    assert table("pipeline/METRICS.md", "metric") == wanted


def test_every_refusal_is_told_with_status_and_message() -> None:
    told = [(code(name), status, message) for name, status, message in table("pipeline/gateway/README.md", "code")]
    assert told == [(name, str(reason.status), reason.message) for name, reason in REASONS.items()]


def test_every_alert_is_told() -> None:
    told = [(code(name), severity, title) for name, severity, title in table("pipeline/notify/README.md", "rule")]
    rules = [(rule.name, SEVERITIES[rule.severity], rule.title) for rule in RULES]
    assert told == [*rules, (campaign.RULE, SEVERITIES[HIGH], campaign.TITLE)]


def test_every_detector_is_told() -> None:
    told = [code(row[0]) for row in table("detectors/README.md", "detector")]
    assert {detector.name for detector in CATALOGUE} <= set(told)
    assert all((ROOT / "detectors" / name).is_dir() for name in told)


def test_every_extra_is_told() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    told = [code(row[0]) for row in table("pipeline/README.md", "extra")]
    assert told[0] == "none"
    assert set(told[1:]) == set(project["optional-dependencies"])


def test_every_exit_code_is_told() -> None:
    said = re.findall(r"\b(\d+) [a-z]", cli.EPILOG.partition("exit codes:")[2].partition("settings:")[0])
    assert [row[0] for row in table("pipeline/README.md", "exit code")] == said


def test_every_folder_of_tests_is_told() -> None:
    told = {code(row[0]) for row in table("tests/README.md", "folder")}
    assert told == {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/*")} - {"tests/__pycache__"}


def test_the_changelog_has_its_form() -> None:
    """Keep a Changelog: one heading for each version, the newest that of the project."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    headings = re.findall(r"^## (.*)$", text("CHANGELOG.md"), re.MULTILINE)
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - (unreleased|\d{4}-\d\d-\d\d)", heading) for heading in headings)
    assert headings[0].startswith(f"[{version}] - ")
    assert f"| {version} and the main branch |" in text("SECURITY.md")


def test_every_role_and_every_reason_is_told() -> None:
    page = "pipeline/control/README.md"
    assert [code(row[0]) for row in table(page, "role")] == [role.name for role in ROLES]
    told = [name for row in table(page, "passed over as") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(PassedOver)
