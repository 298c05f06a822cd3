"""Keys whose bearers write to Kafka themselves: a user at the brokers for each, at the rate of its plan."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control import producers
from pipeline.control.registry import Registry
from pipeline.errors import ConfigError
from pipeline.keys.api_key import kafka_password, parse_key
from pipeline.keys.vault import Vault


async def add_producer_key(
    settings: Settings, hand: Registry, tenant: str, principal: str, days: int = 0, user: str = ""
) -> str:
    """Issue a key whose bearer writes records itself, as ``user``, or under the key's id by a user that is made for it.

    Gives its text once every broker lets it in. Raises ConfigError where no users are made here, Retryable.
    """
    kafka, mechanism = settings.kafka.endpoint, settings.producers_mechanism
    if user:
        producers.require_producer_name(user)
    if kafka.security.protocol == "PLAINTEXT":
        # such brokers ask nobody who it is
        return await hand.add_key(tenant, principal, days)
    if not user:
        producers.require_mechanism(mechanism)
    text = await hand.add_key(tenant, principal, days, user, kafka=True)
    key, secret = parse_key(text)
    password = "" if user else kafka_password(secret)
    rate = producers.producers(hand.control)[user or key]
    try:
        await asyncio.to_thread(producers.admit, kafka, user or key, rate, mechanism, password)
    except ConfigError:
        await hand.revoke_key(key)
        raise
    return text


async def admit_producers(settings: Settings, hand: Registry, vault: Vault) -> None:
    """Let every direct producer in at brokers that know none of them. Errors as ``add_producer_key``."""
    kafka, mechanism = settings.kafka.endpoint, settings.producers_mechanism
    if kafka.security.protocol == "PLAINTEXT":
        return
    for user, rate in producers.producers(hand.control).items():
        password = kafka_password(vault.key_secret(user)) if user in hand.control.keys else ""
        if password:
            producers.require_mechanism(mechanism)
        await asyncio.to_thread(producers.admit, kafka, user, rate, mechanism, password)


async def revoke_key(settings: Settings, hand: Registry, key: str) -> None:
    """Refuse a key from now on, and close the brokers to the user that was its own."""
    document = await hand.revoke_key(key)
    user, kafka = document.kafka_user, settings.kafka.endpoint
    if user and user not in producers.producers(hand.control) and kafka.security.protocol != "PLAINTEXT":
        mechanism = settings.producers_mechanism if user == document.id else ""
        await asyncio.to_thread(producers.dismiss, kafka, user, mechanism)


async def settle_producers(settings: Settings, hand: Registry) -> None:
    """Give every direct producer the rate that its plan has now."""
    if settings.kafka.endpoint.security.protocol != "PLAINTEXT" and producers.producers(hand.control):
        await asyncio.to_thread(producers.settle, settings.kafka.endpoint, hand.control)
