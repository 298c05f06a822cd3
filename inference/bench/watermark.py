"""Power and false alarms of the watermark on real text of the shipped model.

``python -m inference.bench.watermark --glossary FILE``: asks the engine about many words, puts a tenant's answers
together to documents as a leaked collection would be, and scores what an eavesdropper would have, the text, cut into
tokens again. Prints the tables of ``README.md`` beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import lzma
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.chat.tokenizer import ChatTokenizer
from inference.engines.torch import TorchEngine, TorchOptions, shipped_model
from inference.training.corpus import read_entries
from inference.types import GenerationRequest, SamplingParams, Turn
from inference.watermark.detect import LAYER_WEIGHTS, scored_pairs, total_of, z_of
from inference.watermark.keys import MarkKey
from inference.watermark.marking import MarkPolicy, TenantMarker
from inference.watermark.significance import family, tail_probability

MASTER = bytes(range(32))
"""Fixed, so that a run can be repeated; it protects nothing."""
TENANTS = 1000
"""Keys that an operator would try; detection pays for their number."""
ALARM = 1e-6
LENGTHS = (50, 100, 200, 400)
Words = Sequence[str]
Draw = np.random.Generator
Row = dict[str, str | float]


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of text: the words asked about, and the temperature."""

    words: str
    temperature: float


CELLS = (Cell("unknown", 1.0), Cell("learned", 1.0), Cell("unknown", 1.5), Cell("learned", 1.5))


async def answers(engine: TorchEngine, words: Words, cell: Cell, limit: int) -> list[str]:
    """One answer of tenant ``t`` for each word, in order."""

    async def one(number: int, word: str) -> str:
        sampling = SamplingParams(temperature=cell.temperature)
        turns = (Turn("user", f"What is {word}?"),)
        request = GenerationRequest(f"{cell.words}-{cell.temperature}-{number}", "t", turns, limit, sampling)
        return "".join([chunk.text async for chunk in engine.submit(request)])

    return await asyncio.gather(*(one(number, word) for number, word in enumerate(words)))


def documents(texts: Sequence[str], chat: ChatTokenizer, count: int, length: int) -> list[list[int]]:
    """``count`` token sequences of ``length``, each of whole answers in order and cut at the end."""
    sequences: list[list[int]] = []
    waiting: list[str] = []
    for text in texts:
        waiting.append(text)
        tokens = chat.encode_text("\n".join(waiting))
        if len(tokens) >= length:
            sequences.append(tokens[:length])
            waiting = []
        if len(sequences) == count:
            break
    return sequences


def cut(tokens: list[int], length: int, chat: ChatTokenizer, draw: Draw) -> list[int]:
    """Truncated at both ends, the start in the middle of a word, and cut into tokens anew."""
    text = b"".join(chat.piece(token) for token in tokens).decode("utf-8", "ignore")
    return chat.encode_text(text[int(draw.integers(10, 200)) :])[:length]


def mixed(tokens: list[int], length: int, plain: list[int], draw: Draw) -> list[int]:
    """Half marked, half unmarked, in runs of 25 tokens."""
    starts = range(0, length // 2, 25)
    runs = [source[start : start + 25] for start in starts for source in (tokens, plain)]
    return [token for run in runs for token in run][:length]


def edited(tokens: list[int], length: int, size: int, draw: Draw) -> list[int]:
    """One token in ten replaced by a random one."""
    changed = np.array(tokens[:length])
    places = draw.choice(length, length // 10, replace=False)
    changed[places] = draw.integers(10, size, len(places))
    return [int(token) for token in changed]


def false_alarm(tokens: Sequence[int], key: MarkKey) -> tuple[float, float]:
    """z, and the probability corrected for ``TENANTS`` keys."""
    contexts, drawn = scored_pairs(tokens)
    total = total_of(key, contexts, drawn)
    return z_of(total, len(drawn)), family(tail_probability(total, len(drawn), LAYER_WEIGHTS), TENANTS)


def power(marked: Sequence[list[int]], plain: Sequence[list[int]], chat: ChatTokenizer) -> list[Row]:
    """Shares of documents attributed at ``ALARM``, and mean z, for each length and what was done to the text."""
    draw, key = np.random.default_rng(1), MarkKey(MASTER, "t", 0)
    acts: dict[str, Callable[[int, int], list[int]]] = {
        "as delivered": lambda n, length: marked[n][:length],
        "cut": lambda n, length: cut(marked[n], length, chat, draw),
        "10 % edited": lambda n, length: edited(marked[n], length, chat.size, draw),
        "half unmarked": lambda n, length: mixed(marked[n], length, plain[n % len(plain)], draw),
    }
    rows: list[Row] = []
    for act, make in acts.items():
        for length in LENGTHS:
            scores = [false_alarm(make(number, length), key) for number in range(len(marked))]
            caught = sum(chance < ALARM for _, chance in scores)
            low, high = interval(caught, len(scores))
            z = float(np.mean([z for z, _ in scores]))
            share = caught / len(scores)
            rows.append({"text": act, "tokens": length, "power": share, "low": low, "high": high, "z": z})
    return rows


def alarms(texts: Sequence[list[int]], keys: int) -> list[Row]:
    """False alarms of texts under keys that did not mark them, at stated single-key probabilities.

    Each text has keys of its own: texts share phrases, so trials under shared keys would not be independent.
    """
    counts = dict.fromkeys((1e-2, 1e-3, 1e-4), 0)
    trials = 0
    for index, text in enumerate(texts):
        pairs = scored_pairs(text)
        scored = len(pairs[1])
        least = {level: threshold(level, scored) for level in counts}
        for number in range(keys):
            total = total_of(MarkKey(MASTER, f"other-{index}", number), *pairs)
            trials += 1
            for level in counts:
                counts[level] += total >= least[level]
    rows: list[Row] = []
    for level, count in counts.items():
        low, high = interval(count, trials)
        shares = {"rate": count / trials, "low": low, "high": high}
        rows.append({"stated": level, "trials": trials, "alarms": count, **shares})
    return rows


def threshold(level: float, scored: int) -> int:
    """The least total whose probability is at most ``level``."""
    low, high = scored * sum(LAYER_WEIGHTS) // 2, scored * sum(LAYER_WEIGHTS) + 1
    while low < high:
        middle = (low + high) // 2
        if tail_probability(middle, scored, LAYER_WEIGHTS) <= level:
            high = middle
        else:
            low = middle + 1
    return low


def interval(count: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (Clopper and Pearson 1934)."""

    def upper_tail(share: float, least: int) -> float:
        if least <= 0:
            return 1.0
        logs = [
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
            + k * math.log(share) + (trials - k) * math.log1p(-share)
            for k in range(least)
        ]  # fmt: skip
        return 1.0 - min(1.0, math.fsum(map(math.exp, logs)))

    def solve(least: int, target: float) -> float:
        low, high = 1e-12, 1.0 - 1e-12
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if upper_tail(middle, least) < target else (low, middle)
        return low

    return (0.0 if count == 0 else solve(count, 0.025)), (1.0 if count == trials else solve(count + 1, 0.975))


def unlearned(glossary: Path, learned: Words) -> list[str]:
    """Words that the model was never taught: it makes something up, so its answers have entropy."""
    known = set(learned)
    with lzma.open(glossary, "rt", encoding="utf-8") as lines:
        words = dict.fromkeys(json.loads(line)["word"] for line in lines)
    return [word for word in words if word not in known and word.isalpha()]


def glosses(glossary: Path, chat: ChatTokenizer, count: int, length: int) -> list[list[int]]:
    """Documents of sentences that people wrote."""
    with lzma.open(glossary, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["gloss"] for line, _ in zip(lines, range(count * length), strict=False)]
    return documents(texts, chat, count, length)


class Bench:
    """The engines, with and without marks, and the words they are asked about."""

    def __init__(self, glossary: Path, count: int, keys: int) -> None:
        self.chat = ChatTokenizer.load(shipped_model() / "tokenizer.json")
        learned = [entry.word for entry in read_entries(glossary)]
        self._words = {"learned": learned, "unknown": unlearned(glossary, learned)}
        self._count, self._keys = count, keys
        marker = TenantMarker(lambda tenant: MASTER, lambda tenant: MarkPolicy(), lambda: 0)
        self._marking, self._plain = (
            TorchEngine(shipped_model(), TorchOptions(max_batch=32, threads=1, marker=made)) for made in (marker, None)
        )

    async def measure(self, cell: Cell) -> dict[str, list[Row]]:
        """Power and false alarms of one kind of text."""
        words, half = self._words[cell.words], LENGTHS[-1] // 2
        marked = await self._texts(self._marking, words, cell, self._count, LENGTHS[-1] + 50)
        plain = await self._texts(self._plain, words[1:], cell, max(1, self._count // 2), half + 25)
        return {"power": power(marked, plain, self.chat), "alarms": alarms([text[:half] for text in plain], self._keys)}

    async def _texts(self, engine: TorchEngine, words: Words, cell: Cell, wanted: int, length: int) -> list[list[int]]:
        spread = words[:: max(1, len(words) // (self._count * 40))]
        made: list[str] = []
        whole: list[list[int]] = []
        for start in range(0, len(spread), 128):
            made += await answers(engine, spread[start : start + 128], cell, 80)
            if len(whole := documents(made, self.chat, wanted, length)) == wanted:
                break
        return whole

    async def close(self) -> None:
        """Free both engines."""
        await self._marking.close()
        await self._plain.close()


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    head = " | ".join(rows[0])
    cells = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    lines = [" | ".join(row) for row in cells]
    return "\n".join(f"| {line} |" for line in (head, "|".join("---" for _ in rows[0]), *lines))


async def run(glossary: Path, count: int, keys: int, as_json: bool) -> None:
    """Print each kind of text as soon as it is measured."""
    bench = Bench(glossary, count, keys)
    human = alarms(glosses(glossary, bench.chat, count, LENGTHS[-1] // 2), keys)
    print(json.dumps({"words": "written by people", "alarms": human}) if as_json else table(human), flush=True)
    for cell in CELLS:
        tables = await bench.measure(cell)
        if as_json:
            print(json.dumps({"words": cell.words, "temperature": cell.temperature, **tables}), flush=True)
        else:
            text = "\n\n".join(table(rows) for rows in tables.values())
            print(f"\n## {cell.words} words, temperature {cell.temperature}\n\n{text}", flush=True)
    await bench.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the watermark on the shipped model's own text.")
    parser.add_argument("--glossary", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--keys", type=int, default=500, help="keys that did not mark, for the false alarms")
    parser.add_argument("--json", action="store_true", help="one JSON object for each kind of text")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.glossary, arguments.documents, arguments.keys, arguments.json))


if __name__ == "__main__":
    main()
