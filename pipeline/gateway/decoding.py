"""HTTP bodies are decoded strictly; each misfit becomes a refusal that names the field and never its value."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from pipeline.gateway.bodies import NOTHING, UNSERVED
from pipeline.gateway.refusals import Refusal, invalid

_T = TypeVar("_T")
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.DOTALL)
_NO_NAME = re.compile(r"[^\w.:/ -]")
_MAX_NAME = 64
_MISSING = re.compile(r"missing required field `(\w+)`")
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_ROOT = re.compile(r"\w+")
_ELEMENT = re.compile(r"\[\d*\]$")
_EMPTY = ("Expected `null`", "Expected `array` of length <= 0")


def decode_body(decoder: msgspec.json.Decoder[_T], raw: bytes) -> _T:
    """The body as a value. Raises Refusal naming the field at fault."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise field_refusal(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        got = "The body is not JSON" if raw else "The body is empty"
        message = f"{got}: expected one JSON object in UTF-8, without NaN, Infinity or lone surrogates."
        raise invalid(None, message, "invalid_json") from None


def field_refusal(text: str) -> Refusal:
    """The refusal of what msgspec says, with the field as ``param``.

    Its messages quote types and names of fields, never values.
    """
    path = _PATH.search(text)
    where = path.group(1) if path else ""
    problem = _PATH.sub("", text)
    root = _ROOT.match(where)
    if root and root.group() in UNSERVED:
        return unserved(root.group())
    unknown = _UNKNOWN.search(problem)
    if unknown:
        name = _NO_NAME.sub("?", unknown.group(1)[:_MAX_NAME])
        param = f"{where}.{name}" if where else name
        return invalid(param, f"{param}: unknown field. Leave it out.", "unknown_parameter")
    missing = _MISSING.search(problem)
    if missing:
        param = f"{where}.{missing.group(1)}" if where else missing.group(1)
        return invalid(param, f"{param}: missing. It is required.", "missing_required_parameter")
    if problem.startswith(_EMPTY):
        where = _ELEMENT.sub("", where)
        return invalid(where, f"{where}: not supported here. {NOTHING}", "invalid_type")
    return invalid(where or None, f"{where or 'body'}: {problem[0].lower()}{problem[1:]}.", "invalid_type")


def unserved(field: str) -> Refusal:
    """The refusal of a field in ``UNSERVED``. Its type's own message may quote the value, so the table alone speaks."""
    return invalid(field, f"{field}: not supported here: {UNSERVED[field]}", "unknown_parameter")
