"""SEAL as a subject: records of a source as they arrive; nothing but the last manifest survives a cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from pipeline.audit.merkle import root
from pipeline.events.chain import ChainReader, Entry
from pipeline.events.codec import encode
from pipeline.events.messages import Manifest
from pipeline.seal.batch import SealStage, SealState
from pipeline.stage import InputBatch
from tests.laws.subject import Run, Subject
from tests.laws.test_seal_laws import BODY, KEYS, LEAF, OFFSET, chained_log, leaves_of, plain_log, sizes

LIMIT = 6


class SealSubject(Subject):
    def stage(self, inputs: Sequence[Entry]) -> SealStage:
        return SealStage("g1", topic_of(inputs), 0, KEYS, LIMIT)

    def inputs(self) -> st.SearchStrategy[list[Entry]]:
        return st.one_of(sizes.map(chained_log), sizes.map(plain_log))

    def tenant(self, item: Entry) -> str:
        raise NotImplementedError("see NOT_APPLICABLE")

    def batch(self, state: SealState, group: Sequence[Entry]) -> InputBatch[Entry]:
        return InputBatch(group, 1000)

    def folded(self, inputs: Sequence[Entry], run: Run) -> Iterable[Manifest]:
        return run.records("audit")

    def due(self, inputs: Sequence[Entry]) -> Counter[Any]:
        reader = ChainReader()
        chained = topic_of(inputs) == "decisions"
        valid = [e for entry in inputs for e in (reader.push(entry) if chained else [entry])]
        return Counter((entry.offset, entry.value) for entry in valid)

    def answers(self, run: Run) -> Counter[Any]:
        return Counter((row[OFFSET], row[BODY]) for row in rows(run))

    def essence(self, run: Run) -> Any:
        # the number of its batch is all that a split may change of a row
        return [row[LEAF:] for row in rows(run)], root(leaves_of(rows(run)))

    def exact(self, run: Run) -> Any:
        # ML-DSA signs with fresh randomness (FIPS 204, hedged), and the next statement names the note before
        bare = [msgspec.structs.replace(made, checkpoint="", previous=b"") for made in run.records("audit")]
        return [encode(manifest) for manifest in bare], rows(run)

    def check_life(self, inputs: Sequence[Entry], run: Run) -> None:
        found, sealed = run.records("audit"), rows(run)
        assert [manifest.index for manifest in found] == list(range(len(found)))
        assert [row[LEAF] for row in sealed] == list(range(len(sealed)))
        for manifest in found:
            assert manifest.rows <= max(LIMIT, 5)
            assert manifest.rows + manifest.skipped == manifest.last + 1 - manifest.first > 0
            assert manifest.root == root(leaves_of(sealed[: manifest.size]))


def topic_of(inputs: Sequence[Entry]) -> str:
    return "decisions" if any(entry.link for entry in inputs) else "access"


def rows(run: Run) -> list[Any]:
    """The rows that go to the store beside the manifests."""
    sealed = [step.sealed for step in run.steps if step.sealed is not None]  # type: ignore[attr-defined]
    return [row for made in sealed for row in zip(*made.columns, strict=True)]
