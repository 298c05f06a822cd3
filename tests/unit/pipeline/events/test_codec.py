"""Every record comes back from its bytes, and equal values have equal bytes: drawn from the types themselves."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from pipeline.errors import Malformed
from pipeline.events import messages, records, wire
from pipeline.events.codec import decode, decode_log, encode

LOG = (
    *(records.Decision, records.Outcome, records.ControlMark, records.Tick),
    *(records.Upgrade, records.SnapshotMark),
)
PLAIN = (
    *(messages.Work, messages.Completion, messages.Response, messages.FindingEvent, messages.Alert, messages.Delivery),
    *(messages.Access, messages.Manifest, messages.DeadLetter, records.SnapshotChunk, wire.InferenceBody),
)


def drawn(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a type as msgspec reads it."""
    match kind:
        case inspect.VarTupleType():
            return st.lists(drawn(kind.item_type), max_size=min(kind.max_length or 3, 3)).map(tuple)
        case inspect.TupleType():
            return st.tuples(*[drawn(each) for each in kind.item_types])
        case inspect.UnionType():
            return st.one_of([drawn(each) for each in kind.types])
        case inspect.StructType():
            return st.builds(kind.cls, **{each.name: drawn(each.type) for each in kind.fields})
    return drawn_scalar(kind)


def drawn_scalar(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.IntType():
            low = -(2**63) if kind.ge is None else kind.ge
            return st.integers(low, 2**63 - 1 if kind.le is None else kind.le)
        case inspect.FloatType():
            least = kind.ge if kind.ge is not None else kind.gt
            return st.floats(least, kind.le, exclude_min=kind.gt is not None, allow_nan=False, allow_infinity=False)
        case inspect.StrType(pattern=str() as pattern):
            return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= (kind.max_length or 99))
        case inspect.StrType():
            return st.text(min_size=kind.min_length or 0, max_size=min(kind.max_length or 9, 9))
        case inspect.BytesType():
            return st.binary(max_size=9)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
    raise AssertionError(f"no strategy for {kind}")


@pytest.mark.parametrize("kind", [*LOG, *PLAIN], ids=lambda kind: kind.__name__)
def test_a_record_comes_back_from_its_bytes(kind: type[msgspec.Struct]) -> None:
    @settings(max_examples=40, deadline=None)
    @given(drawn(inspect.type_info(kind)))
    def comes_back(record: msgspec.Struct) -> None:
        value = encode(record)
        found = decode_log(value) if isinstance(record, LOG) else decode(kind, value)
        assert found == record
        assert encode(found) == value

    comes_back()


@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("value", [b"", b"\xff", b"[]", b"{", b"{}", b"null", b'{"time":1e999}'])
def test_other_bytes_are_malformed(kind: type[msgspec.Struct], value: bytes) -> None:
    with pytest.raises(Malformed):
        decode(kind, value)
    with pytest.raises(Malformed):
        decode_log(value)


@pytest.mark.parametrize("kind", [*PLAIN, None], ids=str)
def test_values_within_values_without_end_are_malformed(kind: Any) -> None:
    """A field that no record has is passed over, however deep it is; it must not end the reader."""
    deep = b"[" * 100_000 + b"]" * 100_000
    for value in (deep, b'{"unknown":' + deep + b"}", b'{"kind":"tick","time":1,"unknown":' + deep + b"}"):
        with pytest.raises(Malformed):
            decode_log(value) if kind is None else decode(kind, value)
