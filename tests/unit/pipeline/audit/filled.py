"""Values of a struct's fields that are not their defaults, made from the types themselves."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect


def filled(kind: type[Any], variant: int = 1, **fields: Any) -> Any:
    """A struct in which no field has its default."""
    return kind(**{name: value(kind, name, variant) for name in kind.__struct_fields__} | fields)


def value(kind: type[Any], name: str, variant: int = 1) -> Any:
    """A value of one field that is not its default."""
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    field = next(field for field in found.fields if field.name == name)
    made = [_value(field.type, number) for number in (1, 2, 3)]
    fit = [one for one in made if one != field.default]
    return fit[(variant - 1) % len(fit)]


def other(record: Any, name: str) -> Any:
    """A value of one field that is not the record's own."""
    made = [value(type(record), name, variant) for variant in (1, 2)]
    kind = type(record)
    defaults = dict(zip(reversed(kind.__struct_fields__), reversed(kind.__struct_defaults__), strict=False))
    return next(one for one in (*made, defaults.get(name)) if one != getattr(record, name))


def _value(kind: inspect.Type, variant: int) -> Any:
    match kind:
        case inspect.VarTupleType():
            return (_value(kind.item_type, variant),)
        case inspect.TupleType():
            return tuple(_value(each, variant) for each in kind.item_types)
        case inspect.UnionType():
            return _value(next(each for each in kind.types if not isinstance(each, inspect.NoneType)), variant)
        case inspect.StructType():
            return filled(kind.cls, variant)
        case inspect.LiteralType():
            return kind.values[variant % len(kind.values)]
    return msgspec.convert(_scalar(kind, variant), _TYPES[type(kind)])


def _scalar(kind: inspect.Type, variant: int) -> Any:
    match kind:
        case inspect.BoolType():
            return bool(variant % 2)
        case inspect.BytesType():
            return bytes([variant]) * 32
        case inspect.StrType():
            return f"v{variant}"
        case inspect.FloatType():
            return variant / 8
    return variant


_TYPES: dict[type[inspect.Type], Any] = {
    inspect.BoolType: bool,
    inspect.BytesType: bytes,
    inspect.StrType: str,
    inspect.FloatType: float,
    inspect.IntType: int,
}
