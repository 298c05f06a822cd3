"""Creates and removes the SCRAM users of a cluster (RFC 7677, KIP-554) and limits what they write (KIP-546)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion
from kafka.errors import ClusterAuthorizationFailedError, KafkaError, UnsupportedVersionError, for_code
from kafka.protocol.admin import AlterClientQuotasRequest, AlterUserScramCredentialsRequest

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Retryable
from pipeline.kafka.operator_client import operator_client

MECHANISM = "SCRAM-SHA-512"
MECHANISMS = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, MECHANISM: ScramMechanism.SCRAM_SHA_512}
ITERATIONS = 8192
"""Of the salted password; twice what brokers ask for at least. The passwords are random, so more buys nothing."""
_RATE = "producer_byte_rate"


def put_users(kafka: KafkaEndpoint, passwords: Mapping[str, str], mechanism: str = MECHANISM) -> None:
    """Create users, or change their passwords. Raises ConfigError for a refused operator or where users are not made
    through Kafka, Retryable."""
    made = []
    for user, password in passwords.items():
        one = UserScramCredentialUpsertion(user, MECHANISMS[mechanism], password.encode(), ITERATIONS)
        made.append((one.user, int(one.mechanism), one.iterations, one.salt, one.salted_password))
    _alter(kafka, AlterUserScramCredentialsRequest(deletions=[], upsertions=made))


def drop_users(kafka: KafkaEndpoint, users: Iterable[str], mechanism: str = MECHANISM) -> None:
    """Remove users; their connections end when they next prove who they are. Errors as ``put_users``."""
    kind = MECHANISMS[mechanism]
    with _client(kafka) as client:
        present = client.describe_user_scram_credentials()
    known = {user for user, found in present.items() if any(c["mechanism"] == kind for c in found["credential_infos"])}
    if gone := known & set(users):
        _alter(kafka, AlterUserScramCredentialsRequest(deletions=[(user, int(kind)) for user in gone], upsertions=[]))


def put_quotas(kafka: KafkaEndpoint, rates: Mapping[str, int | None]) -> None:
    """Let each user write so many bytes a second to each broker; None takes the limit away. Errors as ``put_users``."""
    entry = AlterClientQuotasRequest.EntryData
    entries = [
        entry(
            entity=[entry.EntityData(entity_type="user", entity_name=user)],
            ops=[entry.OpData(key=_RATE, value=float(rate or 0), remove=rate is None)],
        )
        for user, rate in rates.items()
    ]
    request = AlterClientQuotasRequest(entries=entries, validate_only=False)
    with _client(kafka) as client:
        # the library has the request, and no method for it
        answer = client._manager.run(client._manager.send, request)
    if faults := [done.error_message or done.error_code for done in answer.entries if done.error_code]:
        raise Retryable(f"limits of users at {kafka.bootstrap} were not changed: {faults}")


def _alter(kafka: KafkaEndpoint, request: AlterUserScramCredentialsRequest) -> None:
    with _client(kafka) as client:
        # the library's own method keeps the brokers' error codes to itself
        for done in client._manager.run(client._manager.send, request).results:
            if done.error_code:
                raise for_code(done.error_code)(f"user {done.user}")


@contextlib.contextmanager
def _client(kafka: KafkaEndpoint) -> Iterator[KafkaAdminClient]:
    """Give a client that may change users and limits."""
    client = operator_client(kafka)
    try:
        yield client
    except (UnsupportedVersionError, ClusterAuthorizationFailedError) as error:
        raise ConfigError(
            f"the brokers at {kafka.bootstrap} let user {kafka.security.user!r} make no users "
            f"({type(error).__name__}): expected an operator's user, and a service that makes users through Kafka. "
            "Elsewhere make one user for each tenant by the service's own interface, or a certificate (mutual TLS) or "
            "an OAUTHBEARER principal, and name it: sluice key add TENANT PRINCIPAL --kafka-user NAME"
        ) from error
    except KafkaError as error:
        raise Retryable(f"the users at {kafka.bootstrap} were not changed: {error!r}") from error
    finally:
        client.close()
