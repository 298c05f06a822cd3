"""A reply follows one attempt's response records, and moves to another only where that says the same so far."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from pipeline.errors import Malformed
from pipeline.events.limits import QuotaState
from pipeline.events.messages import Response
from pipeline.gateway.refusals import Refusal, of_response

MAX_ATTEMPTS = 8
Opener = Callable[[Response, str, bytes], bytes]
"""Opens a sealed field of a response, by the field's name. Raises Malformed."""


class Attempt:
    """The text of one worker's run as far as it arrived whole and in order."""

    __slots__ = ("_hash", "_next", "sound", "text")

    def __init__(self) -> None:
        self.text = bytearray()
        self.sound = True
        self._next = 0
        self._hash = hashlib.sha256()

    def add(self, position: int, text: bytes, prefix: bytes) -> None:
        """Take a chunk. A repeated one changes nothing; one that does not continue the text ends the trust in it."""
        if not self.sound or position < self._next or not text:
            return
        self._hash.update(text)
        if prefix != self._hash.digest():
            self.sound = False
            return
        self._next = position + 1
        self.text += text

    def whole(self, prefix: bytes) -> bool:
        """True where the end's digest, if it has one, is that of the text."""
        return self.sound and prefix in (b"", self._hash.digest())


class Reply:
    """The answer to one request, as delivered so far. ``end`` is set by the end or the refusal.

    An attempt one of whose chunks does not open is not followed further.
    """

    def __init__(self, opener: Opener) -> None:
        self._open = opener
        self._attempts: dict[str, Attempt] = {}
        self.following = ""
        self.moved = 0
        self.text = bytearray()
        self.end: Response | None = None
        self.whole: bytes | None = None
        """Set by a finished end: the full text of its attempt, where it arrived whole."""
        self.quota: QuotaState | None = None
        """What the decision left of the caller's limits."""

    def add(self, response: Response) -> bytes:
        """Take a response and give the text to deliver next because of it; may be empty."""
        if self.end is not None:
            return b""
        self.quota = response.quota or self.quota
        if response.event == "refusal":
            self.end = response
            return b""
        if response.sealed:
            self._chunk(response)
        if response.event == "end":
            return self._close(response)
        attempt = self._attempts.get(response.attempt)
        return self._advance(response.attempt, attempt) if attempt else b""

    def fault(self, *, streamed: bool = False) -> Refusal | None:
        """The refusal of an ended answer that is no success, else None.

        ``streamed``: the delivered text must be the whole text too.
        """
        if self.end is None:
            return None
        if self.end.event == "refusal" or self.end.result != "finished":
            return of_response(self.end)
        if self.whole is None or (streamed and self.whole != self.text):
            return Refusal(
                "incomplete",
                "Parts of the answer were lost or changed on the way. Send the request again.",
                status=502,
                kind="api_error",
            )
        return None

    def logprobs(self) -> bytes:
        """The readout of the ended answer (``events.logprobs``), empty where none came or it does not open."""
        if self.end is None or not self.end.logprobs:
            return b""
        try:
            return self._open(self.end, f"{self.end.attempt}:logprobs", self.end.logprobs)
        except Malformed:
            return b""

    def _chunk(self, response: Response) -> None:
        attempt = self._attempts.get(response.attempt)
        if attempt is None:
            if len(self._attempts) >= MAX_ATTEMPTS:
                return
            attempt = self._attempts[response.attempt] = Attempt()
        if not attempt.sound:
            return
        try:
            text = self._open(response, f"{response.attempt}:{response.position}", response.sealed)
            attempt.add(response.position, text, response.prefix)
        except Malformed:
            attempt.sound = False

    def _advance(self, name: str, attempt: Attempt) -> bytes:
        size = len(self.text)
        if len(attempt.text) <= size or (name != self.following and not attempt.text.startswith(self.text)):
            return b""
        if self.following and self.following != name:
            self.moved += 1
        self.following = name
        fresh = bytes(attempt.text[size:])
        self.text += fresh
        return fresh

    def _close(self, response: Response) -> bytes:
        self.end = response
        if response.result != "finished":
            return b""
        attempt = self._attempts.get(response.attempt) or Attempt()
        fresh = self._advance(response.attempt, attempt)
        self.whole = bytes(attempt.text) if attempt.whole(response.prefix) else None
        return fresh
