"""Makes the operator's Kafka client: blocking, and able to set ACLs, users and quotas, which aiokafka's is not."""

from __future__ import annotations

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, SaslAuthenticationFailedError
from kafka.net.sasl.oauth import AbstractTokenProvider

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Retryable
from pipeline.kafka.security import CommandTokens, client_options, refused

BOOTSTRAP_MS = 10_000


class OperatorTokens(AbstractTokenProvider):  # type: ignore[misc]
    """The operator's commands ask for bearer tokens, and may wait for them."""

    def __init__(self, tokens: CommandTokens) -> None:
        self._tokens = tokens

    def token(self) -> str:
        """Give a token. Raises Retryable."""
        return self._tokens.token()


def operator_client(kafka: KafkaEndpoint, timeout_ms: int = BOOTSTRAP_MS) -> KafkaAdminClient:
    """Give a connected client; ``close`` it. Raises ConfigError for a refused login, Retryable without an answer."""
    options = client_options(kafka.security, OperatorTokens)
    servers = kafka.bootstrap.split(",")
    try:
        return KafkaAdminClient(bootstrap_servers=servers, bootstrap_timeout_ms=timeout_ms, **options)
    except SaslAuthenticationFailedError:
        raise ConfigError(refused(kafka)) from None
    except (KafkaError, OSError) as error:
        raise Retryable(f"no Kafka broker answered at {kafka.bootstrap}: {type(error).__name__}") from error


def live_brokers(kafka: KafkaEndpoint, timeout_ms: int) -> set[int]:
    """Give the node ids of the brokers that are in the cluster now. Errors as ``operator_client``."""
    client = operator_client(kafka, timeout_ms)
    try:
        return {broker["broker_id"] for broker in client.describe_cluster()["brokers"]}
    except KafkaError as error:
        raise Retryable(f"the brokers at {kafka.bootstrap} did not say who they are: {error!r}") from error
    finally:
        client.close()
