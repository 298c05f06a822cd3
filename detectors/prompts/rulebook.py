"""Phrase rules: TOML families an analyst edits, compiled into anchors and proximity patterns.

A family file has `family`, `reference` (OWASP LLM Top 10 2025, MITRE ATLAS), `[words]` (named word
lists) and `[[rule]]` tables. A rule's `sequences` are ordered groups with at most `gap` characters
of the same sentence between them; a group is a list of phrases or `"@name"` of a word list. A
phrase is literal lower-case text: a space is any white space, a trailing `*` any word ending, and
`re:` starts a regular expression. Every match must contain one of the rule's `anchors`; that is
checked when the files are loaded, so an anchor forgotten is an error and not a blind spot.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Annotated

import msgspec

Phrases = list[str]
_SENTENCE_GAP = r"[^.!?。！？]"
_WORD = re.compile(r"[a-z0-9]")


class RuleBookError(ValueError):
    """A rule file is wrong; the message names the rule, what was expected and what it holds."""


class _RuleText(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    severity: Annotated[int, msgspec.Meta(ge=1, le=4)]
    confidence: Annotated[int, msgspec.Meta(ge=1, le=100)]
    runbook: str
    anchors: Phrases
    sequences: list[list[str | Phrases]]
    hits: Phrases
    misses: Phrases
    gap: Annotated[int, msgspec.Meta(ge=0, le=120)] = 24
    guard: bool = True
    roles: Phrases = msgspec.field(default_factory=lambda: ["user", "document", "assistant"])


class _FamilyText(msgspec.Struct, forbid_unknown_fields=True):
    family: str
    reference: Phrases
    rule: list[_RuleText]
    words: dict[str, Phrases] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """One sequence of a rule. ``needs``: of each of these tuples of the rule's at least one string is in every match,
    which is far cheaper to ask than the pattern, and rules the pattern out nearly always."""

    pattern: re.Pattern[str]
    needs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PhraseRule:
    """One compiled rule. `guard`: a mention of the phrase, not a use, lowers the severity."""

    id: str
    family: str
    severity: int
    confidence: int
    reference: tuple[str, ...]
    runbook: str
    anchors: tuple[str, ...]
    readings: tuple[Reading, ...]
    needs: tuple[tuple[str, ...], ...]
    reach: int
    guard: bool
    roles: frozenset[str]
    hits: tuple[str, ...]
    misses: tuple[str, ...]


def load_rules() -> tuple[PhraseRule, ...]:
    """Every rule of every family file, in order of file name and place.

    Raises RuleBookError for an unknown key, an undefined word list, a doubled id or a sequence that
    can match without containing an anchor.
    """
    folder = resources.files("detectors.prompts") / "rules"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    rules = tuple(rule for f in files for rule in parse_family(f.read_text("utf-8"), f.name))
    ids = [rule.id for rule in rules]
    if doubled := {name for name in ids if ids.count(name) > 1}:
        raise RuleBookError(f"expected rule ids that differ, got these twice: {sorted(doubled)}; rename one of each")
    return rules


def parse_family(text: str, name: str) -> tuple[PhraseRule, ...]:
    """The rules of one family file. Raises RuleBookError."""
    try:
        family = msgspec.convert(tomllib.loads(text), _FamilyText)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise RuleBookError(f"{name}: {error}") from error
    return tuple(_compile(rule, family) for rule in family.rule)


def _compile(rule: _RuleText, family: _FamilyText) -> PhraseRule:
    anchors = tuple(_expand(rule.anchors, family, rule.id))
    readings, reach = [], 0
    needs: dict[tuple[str, ...], int] = {}
    for sequence in rule.sequences:
        groups = [_expand([group] if isinstance(group, str) else group, family, rule.id) for group in sequence]
        _require_anchor(groups, anchors, rule.id)
        gap = f"{_SENTENCE_GAP}{{0,{rule.gap}}}?"
        pattern = re.compile(gap.join(map(_group, groups)))
        asked = [needed for group in groups if (needed := _needed(group))]
        # the group that an anchor was found in is there anyway
        asked.sort(key=lambda group: (any(anchor in word for word in group for anchor in anchors), len(group)))
        readings.append(Reading(pattern, tuple(needs.setdefault(group, len(needs)) for group in asked)))
        reach = max(reach, sum(max(map(len, group)) + rule.gap for group in groups))
    return PhraseRule(
        id=rule.id,
        family=family.family,
        severity=rule.severity,
        confidence=rule.confidence,
        reference=tuple(family.reference),
        runbook=rule.runbook,
        anchors=anchors,
        readings=tuple(readings),
        needs=tuple(needs),
        reach=reach + 16,
        guard=rule.guard,
        roles=frozenset(rule.roles),
        hits=tuple(rule.hits),
        misses=tuple(rule.misses),
    )


def _expand(phrases: Phrases, family: _FamilyText, rule_id: str) -> Phrases:
    """Phrases with each `@name` replaced by its word list."""
    out: Phrases = []
    for phrase in phrases:
        if phrase == "@" or not phrase.startswith("@"):
            out.append(phrase)
        elif phrase[1:] in family.words:
            out += family.words[phrase[1:]]
        else:
            raise RuleBookError(f"{rule_id}: expected a word list of [words], got {phrase}; add it there")
    return out


def _require_anchor(groups: list[Phrases], anchors: tuple[str, ...], rule_id: str) -> None:
    for group in groups:
        if all(_anchored(phrase, anchors) for phrase in group):
            return
    missing = [phrase for phrase in groups[0] if not _anchored(phrase, anchors)]
    raise RuleBookError(
        f"{rule_id}: expected a group in each sequence whose phrases all hold an anchor, got no group; add anchors"
        f" that stand in {missing}"
    )


def _anchored(phrase: str, anchors: tuple[str, ...]) -> bool:
    """True where every reading of the phrase holds an anchor: of an expression, every top-level branch."""
    return all(any(anchor in branch for anchor in anchors) for branch in _branches(phrase))


def _branches(phrase: str) -> list[str]:
    """The top-level alternatives of an expression with its escapes undone; a literal is its own only one."""
    if not phrase.startswith("re:"):
        return [phrase.removesuffix("*")]
    out, depth = [""], 0
    for escaped, char in re.findall(r"\\(.)|(.)", phrase[3:], re.DOTALL):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "|" and not depth:
            out.append("")
        else:
            out[-1] += char or ("\n" if escaped.isalnum() else escaped)
    return out


def _needed(group: Phrases) -> tuple[str, ...]:
    """Strings one of which every match of the group contains: each phrase's longest word; () where unknown."""
    if any(phrase.startswith("re:") for phrase in group):
        return ()
    words = {max(phrase.removesuffix("*").split(" "), key=len) for phrase in group}
    return tuple(sorted(word for word in words if not any(other in word for other in words - {word})))


def _group(group: Phrases) -> str:
    """Expression of one group; the word bound that most phrases share is tested once, before all of them."""
    bound = [phrase for phrase in group if not phrase.startswith("re:") and _WORD.match(phrase)]
    free = [phrase for phrase in group if phrase not in bound]
    branches = [f"(?<![a-z0-9])(?:{'|'.join(map(_phrase, bound))})"] if bound else []
    return f"(?:{'|'.join(branches + list(map(_phrase, free)))})"


def _phrase(phrase: str) -> str:
    """Expression of one phrase, with a word bound where it ends in ASCII; `_group` bounds its beginning."""
    if phrase.startswith("re:"):
        return f"(?:{phrase[3:]})"
    stem = phrase.removesuffix("*")
    body = r"\s+".join(map(re.escape, stem.split(" ")))
    if not _WORD.match(stem[-1]):
        return body
    return body + ("(?![a-z0-9])" if stem == phrase else "[a-z]{0,12}")
