"""The state of a registry: highest version seen, lowest still served, shares, number of the revocation list.

One JSON file, replaced atomically under the registry's lock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from inference.registry.atomic import write_atomically
from inference.registry.refusal import ModelRefused

STATE_FILE = "state.json"
MAX_STATE_BYTES = 16 << 20


class ModelState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``highest`` only rises; ``floor`` is lowered by a rollback alone. Shares: version to basis points."""

    highest: int = 0
    floor: int = 0
    shares: dict[int, int] = {}
    earlier: dict[int, int] = {}
    """The shares before the last change, for ``rollback``."""


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sluice/model-state/1"):
    """All models by id, and the least number of the revocation list."""

    models: dict[str, ModelState] = {}
    revocations: int = 0

    def of(self, model: str) -> ModelState:
        """One model's state, an empty one where nothing is known of it."""
        return self.models.get(model, ModelState())

    def changed(self, model: str, **fields: Any) -> State:
        """The state with other fields of one model."""
        state = msgspec.structs.replace(self.of(model), **fields)
        return msgspec.structs.replace(self, models={**self.models, model: state})

    @property
    def floors(self) -> dict[str, int]:
        """Lowest version still served, by model."""
        return {name: state.floor for name, state in self.models.items()}


def begin_state(home: Path) -> None:
    """An empty state for a folder that holds nothing yet; for the holder of the lock."""
    if not any((home / name).exists() for name in (STATE_FILE, "models", "revocations.json")):
        write_state(home, State())


def read_state(home: Path) -> State:
    """The state of a registry. Raises ModelRefused."""
    path = home / STATE_FILE
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_STATE_BYTES), type=State)
    except FileNotFoundError:
        raise ModelRefused("state", f"{path}: expected the state of this registry; restore it from a copy") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError):
        raise ModelRefused(
            "state", f"{path}: does not decode; restore it from a copy, an empty one forgets pins"
        ) from None


def write_state(home: Path, state: State) -> None:
    """Replace the file; for the holder of the lock."""
    write_atomically(home / STATE_FILE, msgspec.json.format(msgspec.json.encode(state)) + b"\n", 0o600)
