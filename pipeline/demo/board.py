"""The overview dashboard in a terminal: the figures of its panels, by the very queries that Grafana runs."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from dashboards.panels import PANELS
from dashboards.render import QueryScope, raw, render
from pipeline import wiring
from pipeline.config import Settings

_BUCKET_S = 60


class PanelAnswer(NamedTuple):
    """One panel's answer."""

    title: str
    kind: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def read(settings: Settings, since: int) -> list[PanelAnswer]:
    """Every panel from a time (Unix ms) until now, over all tenants."""
    view = QueryScope(since // 1000, int(time.time()) + 1, _BUCKET_S, {"tenant": ""})
    with wiring.store(settings) as store:
        return [PanelAnswer(p.title, p.kind, *store.query_named(render(raw(p.query), view))) for p in PANELS]
