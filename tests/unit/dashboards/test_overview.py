"""The dashboard's files agree with each other and with what Grafana demands. No Grafana is asked here."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import build
from dashboards.panels import PANELS, WIDTH
from dashboards.render import names, raw
from pipeline.clickhouse.accounts import VIEW, account_named

HOME = Path(build.__file__).parent
BOARD: dict[str, Any] = json.loads(build.OVERVIEW.read_text())
VARIABLES = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
panels = pytest.mark.parametrize("panel", BOARD["panels"], ids=[p["title"] for p in BOARD["panels"]])


def provisioned(name: str) -> Any:
    return yaml.safe_load((HOME / "provisioning" / name).read_text())


def test_the_committed_file_is_what_build_makes() -> None:
    assert build.OVERVIEW.read_text() == build.text(), "run: python -m dashboards.build"


def test_each_query_has_its_panel_and_each_panel_its_query() -> None:
    shown = [panel.query for panel in PANELS]
    assert len(set(shown)) == len(shown)
    assert sorted([*shown, "tenants"]) == names()
    assert VARIABLES["tenant"]["query"]["rawSql"] == raw("tenants")


def test_ids_are_unique_and_titles_too() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    assert len({panel["title"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_panels_lie_in_the_grid_and_not_on_each_other() -> None:
    boxes = [(panel["title"], panel["gridPos"]) for panel in BOARD["panels"]]
    for _, box in boxes:
        assert box["x"] >= 0
        assert box["x"] + box["w"] <= WIDTH
        assert min(box["w"], box["h"]) > 0
    for (one, a), (other, b) in combinations(boxes, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one!r} overlaps {other!r}"


@panels
def test_a_panel_says_what_it_shows_and_what_no_rows_mean(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["noValue"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["type"] in {"stat", "timeseries", "barchart", "table"}


@panels
def test_a_target_is_what_the_plugin_reads(panel: dict[str, Any]) -> None:
    (target,) = panel["targets"]
    assert target["editorType"] == "sql"
    assert target["format"] == (0 if panel["type"] == "timeseries" else 1)
    assert target["datasource"] == panel["datasource"] == {"type": build.DATASOURCE_TYPE, "uid": "${ds}"}
    assert target["rawSql"] in {raw(name) for name in names()}


@panels
def test_queries_stay_within_what_holds_on_all_plugin_builds(panel: dict[str, Any]) -> None:
    sql = panel["targets"][0]["rawSql"]
    code = re.sub(r"--[^\n]*", "", sql)
    assert "`" not in code
    assert ";" not in code
    if panel["type"] == "table":
        assert re.search(r"\bLIMIT \d+\b", code)
    if panel["type"] == "timeseries":
        assert re.search(r"\bAS time\b", code)
        assert "ORDER BY time" in code
    if panel["type"] != "table" and "records.time" in code and "maxOrNull" not in code:
        assert "$__timeFilter(records.time)" in code
    for variable in re.findall(r"\$\{?(\w+)", re.sub(r"\$__\w+", "", code)):
        assert variable in VARIABLES


def test_overrides_name_columns_that_the_query_has() -> None:
    for panel in PANELS:
        for column, _, _ in panel.overrides:
            assert re.search(rf"\b{column}\b", raw(panel.query)), f"{panel.title}: {column}"


def test_the_source_variable_is_the_provisioned_source() -> None:
    (source,) = provisioned("datasources/clickhouse.yaml")["datasources"]
    assert source["uid"] == build.DATASOURCE_UID == VARIABLES["ds"]["current"]["value"]
    assert source["type"] == build.DATASOURCE_TYPE == VARIABLES["ds"]["query"]
    assert source["editable"] is False
    assert source["jsonData"]["version"] == build.PLUGIN_VERSION
    assert source["secureJsonData"]["password"].startswith("${"), "secrets come from the environment"


def test_the_provider_loads_files_and_lets_nobody_edit() -> None:
    (provider,) = provisioned("dashboards/sluice.yaml")["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    assert provider["disableDeletion"] is True
    assert BOARD["editable"] is False


def test_the_dashboards_account_may_only_read() -> None:
    account = account_named(VIEW)
    assert account is not None
    assert not account.writes
    assert {right.operation for right in account.rights} == {"SELECT"}
    # the plugin sends the time that a query may take with each of them
    (source,) = provisioned("datasources/clickhouse.yaml")["datasources"]
    assert 0 < int(source["jsonData"]["queryTimeout"]) <= account.bounds["max_execution_time"].most <= 60
