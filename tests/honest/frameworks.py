"""Stock prompts of frameworks, read from the sources of those that are installed: what their users send unknowingly."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.honest.pastes import OrdinaryText

FRAMEWORKS = (
    "langchain", "langchain_classic", "langchain_core", "langchain_community", "llama_index", "open_webui", "crewai",
    "autogen_agentchat", "autogen_core", "dspy", "semantic_kernel",
)  # fmt: skip
LEAST, MOST = 60, 12_000
_NAMED = re.compile(r"(?i)prompt|template|tmpl|prefix|suffix|instruction|system|format_")
_SLOT = re.compile(r"\{\{\s*\$?[\w.:<>\s]{1,40}\}\}|\{[\w.]{1,40}\}")
_SENTENCE = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z',]{1,}){6,}")
_FILLED = ("Dogs are animals.", "What is a dog?", "The shop opens at nine.", "Paris is the capital of France.")
_FILES = (".txt", ".md", ".json", ".yaml", ".prompty", ".jinja", ".j2")


def prompts(folders: Iterable[Path]) -> Iterator[OrdinaryText]:
    """Every stock prompt found, with harmless words where the application's would stand, once each."""
    seen: set[str] = set()
    for name in FRAMEWORKS:
        for folder in folders:
            for path in sorted((folder / name).rglob("*")) if (folder / name).is_dir() else ():
                for text in _texts(path):
                    if LEAST <= len(text) <= MOST and _SENTENCE.search(text) and text not in seen:
                        seen.add(text)
                        yield OrdinaryText("stock prompts of frameworks", name, "user", filled(text))


def filled(template: str) -> str:
    """The template with something harmless in each slot."""
    count = 0

    def word(_: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return _FILLED[count % len(_FILLED)]

    return _SLOT.sub(word, template)


def _texts(path: Path) -> Iterator[str]:
    try:
        if path.suffix == ".py":
            yield from _constants(ast.parse(path.read_bytes()))
        elif path.suffix in _FILES and re.search("prompt|translation", str(path), re.IGNORECASE):
            text = path.read_text("utf-8")
            yield from _strings(json.loads(text)) if path.suffix == ".json" else (text,)
    except (OSError, SyntaxError, UnicodeDecodeError, ValueError):
        return


def _constants(tree: ast.Module) -> Iterator[str]:
    """Strings bound to a name that says it is a prompt, or given under such a name."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        elif isinstance(node, ast.keyword) and node.arg:
            names = [node.arg]
        value = getattr(node, "value", None)
        if value is not None and any(map(_NAMED.search, names)):
            yield from _folded(value)


def _folded(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield "".join([*_folded(left), *_folded(right)])
        case ast.Call(args=[first, *_]):
            yield from _folded(first)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)
