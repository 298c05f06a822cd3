"""Chat template and byte-level tokens: turns to ids, ids to bytes. No torch."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from inference.types import InvalidRequest, Turn

END = "<|end|>"
MARKERS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL_TOKENS = (END, *MARKERS.values())


def byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level BPE (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + index): byte for index, byte in enumerate(rest)})
    return table


class ChatTokenizer:
    """Encodes conversations; user text can never produce a role marker.

    Template: ``<|role|>text<|end|>`` per turn, then ``<|assistant|>``. Tokens of a text never
    outnumber its UTF-8 bytes (see ``inference.types.input_token_bound``).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        # With this set, "<|user|>" inside a text is plain characters, not the marker.
        tokenizer.encode_special_tokens = True
        if tokenizer.normalizer is not None:
            raise ValueError("tokenizer.json: expected no normalizer, the byte bound needs that")
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        missing = [name for name in SPECIAL_TOKENS if name not in vocabulary]
        if missing:
            raise ValueError(f"tokenizer.json: expected special tokens {', '.join(missing)}")
        self.end = vocabulary[END]
        self._markers = {role: vocabulary[marker] for role, marker in MARKERS.items()}
        self._special = frozenset(vocabulary[name] for name in SPECIAL_TOKENS)
        self._bytes = self._token_bytes()
        self.size = len(self._bytes)
        self.longest = max(len(piece) for piece in self._bytes)

    @classmethod
    def load(cls, path: Path) -> ChatTokenizer:
        """Read ``tokenizer.json``; raises ``ValueError`` when it does not fit the template."""
        return cls(Tokenizer.from_file(str(path)))

    def _token_bytes(self) -> list[bytes]:
        table = byte_alphabet()
        pieces = [b""] * self._tokenizer.get_vocab_size(with_added_tokens=True)
        for token, index in self._tokenizer.get_vocab(with_added_tokens=True).items():
            if index in self._special:
                continue
            if not all(letter in table for letter in token):
                raise ValueError("tokenizer.json: expected a byte-level vocabulary")
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

    def encode_turn(self, turn: Turn) -> list[int]:
        """Ids of one turn with its marker and end."""
        return [self._markers[turn.role], *self.encode_text(turn.text), self.end]

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        """Ids of a conversation, ready for the answer to follow."""
        ids = [token for turn in turns for token in self.encode_turn(turn)]
        return [*ids, self._markers["assistant"]]
