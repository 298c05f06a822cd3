"""The certificate under which the gateway serves: read again when its files change, without dropping a connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import ConfigError

log = logging.getLogger(__name__)
LOOK_S = 2.0
"""Time between two looks at the files."""
HANDSHAKE_S = 10.0
"""Time that a peer has for its handshake."""
CountReread = Callable[[str], None]
Stamp = tuple[tuple[int, int, int], ...]


class ServedCertificate:
    """``context`` is what the server is made with; each handshake is then led by the newest certificate that is whole.

    A pair of files that does not fit together, as while the second of them is being written, leaves the one before in
    force. ``count_reread`` gets "taken" or "refused".
    """

    def __init__(self, certificate: Path, key: Path | None, count_reread: CountReread = lambda _: None) -> None:
        """Raises ConfigError where the files hold no certificate with its key."""
        self._certificate = certificate
        self._key = key or certificate
        self._count_reread = count_reread
        self._stamp = self._look()
        try:
            self._newest = self._load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                "gateway.certificate_file, gateway.key_file: expected PEM files of a certificate and its key without a "
                f"passphrase, got {certificate} and {self._key}: {_cause(error)}"
            ) from None
        self.context = self._load()
        self.context.sni_callback = self._choose

    async def follow(self, stop: asyncio.Event) -> None:
        """Look at the files until ``stop`` is set."""
        while not stop.is_set():
            self.reread()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)

    def reread(self) -> None:
        """Take the files' certificate where they have changed and fit together."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        # looked at once: a pair that is broken is told once, and again when it changes
        self._stamp = stamp
        try:
            self._newest = self._load()
        except (OSError, ssl.SSLError) as error:
            self._count_reread("refused")
            log.error(
                "gateway.certificate_file: the new files are passed over, the ones before serve: %s", _cause(error)
            )
            return
        self._count_reread("taken")
        log.info("gateway.certificate_file: new handshakes are led by the new certificate")

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _: str | None, __: ssl.SSLContext) -> None:
        connection.context = self._newest

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        # without an answer the library would ask the terminal for a passphrase
        context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        return context

    def _look(self) -> Stamp:
        """Size, time and inode of the files; those that are not there count as empty."""
        stamps = []
        for path in (self._certificate, self._key):
            try:
                found = path.stat()
                stamps.append((found.st_size, found.st_mtime_ns, found.st_ino))
            except OSError:
                stamps.append((0, 0, 0))
        return tuple(stamps)


def _cause(error: OSError) -> str:
    return str(error.strerror or error)
