"""A process remembers how far it has checked the signatures of ``control``, under the digest of what it read.

The mark is authenticated with a key that the keyring derives: whoever can write the cache, but holds no keyring, cannot
have a record taken for checked. It saves the signatures alone: documents, order and roles are judged at every start.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline.config import cache
from pipeline.errors import ConfigError, Malformed
from pipeline.events.codec import decode, encode
from pipeline.events.keyed import hmac_sha256
from pipeline.events.signed_control import ControlFold
from pipeline.events.signed_document import extend_prefix
from pipeline.keys.files import replace_file
from pipeline.keys.vault import Kms, open_kms

_log = logging.getLogger(__name__)
_CONTEXT = "sluice/control-checked/v1/"
MAX_FORGED = 10_000
"""With more bad signatures than these no mark is kept."""


class CheckedMark(msgspec.Struct, frozen=True):
    """Every record below ``offset`` was checked; they have this digest, and signatures were bad at ``forged`` alone."""

    offset: int
    digest: str
    forged: frozenset[int] = frozenset()
    mac: bytes = b""

    def covers(self, offset: int) -> bool:
        """Tell whether the signatures of this record were found good."""
        return offset < self.offset and offset not in self.forged


NOTHING = CheckedMark(0, "")


class CheckedPrefix:
    """The mark of one deployment in a folder."""

    def __init__(self, folder: Path, pin: str, kms: Kms) -> None:
        self._path = folder / f"{pin}.json"
        # one with which nothing can be derived checks everything each time
        self._keys = _derive(kms, pin)

    def checked(self, items: Sequence[tuple[int, bytes]]) -> CheckedMark:
        """Give the mark that holds for ``items``, which are all records from the first one on."""
        try:
            mark = decode(CheckedMark, self._path.read_bytes())
        except (OSError, Malformed):
            return NOTHING
        if not any(hmac.compare_digest(mark.mac, self._mac(key, mark)) for key in self._keys):
            return NOTHING
        prefix = hashlib.sha256()
        for offset, value in items:
            if offset >= mark.offset:
                break
            extend_prefix(prefix, offset, value)
        return mark if prefix.hexdigest() == mark.digest else NOTHING

    def store(self, fold: ControlFold) -> None:
        """Remember what was read so far, once the pinned deployment is in force. Failing costs time alone."""
        if not self._keys or not fold.signed or len(fold.forged) > MAX_FORGED:
            return
        mark = CheckedMark(fold.control.version + 1, fold.prefix, frozenset(fold.forged))
        mark = msgspec.structs.replace(mark, mac=self._mac(self._keys[0], mark))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self._path, encode(mark).decode())
        except OSError as error:
            _log.info("the mark of checked documents was not kept: %s", error.strerror)

    @staticmethod
    def _mac(key: bytes, mark: CheckedMark) -> bytes:
        return hmac_sha256(key, encode(msgspec.structs.replace(mark, mac=b"")))


def checked_prefix(pin: str, keyring: Path) -> CheckedPrefix | None:
    """Give the mark of the pinned deployment; None where this process has no keyring to trust it by."""
    try:
        return CheckedPrefix(cache() / "control", pin, open_kms(keyring))
    except ConfigError:
        return None


def _derive(kms: Kms, pin: str) -> tuple[bytes, ...]:
    try:
        return kms.derive(f"{_CONTEXT}{pin}")
    except ConfigError:
        return ()
