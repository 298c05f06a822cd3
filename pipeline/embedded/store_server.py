"""ClickHouse's HTTP protocol on loopback in front of one `StoreEngine`, run as a process of its own.

``python -m pipeline.embedded.store_server --home DIR --port N --passwords DIR``; the folder has a file for each account
of ``pipeline.clickhouse.accounts``. The operator's password may come in the environment variable
``SLUICE_STORE_PASSWORD`` instead. Serves what `clickhouse-connect`, Grafana's plugin (clickhouse-go over HTTP) and
curl use: https://clickhouse.com/docs/interfaces/http. No account reads files of this machine, or reaches others.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import hmac
import json
import os
import re
import signal
import struct
import sys
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lz4.frame
from aiohttp import web

from pipeline.clickhouse.accounts import NAMES, OPERATOR
from pipeline.clickhouse.native import native_string, varint
from pipeline.embedded.store import PASSWORD_VARIABLE
from pipeline.embedded.store_engine import QueryResult, Statement, StatementError, StoreEngine
from pipeline.errors import ConfigError

BODY_LIMIT = 64 << 20
AT_ONCE = 8
SHUTDOWN_S = 15.0
FORMAT_HEADER = "X-ClickHouse-Format"

# Request parameters that are no settings of the engine; sessions and progress headers have no use here.
_TRANSPORT = frozenset(
    {
        "query",
        "database",
        "default_format",
        "session_id",
        "session_timeout",
        "session_check",
        "query_id",
        "quota_key",
        "wait_end_of_query",
        "client_protocol_version",
        "role",
        "user",
        "password",
        "compress",
        "buffer_size",
        "stacktrace",
        "enable_http_compression",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
    }
)
_STATUS = {
    27: 400,
    33: 400,
    36: 400,
    47: 400,
    62: 400,
    115: 400,
    456: 400,
    60: 404,
    81: 404,
    159: 408,
    164: 403,
    497: 403,
    516: 401,
}
_CONTENT = {"JSON": "application/json", "Tab": "text/tab-separated-values", "CSV": "text/csv", "TSV": "text/plain"}
_QUERY_ID = re.compile(r"[\w.-]{1,64}")
_HELLO = re.compile(rb"\s*SELECT displayName\(\), version\(\), revision\(\), timezone\(\)\s*", re.IGNORECASE)
_HELLO_PROTOCOL = 54454
_NO_PASSWORD = os.urandom(32)
VERSION_QUERY = b"SELECT version(), timezone()"


class StoreServer:
    """One HTTP application over one engine. Changes run one after the other, reads beside them on two threads."""

    def __init__(self, engine: StoreEngine, passwords: Mapping[str, str]) -> None:
        self._engine = engine
        self._passwords = {account: password.encode() for account, password in passwords.items()}
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(2, "store-reader")
        self._places = asyncio.Semaphore(AT_ONCE)

    def application(self) -> web.Application:
        """The routes: ``/ping`` needs no password, ``/`` does."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_get("/ping", self._ping)
        app.router.add_route("*", "/", self._query)
        return app

    def close(self) -> None:
        """Wait for running statements, then close the engine."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._engine.close()

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def _query(self, request: web.Request) -> web.Response:
        query_id = request.query.get("query_id", "")
        if _QUERY_ID.fullmatch(query_id) is None:
            query_id = str(uuid.uuid4())
        headers = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Server-Display-Name": "sluice-store",
            "X-ClickHouse-Timezone": "UTC",
        }
        try:
            account = self._authenticated(request)
            async with self._places:
                answer = await self._answer(request, account)
        except StatementError as error:
            headers["X-ClickHouse-Exception-Code"] = str(error.code)
            if error.code == 516:
                headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
            return web.Response(status=_STATUS.get(error.code, 500), text=f"{error}\n", headers=headers)
        headers["X-ClickHouse-Summary"] = _summary(answer)
        if answer.format:
            headers[FORMAT_HEADER] = answer.format
        kind = next((kind for start, kind in _CONTENT.items() if answer.format.startswith(start)), None)
        return web.Response(body=answer.body, headers=headers, content_type=kind or "application/octet-stream")

    def _authenticated(self, request: web.Request) -> str:
        """Give the account whose password came along. Raises StatementError."""
        user = request.headers.get("X-ClickHouse-User", request.query.get("user", ""))
        password = request.headers.get("X-ClickHouse-Key", request.query.get("password", ""))
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                user = ""
        # Something is always compared, so the time taken tells nothing about which of the two was wrong.
        right = hmac.compare_digest(password.encode(), self._passwords.get(user, _NO_PASSWORD))
        if not right or user not in self._passwords:
            raise StatementError(
                516, "Code: 516. DB::Exception: the user or the password is wrong. (AUTHENTICATION_FAILED)"
            )
        return user

    async def _answer(self, request: web.Request, account: str) -> QueryResult:
        statement = await _statement(request, account)
        if not statement.sql.strip():
            return QueryResult(b"Ok.\n", "TabSeparated")
        loop = asyncio.get_running_loop()
        if _HELLO.fullmatch(statement.sql) and _protocol(request) >= _HELLO_PROTOCOL:
            versions = await loop.run_in_executor(self._readers, self._engine.run, Statement(VERSION_QUERY))
            return _hello(versions)
        # The lane is chosen on the loop: parsing takes microseconds.
        pool = self._writer if self._engine.mutates(statement.sql) else self._readers
        return await loop.run_in_executor(pool, self._engine.run, statement)


async def _statement(request: web.Request, account: str) -> Statement:
    options = dict(request.query)
    body = b""
    if request.content_type == "multipart/form-data":
        for name, value in (await request.post()).items():
            if not isinstance(value, str):
                raise StatementError(48, "Code: 48. DB::Exception: external tables are not served. (NOT_IMPLEMENTED)")
            options[name] = value
    else:
        body = await _body(request)
    if options.pop("decompress", "0") not in ("0", "false"):
        raise StatementError(48, "Code: 48. DB::Exception: use Content-Encoding, not decompress=1. (NOT_IMPLEMENTED)")
    asked = options.get("query", "").encode()
    return Statement(
        sql=asked + b"\n" + body if asked and body else asked or body,
        format=request.headers.get(FORMAT_HEADER, options.get("default_format", "TabSeparated")),
        database=request.headers.get("X-ClickHouse-Database", options.get("database", "")),
        settings={k: v for k, v in options.items() if k not in _TRANSPORT and not k.startswith("param_")},
        parameters={k[6:]: v for k, v in options.items() if k.startswith("param_")},
        read_only=request.method not in ("POST", "PUT"),
        account=account,
    )


async def _body(request: web.Request) -> bytes:
    """The body, unpacked; aiohttp unpacks gzip and deflate itself and bounds what comes out."""
    raw = await request.read()
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding == "lz4":
        unpacker = lz4.frame.LZ4FrameDecompressor()
        try:
            raw = unpacker.decompress(raw, max_length=BODY_LIMIT)
        except RuntimeError as error:
            raise StatementError(432, "Code: 432. DB::Exception: broken lz4 frame. (UNKNOWN_CODEC)") from error
        if not unpacker.eof:
            raise web.HTTPRequestEntityTooLarge(max_size=BODY_LIMIT, actual_size=len(raw) + 1)
    elif encoding not in ("identity", "gzip", "deflate", ""):
        raise web.HTTPUnsupportedMediaType(text="send the body as is, or packed with lz4, gzip or deflate\n")
    return raw


def _protocol(request: web.Request) -> int:
    asked = request.query.get("client_protocol_version", "0")
    return int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 9 else 0


def _hello(versions: QueryResult) -> QueryResult:
    """clickhouse-go's first question, answered as a block of its protocol that states revision 0.

    The engine writes blocks of revision 0; told so, the client reads all later ones as they are.
    """
    version, zone = versions.body.decode().split()
    strings = [("displayName()", "sluice-store"), ("version()", version), ("timezone()", zone)]
    columns = [native_string(name) + native_string("String") + b"\0" + native_string(value) for name, value in strings]
    columns.insert(2, native_string("revision()") + native_string("UInt32") + b"\0" + struct.pack("<I", 0))
    block_info = varint(1) + b"\0" + varint(2) + struct.pack("<i", -1) + varint(0)
    return QueryResult(block_info + varint(4) + varint(1) + b"".join(columns), "Native")


def _summary(answer: QueryResult) -> str:
    counts = {
        "read_rows": answer.rows_read,
        "read_bytes": answer.bytes_read,
        "written_rows": answer.rows_written,
        "written_bytes": answer.bytes_written,
    }
    return json.dumps({name: str(count) for name, count in counts.items()})


async def serve(engine: StoreEngine, port: int, passwords: Mapping[str, str]) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT; running statements are finished first."""
    server = StoreServer(engine, passwords)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        print(f"store ready on 127.0.0.1:{port}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()
        server.close()


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 after a clean stop, 2 for what the operator must mend."""
    parser = argparse.ArgumentParser(prog="store_server", description="the embedded ClickHouse store")
    parser.add_argument("--home", type=Path, required=True, help="folder of the store; one process at a time")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--passwords", type=Path, help="folder of a password file for each account")
    options = parser.parse_args(argv)
    try:
        passwords = _passwords(options.passwords)
        asyncio.run(serve(StoreEngine(options.home), options.port, passwords))
    except (ConfigError, OSError) as error:
        print(f"store: {error}", file=sys.stderr)
        return 2
    return 0


def _passwords(folder: Path | None) -> dict[str, str]:
    """The accounts that have a password; without one nobody gets in under that name."""
    given = {OPERATOR: os.environ.pop(PASSWORD_VARIABLE, "")}
    if folder is not None:
        files = [(name, folder / name) for name in NAMES]
        given |= {name: path.read_text("utf-8").strip() for name, path in files if path.exists()}
    known = {name: password for name, password in given.items() if password}
    if not known:
        raise ConfigError(f"{PASSWORD_VARIABLE} is not set; the store does not start without a password")
    return known


if __name__ == "__main__":
    sys.exit(main())
