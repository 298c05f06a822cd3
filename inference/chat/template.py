"""Chat templates of foreign models, rendered in a sandbox. No torch.

A template is a program from the model's folder: signed, yet bounded here as if it were not. It may not call anything
but a few harmless methods and filters, cannot loop deeply, multiply strings or import, and never sees a text: in its
place stands a mark, so what a user writes can neither close a turn nor open another's.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError, Undefined, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from inference.types import InvalidRequest, Turn

MAX_TEMPLATE_CHARS = 65_536
MAX_RENDERED_CHARS = 262_144
MAX_LOOPS = 2
"""Loops within loops; real templates walk over messages and over the parts of one."""
MAX_RANGE = 512
_FILTERS = frozenset(
    {"trim", "tojson", "length", "default", "first", "last", "lower", "upper", "string", "list", "items"}
)
_METHODS = frozenset(
    {"strip", "lstrip", "rstrip", "split", "startswith", "endswith", "lower", "upper", "title", "items", "keys", "get"}
)
_FORBIDDEN = (
    *(nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block),
    *(nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock, nodes.Concat),
)

_PLAIN = (nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair)


class _Namespace(Namespace):
    """Values that outlive a round of a loop: small ones only, or each round could double them."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, _scalar(value))


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own sandbox, and no way to make much out of little."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], finalize=_scalar)
        self.filters = {name: _bounded(function) for name, function in self.filters.items() if name in _FILTERS}
        self.globals = {"range": _short_range, "raise_exception": _refuse, "namespace": _Namespace}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Sums of numbers or of short strings, other arithmetic on small whole numbers."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return _scalar(left + right)
        if operator == "**" or not all(isinstance(side, int) and abs(side) < 1_000_000 for side in (left, right)):
            raise InvalidRequest("chat template: expected arithmetic on small whole numbers, got other")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> None:
        """``str.format`` pads without bound, so it is no method of the list below."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Methods from a short list; fields of messages and loops."""
        if callable(value):
            return attr in _METHODS and isinstance(obj, str | dict)
        return super().is_safe_attribute(obj, attr, value)


def _scalar(value: Any) -> Any:
    """Strings up to the bound and single values pass; a list of lists could be endless once written out."""
    if isinstance(value, str):
        if len(value) > MAX_RENDERED_CHARS:
            raise InvalidRequest(f"chat template: expected at most {MAX_RENDERED_CHARS} characters, got more")
    elif not isinstance(value, bool | int | float | None | Undefined):
        raise InvalidRequest("chat template: expected a string or a number, got another value")
    return value


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that writes values out, for single ones only."""
    if function.__name__ not in ("do_tojson", "do_string", "soft_str"):
        return function

    @functools.wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        _scalar(arguments[-1])
        return _scalar(function(*arguments, **named))

    return checked


class ChatTemplate:
    """A compiled template; ``ValueError`` for one that cannot be read or asks for more than a template needs."""

    def __init__(self, source: str, names: Mapping[str, str]) -> None:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise ValueError(f"chat template: expected at most {MAX_TEMPLATE_CHARS} characters, got {len(source)}")
        sandbox = _Sandbox()
        try:
            tree = sandbox.parse(source)
            _check(tree, 0)
            self._template = sandbox.from_string(source)
        except (TemplateError, RecursionError) as fault:
            raise ValueError(f"chat template: {type(fault).__name__}; it is not served here") from None
        self._names = {name: text for name, text in names.items() if name in ("bos_token", "eos_token")}

    def render(self, turns: Sequence[Turn]) -> list[str | int]:
        """The template's own words, and between them the index of the turn whose text stands there.

        Raises ``InvalidRequest`` where the template refuses the conversation, or leaves out a turn.
        """
        # unguessable, or a template's own words could pass for a text
        mark = secrets.token_hex(16)
        messages = [{"role": turn.role, "content": f"{mark}{index:04d}"} for index, turn in enumerate(turns)]
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(messages=messages, add_generation_prompt=True, **self._names):
                size += len(piece)
                if size > MAX_RENDERED_CHARS:
                    raise InvalidRequest(f"chat template: expected at most {MAX_RENDERED_CHARS} characters, got more")
                pieces.append(piece)
        except InvalidRequest:
            raise
        except Exception as fault:
            raise InvalidRequest(f"chat template: {type(fault).__name__} on these turns") from None
        return _cut("".join(pieces), mark, len(turns))


def _cut(text: str, mark: str, turns: int) -> list[str | int]:
    first, *rest = text.split(mark)
    parts: list[str | int] = [first]
    for piece in rest:
        parts += [int(piece[:4]), piece[4:]]
    indices = [part for part in parts if isinstance(part, int)]
    if indices != sorted(set(indices)) or len(indices) != turns:
        raise InvalidRequest("chat template: expected each turn once and in order, got another order")
    return [part for part in parts if part != ""]


def _check(node: nodes.Node, loops: int) -> None:
    if isinstance(node, _FORBIDDEN):
        raise TemplateError
    if isinstance(node, nodes.For):
        loops += 1
        if node.recursive or loops > MAX_LOOPS:
            raise TemplateError
    literal = isinstance(node, nodes.List | nodes.Tuple | nodes.Dict) and getattr(node, "ctx", "load") == "load"
    # lists of lists of variables can be exponentially long to compare
    if literal and not all(isinstance(part, _PLAIN) for part in node.find_all(nodes.Node)):
        raise TemplateError
    for child in node.iter_child_nodes():
        _check(child, loops)


def _short_range(*bounds: int) -> range:
    rounds = range(*bounds)
    if len(rounds) > MAX_RANGE:
        raise InvalidRequest(f"chat template: expected at most {MAX_RANGE} rounds of a loop, got more")
    return rounds


def _refuse(_reason: object) -> NoReturn:
    # its words are the template's, and may quote a turn
    raise InvalidRequest("chat template: it refuses this order of roles")
