"""Creates and removes the SCRAM users of a cluster (RFC 5802, RFC 7677; KIP-554)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kafka.admin import ScramMechanism, UserScramCredentialDeletion, UserScramCredentialUpsertion
from kafka.errors import KafkaError

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable
from pipeline.kafka.operator_client import operator_client

MECHANISM = "SCRAM-SHA-512"
_MECHANISM = ScramMechanism.SCRAM_SHA_512
ITERATIONS = 8192
"""Of the salted password; twice what brokers ask for at least. The passwords are random, so more buys nothing."""


def put_users(kafka: KafkaEndpoint, passwords: Mapping[str, str]) -> None:
    """Create users, or change their passwords. Raises ConfigError for a refused operator, Retryable."""
    _alter(
        kafka,
        [UserScramCredentialUpsertion(user, _MECHANISM, pw.encode(), ITERATIONS) for user, pw in passwords.items()],
    )


def drop_users(kafka: KafkaEndpoint, users: Iterable[str]) -> None:
    """Remove users that exist; their connections end when they next prove who they are. Errors as ``put_users``."""
    _alter(kafka, [UserScramCredentialDeletion(user, _MECHANISM) for user in users])


def _alter(kafka: KafkaEndpoint, alterations: list[UserScramCredentialUpsertion | UserScramCredentialDeletion]) -> None:
    client = operator_client(kafka)
    try:
        faults = {user: fault for user, fault in client.alter_user_scram_credentials(alterations).items() if fault}
    except KafkaError as error:
        raise Retryable(f"the users at {kafka.bootstrap} were not changed: {error!r}") from error
    finally:
        client.close()
    if faults:
        raise Retryable(f"users at {kafka.bootstrap} were not changed: {faults}")
