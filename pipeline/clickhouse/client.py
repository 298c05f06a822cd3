"""Makes every client of the store: what is needed to connect and to authenticate is known here alone."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect

from pipeline.endpoints import ClickHouseEndpoint
from pipeline.errors import ConfigError

_ANSWER_S = 150


def store_client(settings: ClickHouseEndpoint) -> Any:
    """Give a connected client, blocking. Raises ConfigError for a bad URL, ClickHouseError without an answer."""
    parts = urlsplit(settings.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"clickhouse.url: expected http(s)://host:port, got {parts.scheme}://{parts.hostname}")
    client = clickhouse_connect.get_client(
        interface=parts.scheme,
        host=parts.hostname,
        port=parts.port or (8443 if parts.scheme == "https" else 8123),
        username=settings.user,
        password=settings.password,
        compress=False,
        send_receive_timeout=_ANSWER_S,
        autogenerate_session_id=False,
    )
    # the database may not exist yet, so the client is told of it only now
    client.database = settings.database
    return client
