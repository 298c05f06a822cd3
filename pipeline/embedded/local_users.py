"""The users of the embedded brokers: a password each, in a file of its own, and what a stage's process is told."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from pipeline.embedded.broker_config import BROKER, BrokerAccess
from pipeline.endpoints import KafkaEndpoint
from pipeline.topics import GROUPS, OPERATOR

MECHANISM = "SCRAM-SHA-512"
USERS = (*GROUPS, OPERATOR)
_NEXT = ".next"


class LocalUsers:
    """``folder`` holds a file for each user, mode 0600.

    A password that the brokers may not have yet lies in ``USER.next``, and is renamed once they have it; so a start
    that was cut off goes on where it stopped.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def access(self) -> BrokerAccess:
        """Give what the brokers are told of their users; passwords that are missing are made."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.password_file(BROKER).exists():
            _write(self.password_file(BROKER), secrets.token_urlsafe(24))
        users = {user: self._password(user) for user in USERS}
        return BrokerAccess(self.password_file(BROKER).read_text("utf-8"), users[OPERATOR], users=tuple(users.items()))

    def password_file(self, user: str) -> Path:
        return self._folder / user

    def unknown(self, users: Iterable[str] = USERS) -> list[str]:
        """Give the users that the brokers may not know."""
        return [user for user in users if not self.password_file(user).exists()]

    def settle(self, users: Iterable[str]) -> None:
        """Note that the brokers know these."""
        for user in users:
            self._next(user).rename(self.password_file(user))

    def introduce(self, kafka: KafkaEndpoint, users: Iterable[str] = USERS) -> None:
        """Make the users that the brokers may not know; ``kafka`` is the operator's. Raises Retryable."""
        # the operator's client takes a while to import, and a start may not need it
        from pipeline.kafka.users import put_users

        if unknown := self.unknown(users):
            put_users(kafka, {user: self._password(user) for user in unknown})
            self.settle(unknown)

    def introduce_again(self, kafka: KafkaEndpoint, user: str) -> None:
        """Make a user that has a password here while the brokers may have begun anew. Raises Retryable."""
        from pipeline.kafka.users import put_users

        put_users(kafka, {user: self._password(user)})
        self.settle(self.unknown([user]))

    def environment(self, user: str) -> dict[str, str]:
        """Give the settings by which a process is this user."""
        return {
            "SLUICE_KAFKA__SASL_MECHANISM": MECHANISM,
            "SLUICE_KAFKA__USER": user,
            "SLUICE_KAFKA__PASSWORD_FILE": str(self.password_file(user)),
        }

    def _password(self, user: str) -> str:
        for path in (self.password_file(user), self._next(user)):
            if path.exists():
                return path.read_text("utf-8")
        password = secrets.token_urlsafe(24)
        _write(self._next(user), password)
        return password

    def _next(self, user: str) -> Path:
        return self._folder / f"{user}{_NEXT}"


def _write(path: Path, password: str) -> None:
    """Write it whole or not at all: a half-written one would lock its user out."""
    partial = path.with_name(f"{path.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(password)
    partial.replace(path)
