"""Labels of analysts from the sealed log: those that an operator signed, and no others."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import NamedTuple

from pipeline.clickhouse.store import ClickHouseStore
from pipeline.errors import Malformed
from pipeline.events.codec import decode
from pipeline.events.messages import Access
from pipeline.events.signed_access import operator_who_signed
from pipeline.events.signed_control import ControlFold

_LABELS = """
SELECT base64Encode(body) FROM records WHERE kind = 'access' AND startsWith(reason, 'label.') ORDER BY time, leaf
"""
_FIRED = """
SELECT DISTINCT request, arrayJoin(rules) FROM records
WHERE kind IN ('decision', 'outcome') AND notEmpty(rules)
    AND has(JSONExtract({requests:String}, 'Array(String)'), request)
"""
_CHUNK = 5_000


class SignedLabel(NamedTuple):
    """An analyst said this of a request."""

    request: str
    tenant: str
    label: str
    analyst: str
    time: int
    """Unix ms."""


class RulePrecision(NamedTuple):
    """A rule fired in so many requests that analysts confirmed, and in so many that were false alarms."""

    rule: str
    confirmed: int
    false_alarms: int

    @property
    def precision(self) -> float:
        return self.confirmed / (self.confirmed + self.false_alarms)


def signed_labels(store: ClickHouseStore, fold: ControlFold) -> tuple[list[SignedLabel], int]:
    """Give the newest label of each request, the newest first, and count the records that no operator signed."""
    newest: dict[str, SignedLabel] = {}
    unsigned = 0
    for (body,) in store.query(_LABELS):
        try:
            record = decode(Access, base64.b64decode(body))
        except Malformed:
            continue
        if operator_who_signed(record, fold) is None:
            unsigned += 1
            continue
        label = record.act.removeprefix("label.")
        newest[record.target] = SignedLabel(record.target, record.tenant, label, record.actor, record.time)
    return sorted(newest.values(), key=lambda label: label.time, reverse=True), unsigned


def precision_of_rules(store: ClickHouseStore, labels: list[SignedLabel]) -> list[RulePrecision]:
    """Count each rule that fired in a labelled request, the most labelled first."""
    verdicts = {label.request: label.label for label in labels}
    requests, counts = list(verdicts), Counter[tuple[str, str]]()
    for first in range(0, len(requests), _CHUNK):
        for request, rule in store.query(_FIRED, {"requests": json.dumps(requests[first : first + _CHUNK])}):
            counts[rule, verdicts[request]] += 1
    rules = {rule for rule, _ in counts}
    found = [RulePrecision(rule, counts[rule, "attack"], counts[rule, "benign"]) for rule in rules]
    return sorted(found, key=lambda row: (-row.confirmed - row.false_alarms, row.rule))
