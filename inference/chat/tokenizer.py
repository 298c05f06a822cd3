"""Chat template and byte-level tokens: turns to ids, ids to bytes. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from inference.chat.template import ChatTemplate
from inference.types import InvalidRequest, Turn

END = "<|end|>"
MARKERS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL_TOKENS = (END, *MARKERS.values())
MAX_SETTINGS_BYTES = 1 << 20
MAX_TOKENIZER_BYTES = 1 << 26
MAX_TOKENS = 1 << 22
"""Largest id; a table as long as the largest is made."""


def byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level BPE (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + index): byte for index, byte in enumerate(rest)})
    return table


class ByteTokenizer:
    """A byte-level vocabulary whose special tokens no text can produce. ``end`` is the id that ends an answer."""

    def __init__(self, tokenizer: Tokenizer, special: Iterable[str], end: str) -> None:
        # With this set, "<|user|>" inside a text is plain characters, not the marker.
        tokenizer.encode_special_tokens = True
        if tokenizer.normalizer is not None:
            raise ValueError("tokenizer.json: expected no normalizer, got one; the bound by bytes needs that")
        self._tokenizer = tokenizer
        self._vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        names = (*special, end)
        missing = [name for name in names if name not in self._vocabulary]
        if missing:
            raise ValueError(f"tokenizer.json: expected special tokens {', '.join(missing)}, got none of that name")
        self.end = self._vocabulary[end]
        self._special = frozenset(self._vocabulary[name] for name in names)
        self._bytes = self._token_bytes()
        self.size = len(self._bytes)
        self.longest = max(len(piece) for piece in self._bytes)

    def _token_bytes(self) -> list[bytes]:
        table = byte_alphabet()
        if max(self._vocabulary.values()) > MAX_TOKENS:
            raise ValueError(f"tokenizer.json: expected ids up to {MAX_TOKENS}, got {max(self._vocabulary.values())}")
        pieces = [b""] * (max(self._vocabulary.values()) + 1)
        for token, index in self._vocabulary.items():
            if index in self._special:
                continue
            if not all(letter in table for letter in token):
                raise ValueError("tokenizer.json: expected a byte-level vocabulary, got another")
            pieces[index] = bytes(table[letter] for letter in token)
        return pieces

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; empty for markers."""
        return self._bytes[token]

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text alone, free of markers."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not self._special.isdisjoint(ids):
            raise InvalidRequest("turns: a role marker would have come out of plain text")
        return ids

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        """Ids of a conversation, ready for the answer to follow."""
        raise NotImplementedError


class ChatTokenizer(ByteTokenizer):
    """Encodes conversations for the models trained here; user text can never produce a role marker.

    Template: ``<|role|>text<|end|>`` per turn, then ``<|assistant|>``. Tokens of a text never
    outnumber its UTF-8 bytes (see ``inference.types.input_token_bound``).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer, MARKERS.values(), END)
        self._markers = {role: self._vocabulary[marker] for role, marker in MARKERS.items()}

    @classmethod
    def load(cls, path: Path) -> ChatTokenizer:
        """Read ``tokenizer.json``; raises ``ValueError`` when it does not fit the template."""
        return cls(_parsed(_bounded(path, MAX_TOKENIZER_BYTES)))

    def encode_turn(self, turn: Turn) -> list[int]:
        """Ids of one turn with its marker and end."""
        return [self._markers[turn.role], *self.encode_text(turn.text), self.end]

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        """See ``ByteTokenizer.encode``."""
        ids = [token for turn in turns for token in self.encode_turn(turn)]
        return [*ids, self._markers["assistant"]]


class TemplatedTokenizer(ByteTokenizer):
    """Encodes conversations by a foreign model's chat template; its words become markers, a user's never do.

    A text is encoded apart from the words around it. A foreign template may add any number of tokens:
    ``input_token_bound`` holds for the shipped template only.
    """

    def __init__(self, raw: bytes, settings: TokenizerConfig) -> None:
        tokenizer, self._words = _parsed(raw), _parsed(raw)
        special = {added.content for added in tokenizer.get_added_tokens_decoder().values()}
        super().__init__(tokenizer, sorted(special), settings.end)
        self._template = ChatTemplate(settings.chat_template or "", settings.names)

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        """See ``ByteTokenizer.encode``."""
        ids: list[int] = []
        for part in self._template.render(turns):
            if isinstance(part, int):
                ids += self.encode_text(turns[part].text)
            else:
                ids += self._words.encode(part, add_special_tokens=False).ids
        return ids


class _ContentOnly(msgspec.Struct):
    content: str


class TokenizerConfig(msgspec.Struct, frozen=True):
    """The keys of ``tokenizer_config.json`` that count here."""

    chat_template: str | None = None
    bos_token: str | _ContentOnly | None = None
    eos_token: str | _ContentOnly | None = None

    @property
    def names(self) -> dict[str, str]:
        """Texts that the template may use as ``bos_token`` and ``eos_token``."""
        tokens = {"bos_token": self.bos_token, "eos_token": self.eos_token}
        return {name: token if isinstance(token, str) else token.content for name, token in tokens.items() if token}

    @property
    def end(self) -> str:
        return self.names.get("eos_token", "")


def load_tokenizer(folder: Path) -> ByteTokenizer:
    """The tokenizer of a model's folder: by its own chat template where ``tokenizer_config.json`` has one.

    Raises ``ValueError`` or ``OSError`` for files that cannot be served.
    """
    path = folder / "tokenizer_config.json"
    if path.is_file():
        try:
            settings = msgspec.json.decode(_bounded(path, MAX_SETTINGS_BYTES), type=TokenizerConfig)
        except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
            raise ValueError(f"tokenizer_config.json: {fault}") from None
        if settings.chat_template:
            return TemplatedTokenizer(_bounded(folder / "tokenizer.json", MAX_TOKENIZER_BYTES), settings)
    return ChatTokenizer.load(folder / "tokenizer.json")


def _parsed(raw: bytes) -> Tokenizer:
    try:
        return Tokenizer.from_str(raw.decode())
    except Exception as fault:
        # the library raises nothing narrower, and a caller that refuses a model catches ValueError
        raise ValueError(f"tokenizer.json: expected a tokenizer: {str(fault)[:200]}; export it again") from None


def _bounded(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise ValueError(f"{path.name}: expected at most {most} bytes, got more")
    return raw
