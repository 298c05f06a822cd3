"""Accounts drawn out of parts, each once: applications of no kind in particular, and attacks in the same words.

Shapes teach what some applications look like; these teach how widely applications differ: in what they put around
their inputs, in how many inputs they have and how often one comes back, in parameters and in pace.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import msgspec
import numpy as np

from detectors.accounts.applications.sessions import APPLICATION, OrdinarySession
from detectors.prompts.training.rows import drawing

DRAWN = f"{APPLICATION}drawn"
"""The kind of the benign ones."""
BENIGN, HARVESTS, RECITALS, RESAMPLINGS = 420, 54, 24, 16
"""Accounts of each sort."""
REQUESTS = (40, 120)
_SLOTS = {
    "en": ("topic", "word", "product", "city", "dish", "job", "skill", "company", "song_line", "idiom", "ui_string",
           "report", "sentence", "label_text", "ticket", "name", "symptom", "search_query", "review"),
    "zh": ("topic_zh", "idiom_zh", "product_zh", "dish_zh", "name_zh", "sentence_zh", "review_zh", "matter_zh"),
    "other": ("word_de", "city", "company", "dish", "name", "job"),
}  # fmt: skip
_LANGUAGES = ("en", "en", "en", "en", "zh", "zh", "other")
_POOLS = (1, 3, 6, 15, 40, 400, 400)
_GAPS = ((0.05, 0.6), (0.5, 6.0), (5.0, 90.0), (15.0, 900.0))
Texts = Sequence[str]
Fillers = Mapping[str, Texts]


def mixtures(pieces: Fillers) -> Iterator[OrdinarySession]:
    """Labelled accounts; `pieces` has passages, code and what people asked."""
    folder = resources.files("detectors.accounts.applications")
    parts = tomllib.loads(folder.joinpath("mixtures.toml").read_text("utf-8"))
    fillers = {**tomllib.loads(folder.joinpath("fillers.toml").read_text("utf-8")), **pieces}
    sorts: tuple[tuple[str, str, int, Callable[..., Iterator[tuple[str, dict[str, Any]]]]], ...] = (
        (DRAWN, "benign", BENIGN, _ordinary),
        ("drawn_harvest", "distillation", HARVESTS, _harvest),
        ("drawn_recital", "training_data_extraction", RECITALS, _recital),
        ("drawn_resampling", "model_extraction", RESAMPLINGS, _resampling),
    )
    for subtype, label, count, texts in sorts:
        for number in range(count):
            draw = drawing(f"{subtype}/{number}")
            most = int(draw.integers(*REQUESTS))
            events, clock = [], 0.0
            gap = _one(draw, _GAPS)
            steady = draw.random() < 0.15
            for text, params in texts(draw, parts, fillers, most):
                clock += gap[1] if steady else float(draw.uniform(*gap))
                events.append({"t": round(clock, 2), "text": text, "params": params})
            line = {
                "session_id": f"{subtype}#{number}", "tenant": subtype, "user": f"{number}", "label": label,
                "start": 0, "subtype": subtype, "source": "drawn", "events": events,
            }  # fmt: skip
            yield OrdinarySession(subtype, msgspec.json.encode(line))


def _params(draw: np.random.Generator) -> dict[str, Any]:
    params: dict[str, Any] = {
        "temperature": _one(draw, (1.0, 1.0, 1.0, 0.7, 0.3, 0.0, 0.0)),
        "max_tokens": int(_one(draw, (0, 0, 4, 16, 64, 256, 512, 2048))),
    }
    if draw.random() < 0.12:
        params |= {"logprobs": True, "top_logprobs": int(draw.integers(0, 6))}
    if draw.random() < 0.06:
        params["n"] = int(draw.integers(2, 5))
    return params


def _ordinary(
    draw: np.random.Generator, parts: dict[str, dict[str, Texts]], fillers: Fillers, most: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests of one application."""
    language = _one(draw, _LANGUAGES)
    templates = [_template(draw, parts[language]) for _ in range(int(_one(draw, (1, 1, 1, 2, 4, 6))))]
    slots = [_one(draw, _SLOTS[language]) for _ in range(2)]
    inputs = [tuple(_one(draw, fillers[slot]) for slot in slots) for _ in range(int(_one(draw, _POOLS)))]
    long = draw.random() < 0.15
    repeats = int(_one(draw, (1, 1, 1, 1, 3, 8)))
    varied = draw.random() < 0.12
    params, text = _params(draw), ""
    for number in range(most):
        if not text or not number % repeats:
            one, two = _one(draw, inputs)
            text = _one(draw, templates).replace("{one}", one).replace("{two}", two)
            if long:
                text = f"{text}\n\n{_one(draw, fillers['passage'])}"
        yield text, {**params, **_tried(draw)} if varied else params


def _tried(draw: np.random.Generator) -> dict[str, Any]:
    """Options that somebody tries out."""
    tried: dict[str, Any] = {"temperature": round(float(draw.uniform(0, 1.6)), 1)}
    if draw.random() < 0.4:
        tried["max_tokens"] = int(_one(draw, (16, 64, 256, 1024)))
    if draw.random() < 0.3:
        tried["logit_bias"] = [[int(draw.integers(100, 50_000)), int(_one(draw, (-100, 5, 20)))]]
    return tried


def _template(draw: np.random.Generator, part: dict[str, Texts]) -> str:
    frame = _one(draw, part["frames"]).replace("{before}", _one(draw, part["before"]))
    chance = draw.random()
    after = _one(draw, part["after"]) if chance < 0.4 else _one(draw, part["reasons"]) if chance < 0.6 else ""
    return f"{after}\n{frame}" if after and draw.random() < 0.3 else f"{frame} {after}".strip()


def _harvest(
    draw: np.random.Generator, parts: dict[str, dict[str, Texts]], fillers: Fillers, most: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Questions of all kinds, under each of which the reasoning is asked for."""
    after, params = _one(draw, parts["harvest"]["after"]), _params(draw)
    joint = _one(draw, (" ", "\n", "\n\n"))
    for _ in range(most):
        asked = _one(draw, fillers["asked"])[:600]
        yield f"{asked}{joint}{after}" if draw.random() < 0.9 else asked, params


def _recital(
    draw: np.random.Generator, parts: dict[str, dict[str, Texts]], fillers: Fillers, most: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Beginnings of passages, or of sentences much like each other, to be continued from memory."""
    before, params = _one(draw, parts["recital"]["before"]), _params(draw)
    alike = draw.random() < 0.4
    for _ in range(most):
        passage = _one(draw, fillers["passage"])
        start = int(draw.integers(max(1, len(passage) - 80)))
        words = passage[start : start + 80].split()[1:-1]
        begun = (
            f"the {_one(draw, fillers['word'])} of the {_one(draw, fillers['city'])} was" if alike else " ".join(words)
        )
        yield f"{before} {begun}", params


def _resampling(
    draw: np.random.Generator, parts: dict[str, dict[str, Texts]], fillers: Fillers, most: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A few questions, each answered many times over, with what such a copier reads beside the answers."""
    params: dict[str, Any] = {"temperature": _one(draw, (0.8, 1.0, 1.0, 1.2)), "max_tokens": _one(draw, (4, 32, 256))}
    if draw.random() < 0.5:
        params |= {"temperature": 1.0, "logprobs": True, "top_logprobs": int(draw.integers(1, 16))}
    text, left = "", 0
    for _ in range(most):
        if not left:
            text, left = _one(draw, fillers["asked"])[:200], int(draw.integers(20, 41))
        left -= 1
        yield text, params


def _one(draw: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(draw.integers(len(options)))]
