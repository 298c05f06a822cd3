"""Rows of JSON that strangers wrote: read strictly, answered in kind, an id of any JSON type given back as it came."""

from __future__ import annotations

import json
from typing import Literal, NamedTuple, NoReturn, TypeVar, cast

import msgspec

from pipeline.cli.lines import MAX_LINE, Line

Role = Literal["user", "document", "system"]
NO_ID = msgspec.Raw(b"null")
BOM = b"\xef\xbb\xbf"
"""Some editors begin a file with it; RFC 8259 lets a reader pass over it."""


class InputRow(msgspec.Struct, frozen=True):
    """One text; `id` is JSON as it stood in the line, so that no number loses a digit on its way back."""

    text: str
    id: msgspec.Raw = NO_ID


class Prompt(InputRow, frozen=True):
    """One text for a model, and who speaks it."""

    role: Role | None = None
    context: str | None = None


_FIELDS = {
    InputRow: 'expected an object with "text", a string',
    Prompt: 'expected an object with "text", a string; a "role" is user, document or system, a "context" a string',
}
_DECODERS = {kind: msgspec.json.Decoder(kind) for kind in _FIELDS}
AnyRow = TypeVar("AnyRow", bound=InputRow)


class LineFault(NamedTuple):
    """A line that is no row. The error says what was expected and never what the line held."""

    id: msgspec.Raw
    error: str


class _LineId(msgspec.Struct):
    id: msgspec.Raw = NO_ID


class _Kept(msgspec.Struct):
    id: msgspec.Raw
    error: str


_NAMED = msgspec.json.Decoder(_LineId)


def read(line: Line, kind: type[AnyRow]) -> AnyRow | LineFault:
    """The row of one line, `InputRow` or `Prompt`; never raises, for any line."""
    if line is None:
        return LineFault(NO_ID, f"expected a line of at most {MAX_LINE} bytes")
    line = line.removeprefix(BOM)
    try:
        # an id is passed on unread, so that the line is UTF-8 is asked first
        line.decode()
        return cast(AnyRow, _DECODERS[kind].decode(line))
    except msgspec.ValidationError:
        return LineFault(_id(line), _FIELDS[kind])
    except UnicodeDecodeError:
        return LineFault(NO_ID, "expected UTF-8")
    except (msgspec.DecodeError, RecursionError):
        return _lenient(line, kind)


def faulted(fault: LineFault) -> bytes:
    """The answer to a line that is no row."""
    return msgspec.json.encode(_Kept(*fault))


def _id(line: bytes) -> msgspec.Raw:
    try:
        return _NAMED.decode(line).id.copy()
    except (msgspec.DecodeError, RecursionError):
        return NO_ID


def _lenient(line: bytes, kind: type[AnyRow]) -> AnyRow | LineFault:
    """Rows with lone surrogates, which JSON's grammar allows and its strict readers refuse; else the fault."""
    try:
        found = json.loads(line, parse_constant=_refuse)
        known = _written(found.pop("id", None)) if isinstance(found, dict) else NO_ID
    except (ValueError, RecursionError):
        return LineFault(NO_ID, "expected one JSON object in a line")
    try:
        return msgspec.structs.replace(msgspec.convert(found, kind), id=known)
    except msgspec.ValidationError:
        return LineFault(known, _FIELDS[kind])


def _written(value: object) -> msgspec.Raw:
    """An id that was read, as JSON again; half of a surrogate pair has no UTF-8, only an escape."""
    try:
        return msgspec.Raw(json.dumps(value, allow_nan=False).encode())
    except ValueError:
        return NO_ID


def _refuse(_: str) -> NoReturn:
    raise ValueError
