"""Keys whose bearers write to Kafka themselves: who they are at the brokers, and how much they may write."""

from __future__ import annotations

import json

import pytest

from pipeline.control import producers
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError
from pipeline.events.control import AnyDocument, Control, Key, Plan, Principal, Tenant, parse
from pipeline.topics import acl_rules, producer_rule


def control(*keys: Key) -> Control:
    made = Control()
    plans = [Plan(id="small", kafka_bytes_per_s=4096), Plan(id="large", kafka_bytes_per_s=8192)]
    tenants = [
        Tenant(id=name, organisation=name, plan=plan, data_key="x", hpke_public="x", hpke_private="x")
        for name, plan in (("acme", "small"), ("globex", "large"))
    ]
    people = [Principal(id=f"{tenant.id}-app", tenant=tenant.id) for tenant in tenants]
    documents: list[AnyDocument] = [*plans, *tenants, *people, *keys]
    for version, document in enumerate(documents):
        made.apply(version, document)
    return made


def key(name: str, principal: str = "acme-app", **fields: object) -> Key:
    return Key(id=name, principal=principal, secret="x", **{"kafka_user": name, **fields})  # type: ignore[arg-type]


def test_keys_in_force_write_at_the_rate_of_their_plan() -> None:
    given = control(
        key("k1"),
        key("k2", "globex-app"),
        key("k3", status="revoked"),
        key("k4", expires=1),
        key("k5", kafka_user=""),
    )
    assert producers.producers(given) == {"k1": 4096, "k2": 8192}


def test_a_user_of_several_keys_has_the_largest_of_their_rates() -> None:
    given = control(key("k1", kafka_user="CN=app"), key("k2", "globex-app", kafka_user="CN=app"))
    assert producers.producers(given) == {"CN=app": 8192}


def test_a_producer_may_write_requests_and_nothing_else() -> None:
    mine = [rule for rule in acl_rules(producers=["k1"]) if rule.principal == "k1"]
    assert mine == [producer_rule("k1")]
    assert mine[0][1:4] == ("Write", "topic", "requests")


@pytest.mark.parametrize("mechanism", ["", "PLAIN", "OAUTHBEARER"])
def test_users_can_be_made_for_scram_alone(mechanism: str) -> None:
    with pytest.raises(ConfigError, match=r"expected gateway\.advertised_mechanism .* SCRAM-SHA-256 or SCRAM-SHA-512"):
        producers.require_mechanism(mechanism)


def test_builds_before_read_documents_that_say_nothing_of_brokers() -> None:
    plain, direct = key("k1", kafka_user=""), key("k1")
    assert "kafka_user" not in json.loads(plain.model_dump_json())
    assert "kafka_bytes_per_s" not in json.loads(Plan(id="p").model_dump_json())
    assert [parse(one.model_dump_json().encode()) for one in (plain, direct)] == [plain, direct]
    assert json.loads(direct.model_dump_json())["kafka_user"] == "k1"


@pytest.mark.parametrize("user", ["admit", "operator", "broker", "generate-acme", "*"])
def test_a_key_that_names_a_stage_or_everybody_gives_and_takes_no_rights(user: str) -> None:
    assert producers.producers(control(key("k1", kafka_user=user))) == {}
    with pytest.raises(ConfigError, match="a name of the producer's own"):
        producers.dismiss(KafkaEndpoint("127.0.0.1:1"), user)
