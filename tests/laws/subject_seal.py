"""SEAL as a subject: records of a source as they arrive; nothing but the last manifest survives a cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from hypothesis import strategies as st

from pipeline.audit.merkle import root
from pipeline.events.chain import ChainReader, Entry
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Manifest
from pipeline.seal.batch import begin, resume, seal
from tests.laws.subject import Cuts, Run, Written
from tests.laws.test_seal_laws import BODY, KEYS, LEAF, OFFSET, chained_log, leaves_of, plain_log, sizes

LIMIT = 6


def topic_of(inputs: Sequence[Entry]) -> str:
    return "decisions" if any(entry.link for entry in inputs) else "access"


class SealSubject:
    name = "seal"
    writes: ClassVar[dict[str, Any]] = {"audit": Manifest}

    def inputs(self) -> st.SearchStrategy[list[Entry]]:
        return st.one_of(sizes.map(chained_log), sizes.map(plain_log))

    def tenant(self, item: Entry) -> str:
        raise NotImplementedError("see NOT_APPLICABLE")

    def run(self, inputs: Sequence[Entry], cuts: Cuts) -> Run:
        fresh = begin("g1", topic_of(inputs), 0)
        state, written, rows = fresh, list[Written](), list[Any]()
        for end in [*sorted(cut for cut in cuts if cut < len(inputs)), len(inputs)]:
            while True:
                waiting = [entry for entry in inputs[:end] if entry.offset >= state.position.offset]
                made = seal(state, waiting, 1000, KEYS, LIMIT)
                if made is None:
                    break
                written.append(Written("audit", "", encode(made.manifest)))
                rows += zip(*made.columns, strict=True)
                state = resume(fresh, [decode(Manifest, written[-1].value)])
                assert state == made.state
        return Run(written, state, rows)

    def fold(self, inputs: Sequence[Entry], run: Run) -> Any:
        return resume(begin("g1", topic_of(inputs), 0), manifests(run))

    def due(self, inputs: Sequence[Entry]) -> Counter[Any]:
        reader = ChainReader()
        chained = topic_of(inputs) == "decisions"
        valid = [e for entry in inputs for e in (reader.push(entry) if chained else [entry])]
        return Counter((entry.offset, entry.value) for entry in valid)

    def answers(self, run: Run) -> Counter[Any]:
        return Counter((row[OFFSET], row[BODY]) for row in run.rows)

    def essence(self, run: Run) -> Any:
        # the number of its batch is all that a split may change of a row
        return [row[LEAF:] for row in run.rows], root(leaves_of(run.rows))

    def exact(self, run: Run) -> Any:
        # ML-DSA signs with fresh randomness (FIPS 204, hedged), and the next statement names the note before
        bare = [msgspec.structs.replace(manifest, checkpoint="", previous=b"") for manifest in manifests(run)]
        return [encode(manifest) for manifest in bare], run.rows

    def check_life(self, inputs: Sequence[Entry], run: Run) -> None:
        found = manifests(run)
        assert [m.index for m in found] == list(range(len(found)))
        assert [row[LEAF] for row in run.rows] == list(range(len(run.rows)))
        for manifest in found:
            assert manifest.rows <= max(LIMIT, 5)
            assert manifest.rows + manifest.skipped == manifest.last + 1 - manifest.first > 0
            assert manifest.root == root(leaves_of(run.rows[: manifest.size]))


def manifests(run: Run) -> list[Manifest]:
    return [decode(Manifest, w.value) for w in run.written]
