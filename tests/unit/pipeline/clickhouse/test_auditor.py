"""An auditor beside live traffic: documents that decisions name may be sealed a moment later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import Mock

import pytest

from pipeline.audit.verify import Verifier
from pipeline.clickhouse import auditor
from pipeline.clickhouse.auditor import Auditor

DECISIONS, CONTROL = "g1/decisions/0", "g1/control/0"


class GrowingStore:
    """Each look at the ends finds one more document sealed; decisions name document 3."""

    def __init__(self, most: int) -> None:
        self.looks = 0
        self._most = most

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[list[Any]]:
        if "max(batch)" in sql:
            sealed = min(self.looks, self._most)
            self.looks += 1
            control = [[CONTROL, sealed - 1, sealed, sealed - 1]] if sealed else []
            # the decisions go on meanwhile
            return [*control, [DECISIONS, self.looks, 10 * self.looks, 10 * self.looks]]
        assert parameters == {"origin": DECISIONS, "size": 10}
        return [["3"]]


def ends(store: GrowingStore) -> dict[str, int]:
    found = Auditor(store, Mock(spec=Verifier), (), "")  # type: ignore[arg-type]
    return {origin: end.size for origin, end in found._ends.items()}


def test_documents_that_decisions_name_are_awaited_and_decisions_end_where_they_did() -> None:
    store = GrowingStore(most=100)
    assert ends(store) == {DECISIONS: 10, CONTROL: 4}
    assert store.looks == 5


def test_a_document_that_does_not_come_is_left_to_the_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor, "CONTROL_S", 0.3)
    assert ends(GrowingStore(most=2)) == {DECISIONS: 10, CONTROL: 2}
