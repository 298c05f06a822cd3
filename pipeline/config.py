"""Settings of every process: one frozen tree from a TOML file and the environment, unknown keys refused.

``SLUICE_SECTION__FIELD`` overrides ``[section] field`` of the file. Only this module reads the environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from pipeline.errors import ConfigError
from pipeline.sections import ClickHouse, Kafka, Section, Status, read_secret

PREFIX = "SLUICE_"
Port = Annotated[int, Field(ge=1, le=65535)]


class Keys(Section):
    """The secrets of a stage, in files."""

    home: Path = Field(
        Path(".sluice/keys"),
        description="folder of keyring.json, log-key.json, watermark.key, worker.pem, roots, operators; mode 0700; its "
        "reader can read every tenant's texts and sign the log",
    )
    deployment: str = Field(
        "",
        pattern=r"^([0-9a-f]{64})?$",
        description="digest of the first deployment document, by which control is trusted; empty: the one in the file "
        "deployment of the folder",
    )
    operator: str = Field(
        "operator",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        description="operator whose key signs what commands write: operators/NAME.pem in the folder",
    )

    @property
    def pin(self) -> str:
        """Digest of the first deployment document; empty where neither the setting nor the file says it."""
        try:
            return self.deployment or self.pin_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    @property
    def pin_file(self) -> Path:
        return self.home / "deployment"

    @property
    def roots(self) -> Path:
        """Folder of the roots' signing keys, as far as they are on this machine."""
        return self.home / "roots"

    @property
    def operators(self) -> Path:
        """Folder of operators' signing keys."""
        return self.home / "operators"

    @property
    def keyring(self) -> Path:
        return self.home / "keyring.json"

    @property
    def log_key(self) -> Path:
        return self.home / "log-key.json"

    @property
    def worker_key(self) -> Path:
        return self.home / "worker.pem"

    @property
    def watermark_key(self) -> Path:
        return self.home / "watermark.key"


class Gateway(Section):
    """The HTTP server."""

    host: str = Field(
        "127.0.0.1", description="address to listen on; loopback or a private network without certificate_file"
    )
    certificate_file: str = Field(
        "",
        description="PEM file of the certificate to serve HTTPS under, read again when it changes; empty: plain HTTP",
    )
    key_file: str = Field("", description="PEM file of that certificate's key; empty: it is in the same file")
    port: Port = Field(8080, description="TCP port to listen on")
    lane: int = Field(0, ge=0, description="partition of responses that this gateway reads; one each")
    advertised_bootstrap: str = Field(
        "", description="host:port of the brokers told to direct producers, by comma; empty: kafka.bootstrap"
    )
    advertised_protocol: Literal["", "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "", description="security protocol told to them; empty: kafka.security_protocol"
    )
    advertised_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "", description="SASL mechanism told to them, in which key add --kafka makes users; empty: kafka.sasl_mechanism"
    )
    connections: int = Field(
        12_000, ge=16, description="open connections at most; beyond them those that wait longest are closed"
    )
    address_connections: int = Field(
        4_000, ge=1, description="of them from one address (IPv6: one /64); behind a proxy as many as connections"
    )


class Admit(Section):
    """The stage that decides."""

    snapshot_every: int = Field(
        20_000, ge=100, description="records of decisions between two snapshots of the ledger, more where it is large"
    )


class Generate(Section):
    """The worker that runs the model."""

    model: str = Field(
        "glossary",
        description="'glossary' (ships with the project, kept encrypted in the registry), 'echo', a signed model "
        "folder, registry:MODEL (by its shares of traffic) or registry:MODEL@VERSION",
    )
    allow_unsigned: bool = Field(
        False, description="serve a model folder without a signature, trusting whoever can write it (development)"
    )
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d{1,2})?)$", description="cpu, cuda or cuda:N")
    threads: int = Field(1, ge=1, le=256, description="threads of the arithmetic on the CPU")
    upstream: str = Field(
        "",
        pattern=r"^(https?://\S{1,500})?$",
        description="a server of OpenAI's chat completions, such as vLLM, up to /v1; generate.model is its "
        "model there; it sees every prompt of this worker",
    )
    upstream_key_file: str = Field("", description="file with its API key, and nothing else; empty: none is sent")
    upstream_context: int = Field(4096, ge=16, le=2**24, description="tokens that its model reads and writes at most")
    batch: int = Field(16, ge=1, le=1024, description="requests that run together at most")
    watermark: bool = Field(True, description="mark sampled answers with the tenant's key, so that a copy is traced")
    unmarked: str = Field("", description="tenants, by comma, that opted out of the mark; their records say so")
    pool: str = Field(
        "",
        pattern=r"^([a-z0-9][a-z0-9._-]{0,62})?$",
        description="the isolated tenant that this worker is for alone; empty: one of the shared workers",
    )
    fingerprints: bool = Field(
        True, description="keep keyed fingerprints of each answer on its record, so that a copy is traced"
    )
    protected: str = Field(
        "", description="files and folders (.txt, .md), by comma, whose text must not be recited in answers"
    )
    echo_delay_ms: int = Field(0, ge=0, le=10_000, description="milliseconds per token of the echo engine")


class Models(Section):
    """The registry of signed models."""

    home: Path = Field(
        Path(".sluice/models"),
        description="folder of the model registry, its floors and access.toml; its writer can roll out and export",
    )
    trust: str = Field(
        "",
        description="file of public keys (PEM) that may sign models; their owners decide what is served; "
        "empty: those of the release",
    )
    require: str = Field(
        "ed25519,ml-dsa-65",
        pattern=r"^(rsa-pss-3072|ed25519|ml-dsa-65)(,(rsa-pss-3072|ed25519|ml-dsa-65))*$",
        description="algorithms that must each have signed a model: rsa-pss-3072, ed25519, ml-dsa-65",
    )


class Seal(Section):
    """The stage that signs the log."""

    batch: int = Field(16_384, ge=1, le=16_384, description="records of one sealed batch at most")
    interval_ms: int = Field(
        1000, ge=10, le=60_000, description="milliseconds after which a batch closes at the latest"
    )


class Notify(Section):
    """The stage that sends alerts."""

    allow_private: bool = Field(
        False,
        description="deliver to loopback and private addresses, trusting who sets webhooks with this network "
        "(development)",
    )
    timeout_s: float = Field(15.0, gt=0, le=60, description="seconds that one attempt may take in all")


class Settings(Section):
    """The whole tree, one section for each part."""

    kafka: Kafka = Kafka()
    clickhouse: ClickHouse = ClickHouse()
    keys: Keys = Keys()
    status: Status = Status()
    gateway: Gateway = Gateway()
    admit: Admit = Admit()
    generate: Generate = Generate()
    models: Models = Models()
    seal: Seal = Seal()
    notify: Notify = Notify()

    @property
    def producers_mechanism(self) -> str:
        """The SASL mechanism of direct producers."""
        return self.gateway.advertised_mechanism or self.kafka.sasl_mechanism


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. Raises ConfigError naming file and line, or the variable."""
    environ = os.environ if environ is None else environ
    text, tree = "", dict[str, Any]()
    if path is not None:
        try:
            text = path.read_text("utf-8")
            tree = tomllib.loads(text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: expected a TOML file, got: {error}; mend it, or give another") from error
    known, variables = known_environment(), dict[str, str]()
    for name, value in environ.items():
        if name.startswith(PREFIX) and "__" in name:
            if name not in known:
                raise ConfigError(f"environment variable {name}: no such setting; known ones: sluice config")
            section, field = known[name].split(".")
            variables[known[name]] = name
            tree.setdefault(section, {})[field] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(_fault(e, path, text, variables) for e in error.errors()[:5])) from None


def default_home(environ: Mapping[str, str] | None = None) -> Path:
    """Folder of the embedded stack: ``SLUICE_HOME``, else one under the user's data folder."""
    environ = os.environ if environ is None else environ
    data = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(environ.get("SLUICE_HOME") or Path(data) / "sluice")


def cache(environ: Mapping[str, str] | None = None) -> Path:
    """Folder of what was fetched once: ``SLUICE_CACHE``, else one under the user's cache folder."""
    environ = os.environ if environ is None else environ
    folder = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(environ.get("SLUICE_CACHE") or Path(folder) / "sluice")


def api_key(environ: Mapping[str, str] | None = None) -> str:
    """The caller's own API key: the content of the file ``SLUICE_KEY_FILE``, else ``SLUICE_KEY``, else empty.

    Never an argument: those are seen by all accounts of a machine. Raises ConfigError where the file cannot be read.
    """
    environ = os.environ if environ is None else environ
    if file := environ.get("SLUICE_KEY_FILE"):
        return read_secret("SLUICE_KEY_FILE", file, "key")
    return environ.get("SLUICE_KEY", "")


def known_environment() -> dict[str, str]:
    """Variable name → ``section.field``."""
    return {f"{PREFIX}{section}__{field}".upper(): f"{section}.{field}" for section, field, _, _ in table()}


def table() -> list[tuple[str, str, str, str]]:
    """Section, field, default and meaning of every setting, in order."""
    rows = []
    for section, outer in Settings.model_fields.items():
        kind: Any = outer.annotation
        for name, field in kind.model_fields.items():
            rows.append((section, name, str(field.get_default(call_default_factory=True)), field.description or ""))
    return rows


def _fault(error: Any, path: Path | None, text: str, variables: Mapping[str, str]) -> str:
    key = ".".join(map(str, error["loc"]))
    where = variables.get(key) or key
    if path is not None and key not in variables:
        where = f"{path}:{_line(text, [str(part) for part in error['loc']])}: {key}"
    if error["type"] == "extra_forbidden":
        return f"{where}: no such setting; known ones: sluice config"
    wanted = error["msg"].replace("Input should be", "expected").replace("String should", "expected a string to")
    return f"{where}: {wanted}{_got(key, error['input'])}; see: sluice config"


def _got(key: str, value: object) -> str:
    """The refused value, unless it may be a secret: a URL can hold a password, too."""
    if not isinstance(value, str | int | float) or "@" in str(value) or re.search("password|key|secret", key):
        return ""
    return f", got {value[:40]!r}" if isinstance(value, str) else f", got {value!r}"


def _line(text: str, keys: list[str]) -> int:
    """The line of a key in its table; 1 where it cannot be found."""
    section, lines = "", text.splitlines()
    for number, line in enumerate(lines, 1):
        header = re.match(r"\s*\[([^\]]+)\]", line)
        section = header.group(1).strip() if header else section
        if len(keys) == 1 and header and section == keys[0]:
            return number
        if len(keys) > 1 and section == keys[0] and re.match(rf"\s*{re.escape(keys[-1])}\s*=", line):
            return number
    return 1
