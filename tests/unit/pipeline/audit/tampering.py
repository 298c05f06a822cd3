"""Changes that a forger makes to a sealed log, and what a verifier says of them."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.audit.checkpoint import sign_checkpoint
from pipeline.audit.rows import manifest_row, statement
from pipeline.tables import RECORDS
from tests.unit.pipeline.audit.audit_world import KEYS, Store

COLUMN = {name: at for at, name in enumerate(RECORDS.columns)}
BODY = COLUMN["body"]


def whats(store: Store, **options: Any) -> str:
    report = store.verify(**options)
    assert not report.ok
    return "\n".join(f.what for f in report.faults)


def signed_again(store: Store, at: int, time: int, **changes: Any) -> None:
    """The true keys sign a false manifest."""
    draft = msgspec.structs.replace(store.sealed[at], checkpoint="", **changes)
    note = sign_checkpoint(KEYS, draft.origin, draft.size, draft.root, time // 1000, (statement(draft),))
    store.manifests[at] = manifest_row(msgspec.structs.replace(draft, checkpoint=note))
