"""Benign texts written for this measurement: people's instructions, roles, prompts and modes, and shapes of text."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import resources

import msgspec

from detectors.prompts.training.rows import drawing
from tests.honest.pastes import QUESTIONS, OrdinaryText

DRAWN = 400
"""Sentences drawn from each language's frames."""


class _Frames(msgspec.Struct):
    en: list[str]
    zh: list[str]
    words: dict[str, dict[str, list[str]]]


class _Own(msgspec.Struct):
    sentences: dict[str, list[str]]
    frames: _Frames


def own() -> Iterator[OrdinaryText]:
    """Every sentence and shape, the latter with a plain question."""
    folder = resources.files("tests.honest")
    held = msgspec.convert(tomllib.loads(folder.joinpath("own.toml").read_text("utf-8")), _Own)
    for language, texts in held.sentences.items():
        for text in texts:
            yield OrdinaryText("sentences between people", language, "user", text)
    for language, frames in (("en", held.frames.en), ("zh", held.frames.zh)):
        draw, words = drawing(f"frames/{language}"), held.frames.words[language]
        for _ in range(DRAWN):
            chosen = {name: each[int(draw.integers(len(each)))] for name, each in words.items()}
            text = frames[int(draw.integers(len(frames)))].format(**chosen)
            yield OrdinaryText("sentences between people", f"{language}, frames", "user", text)
    for block in folder.joinpath("shapes.txt").read_text("utf-8").split("== ")[1:]:
        group, _, held_texts = block.partition("\n")
        for number, text in enumerate(held_texts.rstrip("\n").split("\n--\n")):
            for question in (QUESTIONS[number % len(QUESTIONS)], ""):
                yield OrdinaryText("shapes of text", group, "user", f"{question} {text}".strip())
