"""Accounts of ordinary applications, drawn from `shapes.toml`; the same seed gives the same account.

A hash of its name decides the half of a shape: the trees learn from the open half, the closed one is only counted.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np

from detectors.prompts.training.rows import drawing

T = TypeVar("T")
APPLICATION = "application/"
"""Beginning of the kinds of these accounts."""
SEEDS = 10
LEAST, MOST = 40, 150
"""Requests of one account."""
PIECE = 1_500
"""Characters of a passage, a piece of code or a diff at most."""
_SLOT = re.compile(r"\{(\w+)\}")
_BASE: dict[str, Any] = {"temperature": 1.0, "max_tokens": 0}
_TEMPERATURES = (1.0, 1.0, 0.7, 0.3, 0.0)
_MAX_TOKENS = (0, 256, 512, 1024)
_PACES = {"human": (15.0, 900.0), "batch": (0.4, 6.0), "burst": (0.02, 0.5)}
_REGULAR = (15, 30, 60, 300)


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of application, as `shapes.toml` describes it."""

    templates: tuple[str, ...]
    draw: Literal["one", "any"] = "one"
    grow: str = ""
    steps: int = 0
    repeat: int = 0
    biased: bool = False
    learnt: bool = True
    """The trees may learn from it; not from what only its sender tells from an attack."""
    pace: Literal["human", "batch", "regular", "burst"] = "human"
    params: dict[str, Any] = {}


class OrdinarySession(NamedTuple):
    """One account of a shape, as the line of JSON that a replay reads."""

    shape: str
    line: bytes
    learnt: bool = True


def shapes(half: str) -> dict[str, Shape]:
    """The shapes of one half, ``open`` or ``closed``, by name."""
    raw = tomllib.loads(_file("shapes.toml"))
    return {name: msgspec.convert(each, Shape) for name, each in sorted(raw.items()) if half_of(name) == half}


def half_of(name: str) -> str:
    """The half to which a shape belongs, by the hash of its name alone."""
    return "open" if hashlib.sha256(name.encode()).digest()[0] % 2 else "closed"


def digest(half: str) -> str:
    """The name of this half's list of shapes."""
    return hashlib.sha256("\n".join(shapes(half)).encode()).hexdigest()[:16]


def sessions(half: str, pieces: Mapping[str, Sequence[str]], seeds: int = SEEDS) -> Iterator[OrdinarySession]:
    """Accounts of every shape of the half; `pieces` are texts of this machine's files for the slots of their names."""
    fillers = {**tomllib.loads(_file("fillers.toml")), **pieces}
    for name, shape in shapes(half).items():
        for seed in range(seeds):
            yield _session(name, shape, seed, fillers)


def _session(name: str, shape: Shape, seed: int, fillers: Mapping[str, Sequence[str]]) -> OrdinarySession:
    draw = drawing(f"application/{name}/{seed}")
    params = _BASE | {"temperature": _any(draw, _TEMPERATURES), "max_tokens": _any(draw, _MAX_TOKENS)} | shape.params
    clock, events = 0.0, []
    every = _any(draw, _REGULAR)
    requests = int(draw.integers(LEAST, MOST + 1))
    for number, text in enumerate(_texts(shape, draw, fillers, requests)):
        clock += every if shape.pace == "regular" else _pause(draw, *_PACES[shape.pace])
        event: dict[str, Any] = {"t": round(clock, 2), "text": text}
        if shape.repeat and number % shape.repeat:
            event["params"] = _tried(shape, draw, params)
        events.append(event)
    account = {
        "session_id": f"{name}#{seed}", "tenant": f"tenant-{name}-{seed}", "user": f"user-{name}-{seed}",
        "start": int(draw.integers(7 * 24 * 3600)), "label": "benign", "subtype": APPLICATION + name,
        "params": params, "events": events,
    }  # fmt: skip
    return OrdinarySession(name, msgspec.json.encode(account), shape.learnt)


def _texts(shape: Shape, draw: np.random.Generator, fillers: Mapping[str, Sequence[str]], most: int) -> Iterator[str]:
    """The texts of an account, in order."""
    own = shape.templates[int(draw.integers(len(shape.templates)))]
    text, left = "", 0
    for _ in range(most):
        if left and (shape.repeat or shape.grow):
            text += _filled(shape.grow, draw, fillers)
            left -= 1
        else:
            template = own if shape.draw == "one" else shape.templates[int(draw.integers(len(shape.templates)))]
            text = _filled(template, draw, fillers)
            left = shape.repeat - 1 if shape.repeat else int(draw.integers(shape.steps // 2, shape.steps + 1))
        yield text


def _filled(template: str, draw: np.random.Generator, fillers: Mapping[str, Sequence[str]]) -> str:
    """The template with something in each slot, slots within it filled too."""

    def word(slot: re.Match[str]) -> str:
        if slot[1] == "n":
            return str(int(draw.integers(2, 90)))
        return _filled(_any(draw, fillers[slot[1]]), draw, fillers) if slot[1] in fillers else slot[0]

    return _SLOT.sub(word, template) if len(template) < PIECE else template


def _tried(shape: Shape, draw: np.random.Generator, base: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that a curious user of a playground tries."""
    tried = {
        "temperature": round(float(draw.uniform(0, 2)), 1),
        "max_tokens": int(draw.choice((16, 64, 256, 1024))),
        "n": int(draw.choice((1, 1, 2))),
    }
    if shape.biased:
        token, weight = int(draw.integers(200, 50_000)), int(draw.choice((-100, -10, 5, 20)))
        tried["logit_bias"] = [[token, weight]]  # type: ignore[assignment]
    kept = [name for name in tried if draw.random() < 0.5 or name == "logit_bias"]
    return {**base, **{name: tried[name] for name in kept}}


def _pause(draw: np.random.Generator, shortest: float, longest: float) -> float:
    """Seconds between two requests, most of them near the shortest."""
    return float(shortest * (longest / shortest) ** draw.random() ** 1.5)


def _any(draw: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(draw.integers(len(options)))]


def _file(name: str) -> str:
    return resources.files("detectors.accounts.applications").joinpath(name).read_text("utf-8")
