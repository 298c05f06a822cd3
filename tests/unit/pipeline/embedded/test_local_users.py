"""Passwords of the embedded brokers' users: private files, made once, and never lost between file and broker."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

import pipeline.kafka.users
from pipeline.embedded.broker_config import BrokerSettings, broker_config
from pipeline.embedded.local_users import MECHANISM, USERS, LocalUsers
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable
from pipeline.topics import GROUPS

KAFKA = KafkaEndpoint("127.0.0.1:1")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What brokers were told."""
    told: dict[str, str] = {}

    def put_users(kafka: KafkaEndpoint, passwords: Mapping[str, str], mechanism: str = MECHANISM) -> None:
        told.update(passwords)

    monkeypatch.setattr(pipeline.kafka.users, "put_users", put_users)
    return told


def test_every_stage_and_the_operator_has_a_password_of_its_own_that_others_cannot_read(tmp_path: Path) -> None:
    folder = tmp_path / "kafka"
    access = LocalUsers(folder).access()
    assert {user for user, _ in access.users} == {*GROUPS, "operator"}
    passwords = [password for _, password in access.users] + [access.broker_password]
    assert len(set(passwords)) == len(passwords)
    assert min(map(len, passwords)) >= 32
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert all(password not in repr(access) for password in passwords)


def test_a_password_counts_once_the_brokers_have_it(tmp_path: Path, made: dict[str, str]) -> None:
    first = LocalUsers(tmp_path)
    given = dict(first.access().users)
    assert first.unknown() == list(USERS)
    again = LocalUsers(tmp_path)
    assert dict(again.access().users) == given
    again.introduce(KAFKA)
    assert made == given
    assert again.unknown() == []
    made.clear()
    again.introduce(KAFKA)
    assert made == {}
    assert {user: (tmp_path / user).read_text() for user in USERS} == given


def test_brokers_that_did_not_answer_are_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put_users(*_: object) -> None:
        raise Retryable("no broker")

    monkeypatch.setattr(pipeline.kafka.users, "put_users", put_users)
    users = LocalUsers(tmp_path)
    users.access()
    with pytest.raises(Retryable):
        users.introduce(KAFKA)
    assert users.unknown() == list(USERS)


def test_a_process_is_told_a_file_and_no_password(tmp_path: Path) -> None:
    users = LocalUsers(tmp_path)
    passwords = dict(users.access().users)
    told = users.environment("admit")
    assert told["SLUICE_KAFKA__USER"] == "admit"
    assert told["SLUICE_KAFKA__PASSWORD_FILE"] == str(tmp_path / "admit")
    assert passwords["admit"] not in str(told)


def test_producers_have_a_listener_and_a_mechanism_of_their_own(tmp_path: Path) -> None:
    access = LocalUsers(tmp_path).access()
    told = broker_config(BrokerSettings(tmp_path, tmp_path, 1, 2, access=access, producers_port=3))
    assert told["listeners"] == "CLIENT://127.0.0.1:1,PRODUCERS://127.0.0.1:3,CONTROLLER://127.0.0.1:2"
    mechanisms = [set(told[f"listener.name.{name}.sasl.enabled.mechanisms"].split(",")) for name in
                  ("client", "producers", "controller")]  # fmt: skip
    assert mechanisms == [{"PLAIN", "SCRAM-SHA-512"}, {"SCRAM-SHA-256"}, {"PLAIN"}]
    assert int(told["listener.name.producers.scram-sha-256.connections.max.reauth.ms"]) <= 60_000
    assert "PLAINTEXT" not in told["listener.security.protocol.map"].replace("SASL_PLAINTEXT", "")
    assert told["allow.everyone.if.no.acl.found"] == "false"
