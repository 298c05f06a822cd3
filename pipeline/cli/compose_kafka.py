"""Secrets of the broker in ``docker-compose.yml`` and of its users: what ``sluice deploy secrets`` writes.

A folder for each user with its password, one for the broker with its properties and certificate. In compose each of
them is a volume, so that a service sees its own alone. What is there stays: a second run changes no password.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pipeline.clock import now_ms
from pipeline.config import Settings
from pipeline.embedded.broker_config import (
    BROKER,
    MAX_MESSAGE_BYTES,
    PLAIN,
    BrokerAccess,
    authenticated,
    own_topics,
)
from pipeline.errors import ConfigError
from pipeline.keys.files import password_of, replace_file
from pipeline.topics import GROUPS, OPERATOR

USERS = (*GROUPS, OPERATOR)
MOUNTED = Path("/mnt/shared/config")
"""The broker's image takes its properties from here; the certificate lies beside them."""
RECORDS = "/var/lib/kafka/data"
CONTROLLER_PORT = 9093
_CERTIFICATE = "certificate.pem"
_READABLE = 0o640
"""For the owner's group: the broker's process and workers of isolated tenants have user ids of their own."""
_VALID = timedelta(days=3650)


def write_secrets(settings: Settings, out: Path) -> list[Path]:
    """Write what is missing below ``out``, and the broker's properties; gives the files. Raises ConfigError.

    Stages come to ``kafka.bootstrap``, direct producers to ``gateway.advertised_bootstrap``.
    """
    inner = _host_and_port("kafka.bootstrap", settings.kafka.bootstrap)
    outer = _host_and_port("gateway.advertised_bootstrap", settings.gateway.advertised_bootstrap)
    broker, operator = out / BROKER, out / OPERATOR
    try:
        passwords = {user: password_of(out / user / "password") for user in (BROKER, *USERS)}
        access = BrokerAccess(
            passwords[BROKER], passwords[OPERATOR], certificate=MOUNTED / _CERTIFICATE, producers_tls_only=True
        )
        if not _names(broker / _CERTIFICATE, outer[0]):
            replace_file(broker / _CERTIFICATE, _certificate(outer[0]), _READABLE)
        written = {
            broker / "server.properties": broker_properties(inner, outer, access),
            broker / "client.properties": _client_properties(access),
            operator / "ca.pem": _public_part((broker / _CERTIFICATE).read_text("utf-8")),
        }
        for path, text in written.items():
            replace_file(path, text, _READABLE)
    except (OSError, ValueError) as error:
        raise ConfigError(f"secrets into {out}: {error}; expected a folder that this process may write") from error
    return [*(out / user / "password" for user in passwords), broker / _CERTIFICATE, *written]


def broker_properties(inner: tuple[str, int], outer: tuple[str, int], access: BrokerAccess) -> str:
    """Give the server.properties of a single broker with its controller, in a container of its own."""
    ports = f"CLIENT://:{inner[1]},PRODUCERS://:{outer[1]},CONTROLLER://:{CONTROLLER_PORT}"
    config: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{inner[0]}:{CONTROLLER_PORT}",
        "listeners": ports,
        "advertised.listeners": f"CLIENT://{inner[0]}:{inner[1]},PRODUCERS://{outer[0]}:{outer[1]}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "CLIENT",
        "log.dirs": RECORDS,
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "group.initial.rebalance.delay.ms": 0,
    }
    config |= own_topics(replicas=1, in_sync=1) | authenticated(access)
    return _properties(config)


def _client_properties(access: BrokerAccess) -> str:
    """Give the settings by which the health check of the broker's container comes as the broker itself."""
    login = f'{PLAIN} required username="{BROKER}" password="{access.broker_password}";'
    return _properties(
        {"security.protocol": access.protocol, "sasl.mechanism": "PLAIN", "sasl.jaas.config": login},
    )


def _properties(config: dict[str, object]) -> str:
    return "".join(f"{key}={value}\n" for key, value in config.items())


def _host_and_port(setting: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"{setting}: expected the host:port of one broker, got {text!r}; set it")
    return host, int(port)


def _certificate(host: str) -> str:
    """Make a certificate of ``host`` that is its own authority; gives its key and it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.fromtimestamp(now_ms() / 1000, UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sluice's broker")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (plain + signed.public_bytes(Encoding.PEM)).decode()


def _public_part(pem: str) -> str:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.PEM).decode()


def _names(path: Path, host: str) -> bool:
    """Tell if the certificate in a file is of this host."""
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return _general_name(host) in names


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
