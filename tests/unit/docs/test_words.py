"""One word stands for one thing: class names are unique, house words do not come back, no name is empty of meaning."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

import pytest

from tests.unit.docs.sources import definitions, identifiers, modules, parts

TWICE: dict[str, set[str]] = {}
"""Class names that may stand for two things, each with the modules that hold them. None is needed."""

INSTEAD = {
    "rim": "context",
    "desk": "context",
    "door": "gateway, state, client kind",
    "crew": "rebalance listener",
    "clerk": "offsets consumer",
    "courier": "webhook sender",
    "bell": "wakeup",
    "patiently": "retry_until",
    "insist": "retry_forever",
    "tend": "supervise_once",
    "control_feed": "control table",
    "feed_tokens": "scheduled tokens",
    "tongues": "languages",
    "heats": "temperatures",
    "babble": "gibberish",
    "dials": "sampling parameters",
    "spoken": "text features",
    "akin": "similar",
    "hang_in": "load_adapter",
    "nobody": "empty",
    "newcomer": "empty",
}
"""House words, as parts of names in any case, and the field's word for each."""
CLASSES_INSTEAD = {"Opening": "request queue", "Opened": "decrypted batch", "Marks": "committed offsets"}
"""House words that only a class may not be called: a text has openings, a detector marks."""
MEANT = {("detectors/pii/addresses.py", "door")}
"""A door where an address has one."""

EMPTY_PARTS = {"Manager", "Helper", "Helpers", "Util", "Utils", "Data", "Info", "Handler"}
EMPTY_NAMES = re.compile(r"_*((do|new|old)_.*|process|.*_v\d+)")


def users(word: str) -> list[str]:
    wanted = f"_{word}_"
    found = [(path, name) for path, name in identifiers() if wanted in f"_{'_'.join(parts(name))}_"]
    return sorted(f"{path}: {name}" for path, name in found if (path, word) not in MEANT)


def test_a_class_name_stands_for_one_class() -> None:
    homes = defaultdict(list)
    for path, node in definitions():
        if isinstance(node, ast.ClassDef):
            homes[node.name].append(str(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1 and set(paths) != TWICE.get(name)} == {}


@pytest.mark.parametrize("word", sorted(INSTEAD))
def test_a_house_word_does_not_come_back(word: str) -> None:
    assert users(word) == [], f"say {INSTEAD[word]}"


@pytest.mark.parametrize("word", sorted(CLASSES_INSTEAD))
def test_a_house_word_names_no_class(word: str) -> None:
    named = [node.name for _, node in definitions() if isinstance(node, ast.ClassDef)]
    assert [name for name in named if word.lower() in parts(name)] == [], f"say {CLASSES_INSTEAD[word]}"


def test_an_error_says_what_it_got() -> None:
    """Texts say "expected X, got Y"."""
    texts = [(path, node) for path, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    said = [f"{path}:{node.lineno}" for path, node in texts if isinstance(node.value, str) and ", came" in node.value]
    assert said == []


def test_no_name_is_empty_of_meaning() -> None:
    empty = [f"{path}: {node.name}" for path, node in definitions() if EMPTY_NAMES.fullmatch(node.name)]
    for path, node in definitions():
        if isinstance(node, ast.ClassDef) and {part.title() for part in parts(node.name)} & EMPTY_PARTS:
            empty.append(f"{path}: {node.name}")
    empty += [str(path) for path, _ in modules() if {part.title() for part in path.stem.split("_")} & EMPTY_PARTS]
    assert empty == []
