"""Makes every Kafka client: consumers, producers, admin clients, and what a Faust app is told of the brokers."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from pipeline.endpoints import KafkaEndpoint
from pipeline.kafka.bounded_batches import bound_consumers
from pipeline.kafka.connections import guard_connections
from pipeline.kafka.security import client_options

bound_consumers()
guard_connections()
REQUEST_TIMEOUT_MS = 10_000
_DURABLE = {"acks": "all", "enable_idempotence": True, "linger_ms": 0, "max_request_size": 2 * 1024 * 1024}


def make_consumer(kafka: KafkaEndpoint, **options: Any) -> AIOKafkaConsumer:
    """Give a consumer that commits nothing by itself; it is not started."""
    return AIOKafkaConsumer(**{**_shared(kafka), "enable_auto_commit": False, **options})


def make_producer(kafka: KafkaEndpoint, **options: Any) -> AIOKafkaProducer:
    """Give a producer whose acknowledgement means that every in-sync replica has the record; it is not started."""
    return AIOKafkaProducer(**{**_shared(kafka), **_DURABLE, **options})


def make_admin(kafka: KafkaEndpoint, **options: Any) -> AIOKafkaAdminClient:
    """Give an admin client; it is not started."""
    return AIOKafkaAdminClient(**{**_shared(kafka), **options})


def faust_options(kafka: KafkaEndpoint) -> dict[str, Any]:
    """Give the options of a Faust app that tell it where the brokers are, and who asks them."""
    options: dict[str, Any] = {"broker": [f"kafka://{server}" for server in kafka.bootstrap.split(",")]}
    # every Kafka client is made here, few of them by Faust
    from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

    proofs = client_options(kafka.security)
    context = proofs.get("ssl_context")
    if "sasl_oauth_token_provider" in proofs:
        tokens = proofs["sasl_oauth_token_provider"]
        options["broker_credentials"] = OAuthCredentials(oauth_cb=tokens, ssl_context=context)
    elif "sasl_mechanism" in proofs:
        options["broker_credentials"] = SASLCredentials(
            username=proofs["sasl_plain_username"],
            password=proofs["sasl_plain_password"],
            ssl_context=context,
            mechanism=proofs["sasl_mechanism"],
        )
    elif context is not None:
        options["broker_credentials"] = SSLCredentials(context)
    return options


def _shared(kafka: KafkaEndpoint) -> dict[str, Any]:
    return {"bootstrap_servers": kafka.bootstrap, **client_options(kafka.security)}
