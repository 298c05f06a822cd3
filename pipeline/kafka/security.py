"""Tells a Kafka client how to prove who it is (SASL, RFC 4422; SCRAM, RFC 7677; TLS), and whom to believe."""

from __future__ import annotations

import asyncio
import shlex
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from pipeline.endpoints import KafkaEndpoint, KafkaSecurity
from pipeline.errors import ConfigError, Retryable

TOKEN_S = 60.0
"""A token is asked for again after this long; services issue them for at least five minutes."""
_COMMAND_S = 30.0
_MAX_TOKEN = 1 << 16
_LOGIN_MS = 10_000


class CommandTokens:
    """Bearer tokens (RFC 6750) come from a command that prints one. Safe to share between threads."""

    def __init__(self, command: str) -> None:
        self._argv = shlex.split(command)
        self._lock = threading.Lock()
        self._token = ""
        self._asked = -TOKEN_S

    def token(self) -> str:
        """Give a token that was issued less than a minute ago. Raises Retryable where the command gives none."""
        with self._lock:
            if time.monotonic() - self._asked >= TOKEN_S:
                self._token, self._asked = self._ask(), time.monotonic()
            return self._token

    def _ask(self) -> str:
        command = f"kafka.token_command {self._argv[0]}"
        try:
            done = subprocess.run(
                self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_COMMAND_S, check=False
            )
        except OSError as error:
            raise Retryable(f"{command}: could not be run: {error.strerror}") from error
        except subprocess.TimeoutExpired:
            raise Retryable(f"{command}: no token within {_COMMAND_S:.0f} s") from None
        token = done.stdout.decode("ascii", "replace").strip()
        if done.returncode or not token or len(token) > _MAX_TOKEN:
            raise Retryable(
                f"{command}: expected one token, got {len(token)} characters and exit status {done.returncode}"
            )
        return token


class StageTokens(AbstractTokenProvider):  # type: ignore[misc]
    """A stage's clients ask for tokens without stopping their loop."""

    def __init__(self, tokens: CommandTokens) -> None:
        self._tokens = tokens

    async def token(self) -> str:
        """Give a token. Raises Retryable."""
        return await asyncio.to_thread(self._tokens.token)


async def require_login(kafka: KafkaEndpoint) -> None:
    """Show the brokers' first answer who asks. Raises ConfigError where it is a refusal, or their certificate is not
    believed; returns where one of them let us in, or none answered at all."""
    options = client_options(kafka.security)
    for server in kafka.bootstrap.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            connection = await create_conn(host, int(port), request_timeout_ms=_LOGIN_MS, **options)
        except (SaslAuthenticationFailed, AuthenticationFailedError, UnsupportedSaslMechanismError) as error:
            raise ConfigError(refused(kafka)) from error
        except ssl.SSLCertVerificationError as error:
            raise ConfigError(
                f"the certificate of the Kafka broker at {server} is not believed: {error.verify_message}. "
                "Set kafka.ca_file to the authority that signed it, and kafka.bootstrap to the name it bears."
            ) from error
        except (KafkaError, OSError, ValueError):
            continue
        connection.close()
        return


def refused(kafka: KafkaEndpoint) -> str:
    """Say that the brokers do not believe who asks, and what to look at. Never shows the password."""
    security = kafka.security
    return (
        f"the Kafka brokers at {kafka.bootstrap} refused user {security.user!r} ({security.protocol}, "
        f"{security.mechanism or 'no SASL'}). Check kafka.user, kafka.password_file and kafka.sasl_mechanism."
    )


def client_options(security: KafkaSecurity, tokens: Callable[[CommandTokens], Any] = StageTokens) -> dict[str, Any]:
    """Give the options of a client; aiokafka's and kafka-python's have the same names.

    ``tokens`` makes the library's own kind of token provider. Raises ConfigError for a certificate that cannot be read.
    """
    options: dict[str, Any] = {"security_protocol": security.protocol}
    if security.protocol.endswith("SSL"):
        options["ssl_context"] = tls_context(security)
    if security.protocol.startswith("SASL"):
        options["sasl_mechanism"] = security.mechanism
        if security.mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = tokens(CommandTokens(security.token_command))
        else:
            options["sasl_plain_username"] = security.user
            options["sasl_plain_password"] = security.password
    return options


def tls_context(security: KafkaSecurity) -> ssl.SSLContext:
    """Give the context of a TLS client that checks the brokers' names. Raises ConfigError, naming the setting."""
    setting = "ca_file"
    try:
        context = ssl.create_default_context(cafile=security.ca_file or None)
        if security.certificate_file:
            setting = "certificate_file"
            context.load_cert_chain(security.certificate_file, security.key_file or None)
    except OSError as error:
        path = getattr(security, setting)
        raise ConfigError(f"kafka.{setting}: expected a PEM file, got {path}: {error.strerror or error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
