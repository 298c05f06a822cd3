"""The shape of every document of ``control``: frozen, strict, and without fields that this build does not know."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    _LATER: ClassVar[frozenset[str]] = frozenset()
    """Fields that builds before did not have: written only where they say something, so that those still read it."""

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        given: dict[str, Any] = serialize(self)
        fields = type(self).model_fields
        empty = {name for name in self._LATER if getattr(self, name) == fields[name].default}
        return {name: value for name, value in given.items() if name not in empty}
