"""Makes every client of the store: what is needed to connect and to authenticate is known here alone."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect

from pipeline.endpoints import ClickHouseEndpoint
from pipeline.errors import ConfigError

_ANSWER_S = 150


def store_client(settings: ClickHouseEndpoint) -> Any:
    """Give a connected client, blocking. Raises ConfigError for a bad URL or CA file, ClickHouseError without an
    answer."""
    parts = urlsplit(settings.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"clickhouse.url: expected http(s)://host:port, got {parts.scheme}://{parts.hostname}")
    _require_authorities(parts.scheme, settings.ca_file)
    client = clickhouse_connect.get_client(
        interface=parts.scheme,
        host=parts.hostname,
        port=parts.port or (8443 if parts.scheme == "https" else 8123),
        username=settings.user,
        password=settings.password,
        ca_cert=settings.ca_file or None,
        compress=False,
        send_receive_timeout=_ANSWER_S,
        autogenerate_session_id=False,
    )
    # the database may not exist yet, so the client is told of it only now
    client.database = settings.database
    return client


def _require_authorities(scheme: str, ca_file: str) -> None:
    """Raise ConfigError where a CA file is of no use, or cannot be read."""
    if not ca_file:
        return
    if scheme != "https":
        raise ConfigError(f"clickhouse.ca_file: expected an https:// clickhouse.url with it, got {scheme}://")
    try:
        ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"clickhouse.ca_file: expected a PEM file of certificates, got {ca_file}: {error.strerror or error}"
        ) from None
