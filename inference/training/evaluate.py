"""The quality of a trained model's answers: ``python -m inference.training.evaluate --glossary PATH``.

Asks about a fixed sample of the words it learned, in phrasings it was trained on and in phrasings
it never saw, greedily, and compares with the answer it should have learned.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

from inference.engines.torch import TorchEngine, TorchOptions, shipped_model
from inference.training.corpus import FREQUENT, UNSEEN_QUESTIONS, GlossaryEntry, read_entries
from inference.types import GenerationRequest, InferenceEngine, Turn

SEEN_QUESTIONS = ("What is {a}{w}?", "define {w}", "什么是 {w}？", "什么是{w}？")
LONGEST_ANSWER = 64
CLOSE = 0.5
"""Share of the expected content words from which an answer counts as close."""
_FUNCTION_WORDS = "a an the and or of in on at to by for from with as that is are it its word means"
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


async def ask(engine: InferenceEngine, name: str, question: str) -> str:
    """The engine's greedy answer to one question."""
    turns = (Turn("user", question),)
    pieces = [chunk.text async for chunk in engine.submit(GenerationRequest(name, "", turns, LONGEST_ANSWER))]
    return "".join(pieces)


async def measure(engine: InferenceEngine, entries: Sequence[GlossaryEntry], template: str) -> dict[str, float]:
    """Shares (0..1) of answers that are exact, and of those that are close, for one phrasing."""
    questions = [template.format(a=entry.article, w=entry.word) for entry in entries]
    answers = await asyncio.gather(*(ask(engine, f"q{n}", question) for n, question in enumerate(questions)))
    pairs = list(zip(answers, entries, strict=True))
    return {
        "exact": round(sum(answer == entry.answer for answer, entry in pairs) / len(pairs), 3),
        "close": round(sum(overlap(answer, entry) >= CLOSE for answer, entry in pairs) / len(pairs), 3),
    }


def overlap(answer: str, entry: GlossaryEntry) -> float:
    """Share of the expected answer's content words, the word asked for aside, that were said."""
    expected = content_words(entry.answer) - content_words(entry.word)
    return len(expected & content_words(answer)) / len(expected) if expected else float(answer == entry.answer)


def content_words(text: str) -> frozenset[str]:
    """Lower-cased words that carry meaning."""
    return frozenset(re.findall(r"[a-z0-9]+", text.lower())) - FUNCTION_WORDS


async def report(folder: Path, glossary: Path, sample: int) -> dict[str, object]:
    """Shares by phrasing for ``sample`` frequent words and as many of the others."""
    entries = read_entries(glossary)
    draw = Random(7)  # noqa: S311 - a sample, nothing secret
    groups = {"frequent": draw.sample(entries[:FREQUENT], sample), "others": draw.sample(entries[FREQUENT:], sample)}
    engine = TorchEngine(folder, TorchOptions(threads=1))
    shares: dict[str, object] = {
        f"{template} ({group})": await measure(engine, chosen, template)
        for template in (*SEEN_QUESTIONS, *UNSEEN_QUESTIONS)
        for group, chosen in groups.items()
    }
    await engine.close()
    return shares


def main() -> None:
    """Command line: one JSON object, shares by phrasing."""
    parser = argparse.ArgumentParser(description="Measure the answers of a trained glossary model.")
    parser.add_argument("--glossary", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=shipped_model())
    parser.add_argument("--sample", type=int, default=200)
    arguments = parser.parse_args()
    shares = asyncio.run(report(arguments.model, arguments.glossary, arguments.sample))
    print(json.dumps(shares, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
