"""Lets direct producers in at the brokers, each key under a user of its own, and out again."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from kafka.protocol.admin import DescribeUserScramCredentialsRequest

from pipeline.clock import now_ms
from pipeline.control import acl
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Retryable
from pipeline.events.control import Control, Key
from pipeline.kafka.operator_client import operator_client
from pipeline.kafka.users import MECHANISMS, drop_users, put_quotas, put_users
from pipeline.retry import retry_blocking
from pipeline.topics import GROUPS, OPERATOR, producer_rule

_EVERYWHERE_S = 30.0
_OURS = (*GROUPS, OPERATOR, "broker")


def reserved(user: str) -> bool:
    """Tell whether a stage or an operator may have this name; ``*`` stands for everybody."""
    return user in _OURS or user.startswith("generate-") or "*" in user


def require_producer_name(user: str) -> None:
    """Raise ConfigError for a name that a stage or an operator has, or that cannot be one."""
    if reserved(user):
        raise ConfigError(f"--kafka-user: expected a name of the producer's own, got {user!r}, which a stage may have")
    if not user or len(user) > 255 or not user.isprintable():
        raise ConfigError(f"--kafka-user: expected 1 to 255 printable characters, got {user[:40]!r}")


def require_mechanism(mechanism: str) -> None:
    """Raise ConfigError where the producers' mechanism has no users that could be made."""
    if mechanism not in MECHANISMS:
        raise ConfigError(
            f"--kafka: expected gateway.advertised_mechanism (or kafka.sasl_mechanism) SCRAM-SHA-256 or SCRAM-SHA-512, "
            f"got {mechanism or 'none'}; set it, or name the producer's own principal with --kafka-user"
        )


def admit(kafka: KafkaEndpoint, user: str, bytes_per_s: int, mechanism: str = "", password: str = "") -> None:
    """Let ``user`` write requests at so many bytes a second; made first where there is a ``password``.

    Returns when every broker knows of it. Raises ConfigError where no users are made here, Retryable.
    """
    if password:
        put_users(kafka, {user: password}, mechanism)
    put_quotas(kafka, {user: bytes_per_s})
    acl.grant(kafka, [producer_rule(user)])
    _await_everywhere(kafka, user, mechanism if password else "")


def dismiss(kafka: KafkaEndpoint, user: str, mechanism: str = "") -> None:
    """Take a producer's rights away, its user too where it has one of ``mechanism``. Errors as ``admit``.

    A document may name a stage: whoever signs keys must not take a stage's rights by it.
    """
    require_producer_name(user)
    acl.withdraw(kafka, user)
    put_quotas(kafka, {user: None})
    if mechanism:
        drop_users(kafka, [user], mechanism)


def settle(kafka: KafkaEndpoint, control: Control) -> None:
    """Give every direct producer the rate of its plan as it is now. Errors as ``admit``."""
    rates = producers(control)
    if rates:
        put_quotas(kafka, dict(rates))


def producers(control: Control) -> dict[str, int]:
    """Give the users of keys in force that write records themselves, and the bytes a second of their plans."""
    rates: dict[str, int] = {}
    for key in _in_force(control.keys.values()):
        principal = control.principals.get(key.principal)
        tenant = control.tenants.get(principal.tenant) if principal else None
        plan = control.plans.get(tenant.plan) if tenant else None
        if plan is not None:
            rates[key.kafka_user] = max(rates.get(key.kafka_user, 0), plan.kafka_bytes_per_s)
    return rates


def _in_force(keys: Iterable[Key]) -> list[Key]:
    now = now_ms()
    named = [key for key in keys if key.kafka_user and not reserved(key.kafka_user)]
    return [key for key in named if key.status == "active" and not 0 < key.expires <= now]


def _await_everywhere(kafka: KafkaEndpoint, user: str, mechanism: str) -> None:
    """Wait until each broker would let the user in and write. Raises Retryable."""
    client = operator_client(kafka)
    try:
        for broker in client.describe_cluster()["brokers"]:
            node = broker["broker_id"]
            ask = functools.partial(_require_known, client, node, user, mechanism)
            retry_blocking(ask, _EVERYWHERE_S, f"broker {node} to know {user}")
    except KafkaError as error:
        raise Retryable(f"the brokers at {kafka.bootstrap} did not say whether they know {user}: {error!r}") from error
    finally:
        client.close()


def _require_known(client: KafkaAdminClient, node: int, user: str, mechanism: str) -> None:
    """Ask one broker, which answers from what it has itself. Raises Retryable."""
    known = acl.holds(client, node, producer_rule(user))
    if mechanism and known:
        request = DescribeUserScramCredentialsRequest(users=[(user,)])
        [told] = client._manager.run(client._manager.send, request, node).results
        known = any(info.mechanism == MECHANISMS[mechanism] for info in told.credential_infos)
    if not known:
        raise Retryable(f"broker {node} does not know {user} yet")
