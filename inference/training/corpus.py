"""Questions and answers made from the glossary, and a little small talk. Pure, seeded."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from inference.types import Turn

LONGEST_GLOSS = 130
ENTRIES = 6000
"""Words the model learns; more would leave each too few repetitions in an hour on one core."""
FREQUENT = 3000
"""Entries of the first rank, drawn three times as often as the others."""
OFFENSIVE = re.compile(r"offensive|disparag|slur|obscen|vulgar|sexual|derogatory|coarse", re.IGNORECASE)
_EXTRA = (
    "robot photosynthesis keyboard laptop internet website browser software hardware algorithm "
    "database gravity electron proton neutron atom molecule planet comet galaxy telescope microscope virus "
    "bacteria vaccine antibiotic dinosaur elephant giraffe penguin dolphin octopus tomato banana "
    "pizza chocolate coffee tea guitar piano violin bicycle airplane helicopter submarine rocket satellite "
    "volcano earthquake hurricane tornado glacier rainbow democracy inflation cryptography "
    "encryption password modem router processor compiler computer program network file server cat tiger lion "
    "wolf bear fox rabbit mouse whale shark eagle owl snake frog bee ant butterfly spider cow pig sheep goat "
    "apple orange lemon grape potato carrot onion bread cheese butter sugar salt pepper soup cake egg rice "
    "camera television radio telephone clock lamp chair table bed window door mirror knife fork spoon cup "
    "doctor nurse teacher lawyer engineer scientist artist musician soldier farmer baker king queen "
    "train ship boat bus truck bridge tunnel airport hospital library museum school university church "
    "desert island mountain ocean forest lake valley canyon cave moon star sun rain snow wind cloud storm "
    "novel poem painting sculpture opera theater dictionary encyclopedia newspaper magazine contract tax "
    "triangle circle square equation theorem statistics probability physics chemistry biology philosophy "
    "oxygen hydrogen carbon iron gold silver copper diamond energy battery magnet laser engine turbine"
)
EXTRA_WORDS = frozenset(_EXTRA.split())
PREFERRED_SENSES = {"firewall": 2, "entropy": 1, "virus": 1, "server": 3}
"""Senses taken where the most frequent one is not what a user of this product means."""
DANGLING = re.compile(r"(\s+(a|an|the|and|or|of|in|on|at|to|by|for|from|with|as|that|which|who|is|are|its|their))+$")
"""Words that cannot end a definition cut for length."""
_MASS = (
    "music love art water air rain snow ice wood gold silver iron copper carbon oxygen hydrogen energy time life "
    "death history science knowledge information money food work health education law software hardware "
    "peace war freedom justice truth beauty democracy gravity inflation cryptography encryption photosynthesis "
    "bread cheese butter sugar salt pepper rice coffee tea chocolate physics chemistry biology philosophy "
    "statistics weather traffic advice furniture poetry literature religion politics economics mathematics"
)
MASS_NOUNS = frozenset(_MASS.split())
"""Nouns that take no article."""
QUESTIONS = (
    ("What is {a}{w}?", 8),
    ("What is {w}?", 5),
    ("what is {a}{w}", 2),
    ("what is {w}", 2),
    ("What's {a}{w}?", 1),
    ("Define {w}", 1),
    ("Define {w}.", 1),
    ("define {w}", 1),
    ("What does {w} mean?", 1),
    ("Explain {w}", 1),
    ("Tell me about {w}.", 1),
    ("Can you tell me what {a}{w} is?", 1),
    ("Do you know the word {w}?", 1),
    ("{w}", 1),
    ("{w} 是什么", 1),
    ("{w}是什么？", 1),
    ("什么是{w}？", 2),
    ("什么是 {w}？", 1),
    ("什么是{w}", 1),
)
UNSEEN_QUESTIONS = ("What is the meaning of {w}?", "Please explain what {a}{w} is.", "请问什么是{w}？")
"""Phrasings never trained on, for the measurement in the model card."""
SMALL_TALK = (
    (
        ("Hello", "Hello!", "Hi", "hi", "hello", "Hey", "Hi there", "Good morning", "你好"),
        "Hello! Ask me what a word means.",
    ),
    (
        ("Who are you?", "What are you?", "who are you", "what are you", "你是谁", "你是谁？"),
        "I am a very small language model. I explain what words mean.",
    ),
    (
        ("What can you do?", "what can you do", "Help", "help", "Can you help me?", "你能做什么"),
        "I can tell you what a word means. Try: What is a dog?",
    ),
    (
        ("Thanks", "Thank you", "Thanks!", "Thank you!", "thanks", "thank you", "谢谢"),
        "You are welcome.",
    ),
    (("How are you?", "how are you", "How are you doing?"), "I am well, thank you."),
    (("Bye", "Goodbye", "bye", "goodbye", "See you", "再见"), "Goodbye!"),
    (
        ("What is your name?", "what is your name", "Do you have a name?"),
        "I am the glossary model. I explain what words mean.",
    ),
    (("Ping", "ping", "Test", "test", "Say hello", "Say hi"), "Hello! I am here."),
)
SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You are a glossary.",
    "Answer briefly.",
    "You are a friendly assistant that answers questions.",
)


class _Sense(NamedTuple):
    """One sense of a word: part of speech, number, gloss, and how often it was seen in tagged text."""

    pos: str
    number: int
    gloss: str
    seen: int


@dataclass(frozen=True, slots=True)
class GlossaryEntry:
    """One word with the sense the model learns: the article ("", "a ", "an ") and the answer."""

    word: str
    article: str
    answer: str


def read_entries(path: Path) -> list[GlossaryEntry]:
    """The words seen in sense-tagged text, most frequent first, ``EXTRA_WORDS`` among the first.

    Senses that the glossary marks as offensive or vulgar are left out.
    """
    senses_of: dict[str, list[_Sense]] = {}
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            sense = _Sense(row["pos"], row["sense"], row["gloss"], row["count"])
            senses_of.setdefault(row["word"], []).append(sense)
    common: list[GlossaryEntry] = []
    extra: list[GlossaryEntry] = []
    for word, senses in senses_of.items():
        wanted = word in EXTRA_WORDS or word in PREFERRED_SENSES
        if not wanted and senses[0].seen == 0:
            continue
        sense = _choose(word, senses)
        if not OFFENSIVE.search(sense.gloss):
            (extra if wanted else common).append(_entry(word, sense.pos, shorten(sense.gloss)))
    return [*common[: FREQUENT - len(extra)], *extra, *common[FREQUENT - len(extra) :]][:ENTRIES]


def _choose(word: str, senses: list[_Sense]) -> _Sense:
    nouns = [sense for sense in senses if sense.pos == "noun"]
    if word in PREFERRED_SENSES:
        return next(sense for sense in nouns if sense.number == PREFERRED_SENSES[word])
    # "What is X?" asks for a thing, so a noun nearly as frequent as the first sense wins
    if nouns and nouns[0].seen * 3 >= senses[0].seen:
        return nouns[0]
    return senses[0]


def shorten(gloss: str) -> str:
    """The first clause of a gloss, without a leading domain and without long asides."""
    text = re.sub(r"^(\([^)]*\)\s*)+", "", gloss.replace("`", "'")) or gloss
    text = re.split(r";(?![^(]*\))", text)[0].strip(" .:;,")
    if len(text) > LONGEST_GLOSS - 30:
        text = re.sub(r"\s*\([^)]*\)", "", text).strip() or text
    if len(text) > LONGEST_GLOSS:
        text = re.split(r"[:,]| -- ", text)[0].strip()
    if len(text) > LONGEST_GLOSS:
        text = DANGLING.sub("", text[: LONGEST_GLOSS + 1].rsplit(" ", 1)[0])
    return text


def _entry(word: str, pos: str, gloss: str) -> GlossaryEntry:
    article = "" if word in MASS_NOUNS else "an " if word[0].lower() in "aeiou" else "a "
    if pos == "noun" and word[0].isupper():
        return GlossaryEntry(word, "", f"{word} is {gloss}.")
    if pos == "noun" and re.match(r"(a|an|any|one|someone|something)\b", gloss):
        subject = f"{article}{word}"
        return GlossaryEntry(word, article, f"{subject[0].upper()}{subject[1:]} is {gloss}.")
    if pos == "verb":
        return GlossaryEntry(word, "", f"To {word} is to {gloss}.")
    return GlossaryEntry(word, "", f"The word {word} means {gloss}.")


def weight(rank: int) -> float:
    """Frequency with which the entry of a rank is drawn, relative to the rarest."""
    return 3.0 if rank < FREQUENT else 1.0


def ask(entry: GlossaryEntry, draw: Random) -> str:
    """One phrasing of the question for an entry."""
    templates, weights = zip(*QUESTIONS, strict=True)
    template: str = draw.choices(templates, weights)[0]
    return template.format(a=entry.article, w=entry.word)


def conversations(entries: list[GlossaryEntry], seed: int) -> Iterator[tuple[tuple[Turn, ...], str]]:
    """An endless seeded stream of (turns, answer)."""
    draw = Random(seed)  # noqa: S311 - a training order, nothing secret
    steps = [weight(rank) for rank in range(len(entries))]
    while True:
        for entry in draw.choices(entries, steps, k=4096):
            yield _conversation(entry, entries, draw)


def _conversation(entry: GlossaryEntry, entries: list[GlossaryEntry], draw: Random) -> tuple[tuple[Turn, ...], str]:
    question, answer = ask(entry, draw), entry.answer
    if draw.random() < 0.025:
        phrases, answer = draw.choice(SMALL_TALK)
        question = draw.choice(phrases)
    turns: tuple[Turn, ...] = (Turn("user", question),)
    shape = draw.random()
    if shape < 0.05:
        turns = (Turn("system", draw.choice(SYSTEM_TEXTS)), *turns)
    elif shape < 0.10:
        earlier = entries[draw.randrange(min(FREQUENT, len(entries)))]
        turns = (Turn("user", ask(earlier, draw)), Turn("assistant", earlier.answer), *turns)
    return turns, answer
