"""Settings by which a process reaches Kafka and the store, and proves to them who it is."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from pipeline.endpoints import ClickHouseEndpoint, KafkaEndpoint, KafkaSecurity
from pipeline.errors import ConfigError


class Section(BaseModel):
    """One section of the settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(Section):
    """The brokers."""

    bootstrap: str = Field(
        "127.0.0.1:9092",
        description="host:port of one or more brokers, by comma; trusted: who can write its topics can decide",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; one with SSL wherever not on loopback"
    )
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "", description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, where security_protocol has SASL"
    )
    user: str = Field("", description="name of this process at the brokers (PLAIN, SCRAM)")
    password_file: str = Field("", description="file with its password, and nothing else (PLAIN, SCRAM)")
    token_command: str = Field("", description="command that prints a bearer token (OAUTHBEARER)")
    ca_file: str = Field("", description="PEM file of the authorities that may name brokers; empty: the system's")
    certificate_file: str = Field("", description="PEM file of this process's certificate, for mutual TLS")
    key_file: str = Field("", description="PEM file of that certificate's key; empty: it is in the same file")
    partitions: int = Field(
        4, ge=1, le=4096, description="partitions of each main topic in a new deployment; pinned afterwards"
    )
    replication: int = Field(1, ge=1, le=9, description="copies of each partition; 3 in production")
    instance: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="this process's name among those of its stage; back under it, it has its partitions at "
        "once; empty: none",
    )

    @property
    def endpoint(self) -> KafkaEndpoint:
        """Clients of Kafka are made from this. Raises ConfigError where the password cannot be read."""
        password = read_secret("kafka.password_file", self.password_file) if self.password_file else ""
        return KafkaEndpoint(
            self.bootstrap,
            KafkaSecurity(
                self.security_protocol,
                self.sasl_mechanism,
                self.user,
                password,
                self.token_command,
                self.ca_file,
                self.certificate_file,
                self.key_file,
            ),
        )

    @model_validator(mode="after")
    def _provable(self) -> Kafka:
        """Refuse what would leave a client without a proof, or a proof without a use."""
        sasl = self.security_protocol.startswith("SASL")
        wanted = {"sasl_mechanism": sasl}
        wanted["token_command"] = sasl and self.sasl_mechanism == "OAUTHBEARER"
        wanted["user"] = wanted["password_file"] = sasl and not wanted["token_command"]
        for name, needed in wanted.items():
            if bool(getattr(self, name)) != needed:
                use = f"security_protocol {self.security_protocol} {self.sasl_mechanism}".strip()
                raise ValueError(f"{use} {'needs' if needed else 'has no use for'} {name}")
        if self.certificate_file and not self.security_protocol.endswith("SSL"):
            raise ValueError(f"security_protocol {self.security_protocol} has no use for certificate_file")
        return self


class ClickHouse(Section):
    """The store of the sealed log."""

    url: str = Field(
        "http://127.0.0.1:8123",
        description="HTTP endpoint; not trusted: sluice audit verify recomputes what it holds",
    )
    user: str = Field("sluice", description="account of this process, as in: sluice tables accounts list")
    password: SecretStr = Field(SecretStr(""), description="secret; from the environment, not the file")
    password_file: str = Field("", description="file with its password, and nothing else; instead of password")
    password_folder: str = Field(
        "",
        description="folder with a password file for each account; a command then uses the account made for what it "
        "does, not user",
    )
    ca_file: str = Field("", description="PEM file of the authorities that may name the store; empty: the system's")
    database: str = Field("sluice", description="database that holds them")

    @property
    def endpoint(self) -> ClickHouseEndpoint:
        """Clients of the store are made from this. Raises ConfigError where the password cannot be read."""
        password = self.password.get_secret_value()
        if self.password_file:
            password = read_secret("clickhouse.password_file", self.password_file)
        elif self.password_folder and not password:
            return self.account(self.user)
        return ClickHouseEndpoint(self.url, self.user, password, self.database, self.ca_file)

    def account(self, name: str) -> ClickHouseEndpoint:
        """Clients that act under one account are made from this; without a folder of accounts it is ``user``."""
        if not self.password_folder:
            return self.endpoint
        password = read_secret("clickhouse.password_folder", str(Path(self.password_folder) / name))
        return ClickHouseEndpoint(self.url, name, password, self.database, self.ca_file)

    @model_validator(mode="after")
    def _one_password(self) -> ClickHouse:
        """Refuse two passwords, of which one would be passed over."""
        if self.password_file and self.password.get_secret_value():
            raise ValueError("expected password or password_file, got both")
        return self


class Status(Section):
    """The port on which each process tells of itself."""

    host: str = Field("127.0.0.1", description="address of /livez, /readyz and /metrics; off loopback with token_file")
    port: int = Field(0, ge=0, le=65535, description="TCP port of /livez, /readyz and /metrics; 0: none")
    token_file: str = Field(
        "", description="file with the token that /metrics, and the faults in /readyz, ask for as a bearer; empty: none"
    )

    @model_validator(mode="after")
    def _guarded(self) -> Status:
        if self.port and not self.token_file and not is_loopback(self.host):
            raise ValueError(f"host {self.host} is not on loopback and needs token_file")
        return self


def is_loopback(host: str) -> bool:
    """Tell whether nothing beyond this machine reaches a host."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def read_secret(setting: str, path: str, what: str = "password") -> str:
    """Read a secret from a file, or a descriptor as /dev/fd/N. Raises ConfigError; the text never shows in it."""
    try:
        text = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{setting}: expected a file with a {what}, got {path}: {cause}") from None
    if not text:
        raise ConfigError(f"{setting}: expected a file with a {what}, got an empty one: {path}")
    return text
