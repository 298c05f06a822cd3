"""Reads an operator's policy file, and names what is wrong with it before anything is written."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from detectors.accounts.response import STEPS
from detectors.personal import TYPES
from pipeline.errors import ConfigError, Malformed
from pipeline.events.codec import encode
from pipeline.events.control import AnyDocument, Limit, Model, Organisation, Plan, parse
from pipeline.events.limits import LONGEST_REFILL_S

MAX_WEBHOOK = 512
MAX_WINDOW = 1_000
_KINDS = {"plan": Plan, "organisation": Organisation, "model": Model}


def read_policies(path: Path) -> list[AnyDocument]:
    """Plans, organisations and models of a TOML file. Raises ConfigError with the entry and the field."""
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    unknown = set(tree) - set(_KINDS)
    if unknown:
        raise ConfigError(f"{path}: unknown tables {sorted(unknown)}; expected {sorted(_KINDS)}")
    documents = []
    for kind in _KINDS:
        for entry in _entries(tree, kind, path):
            try:
                documents.append(parse(encode({"doc": kind, **entry})))
            except Malformed as error:
                raise ConfigError(f"{path}: [[{kind}]] {entry.get('id', '?')}: {error}") from error
    fault = next(_unsound(documents), "")
    if fault:
        raise ConfigError(f"{path}: {fault}")
    _require_known(documents, path)
    return documents


def checked_webhook(url: str) -> str:
    """A URL to which alerts can be delivered; empty: none. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if url and (not fits or len(url) > MAX_WEBHOOK or not url.isascii() or not url.isprintable() or " " in url):
        raise ConfigError(f"webhook: expected http(s)://host/path in {MAX_WEBHOOK} characters, got {url[:80]!r}")
    return url


def _entries(tree: dict[str, Any], kind: str, path: Path) -> list[dict[str, Any]]:
    entries = tree.get(kind, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path}: {kind}: expected tables, each under a line [[{kind}]] of its own")
    return entries


def _unsound(documents: list[AnyDocument]) -> Iterator[str]:
    """Name what each document may say by itself but no operator means; old ones in ``control`` stay as they are."""
    if not documents:
        yield f"nothing in it: expected tables of {', '.join(f'[[{kind}]]' for kind in _KINDS)}"
    for name, count in Counter((document.doc, document.id) for document in documents).items():
        if count > 1:
            yield f"[[{name[0]}]] {name[1]}: expected once, got {count} times"
    for plan in documents:
        if isinstance(plan, Plan):
            yield from (f"[[plan]] {plan.id}: {fault}" for fault in _unsound_plan(plan))


def _unsound_plan(plan: Plan) -> Iterator[str]:
    for name in ("max_tokens", "max_input_bytes"):
        if getattr(plan, name) < 1:
            yield f"{name}: expected 1 or more, got {getattr(plan, name)}: it would refuse every request"
    if unknown := sorted(set(plan.personal_off) - TYPES):
        yield f"personal_off: expected types of personal data, got {', '.join(unknown)}; use {', '.join(sorted(TYPES))}"
    for scope, limits in plan.scopes().items():
        every = plan.scopes()["model.*"] if scope.startswith("model.") and scope != "model.*" else ()
        for limit in limits:
            where = f"{scope}.{limit.id}"
            if sum(other.id == limit.id for other in (*limits, *every)) > 1:
                yield f"{where}: expected an id of its own, for each limit of a scope"
            if scope == "principal" and limit.id in STEPS:
                yield f"{where}: expected another id: limits over accounts that copy a model have this one"
            yield from (f"{where}: {fault}" for fault in _unsound_limit(limit))


def _unsound_limit(limit: Limit) -> Iterator[str]:
    if limit.meter == "window" and limit.unit != "requests":
        yield "a window counts requests; for tokens take rate or budget"
    if limit.meter == "window" and limit.amount > MAX_WINDOW:
        yield f"a window keeps each time it counted: expected at most {MAX_WINDOW}, or rate or budget"
    refill_s = limit.period_s
    if limit.meter == "rate" and limit.burst:
        refill_s = limit.burst * limit.period_s // limit.amount
    if limit.meter in ("rate", "window") and refill_s > LONGEST_REFILL_S:
        yield f"expected a {limit.meter} full again within {LONGEST_REFILL_S} s, got {refill_s} s; take a budget"


def _require_known(documents: list[AnyDocument], path: Path) -> None:
    models = [document for document in documents if isinstance(document, Model)]
    known, bases = {model.id for model in models}, {model.id for model in models if model.base is None}
    for plan in documents:
        if not isinstance(plan, Plan):
            continue
        missing = [m for m in (*plan.models, *plan.model) if m not in known and m != "*"]
        if missing:
            raise ConfigError(f"{path}: plan {plan.id} names models that are not in the file: {missing}")
        free = [m.id for m in models if m.price is None and m.id in plan.models]
        if free and any(limit.unit == "cost" for limits in plan.scopes().values() for limit in limits):
            raise ConfigError(f"{path}: plan {plan.id} limits cost: expected a price for each model, got none: {free}")
    for model in models:
        if model.base is not None and model.base not in bases:
            raise ConfigError(f"{path}: model {model.id} is an adapter of {model.base!r}, which is no base in the file")
