"""Other proofs than a password, on a real broker: a bearer token, a certificate; and what a wrong password does."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka.errors import TopicAuthorizationFailedError
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

import pipeline.embedded.broker
from pipeline.config import cache
from pipeline.control import acl
from pipeline.control import topics as topic_admin
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import BrokerAccess, BrokerSettings, broker_config
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError
from pipeline.interpreter import module_command, module_environment
from pipeline.kafka.clients import make_producer
from pipeline.kafka.security import require_login
from pipeline.sections import Kafka
from pipeline.topics import acl_rules
from tests.certificates import broker_pem
from tests.patience import STUCK_S

TOKEN = """\
import base64, json, sys, time
def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
now = int(time.time())
print(part({"alg": "none"}) + "." + part({"sub": sys.argv[1], "iat": now, "exp": now + 300}) + ".")
"""
"""What a service's own command prints, but for the signature, which this broker does not ask for."""
_OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"


class Site:
    """A broker with a listener for each kind of proof."""

    def __init__(self, home: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.pem = home, broker_pem(home)
        self.tokens, self.certificates = free_port(), free_port()
        monkeypatch.setattr(pipeline.embedded.broker, "broker_config", self.config)
        access = BrokerAccess("of the brokers", "of the operator")
        settings = BrokerSettings(home / "kafka", cache(), free_port(), free_port(), access=access)
        self.broker = EmbeddedBroker(settings, supervisor)
        self.broker.ensure_fetched(print)
        self.broker.start()
        (home / "token.py").write_text(TOKEN)

    def config(self, settings: BrokerSettings) -> dict[str, str]:
        told = broker_config(settings)
        more = f",TOKENS://127.0.0.1:{self.tokens},CERTIFICATES://127.0.0.1:{self.certificates}"
        told["listeners"] += more
        told["advertised.listeners"] += more
        told["listener.security.protocol.map"] += ",TOKENS:SASL_PLAINTEXT,CERTIFICATES:SSL"
        tokens, tls = "listener.name.tokens", "listener.name.certificates"
        told[f"{tokens}.sasl.enabled.mechanisms"] = "OAUTHBEARER"
        told[f"{tokens}.oauthbearer.sasl.jaas.config"] = f'{_OAUTH} required unsecuredLoginStringClaim_sub="none";'
        told[f"{tls}.ssl.client.auth"] = "required"
        told[f"{tls}.ssl.principal.mapping.rules"] = "RULE:^CN=(.*)$/$1/"
        for store in ("keystore", "truststore"):
            told[f"{tls}.ssl.{store}.type"] = "PEM"
            told[f"{tls}.ssl.{store}.location"] = str(self.pem)
        return told

    def by_token(self, user: str) -> KafkaEndpoint:
        command = f"{sys.executable} {self.home / 'token.py'} {user}"
        return Kafka(
            bootstrap=f"127.0.0.1:{self.tokens}",
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="OAUTHBEARER",
            token_command=command,
        ).endpoint

    def by_certificate(self, user: str) -> KafkaEndpoint:
        return Kafka(
            bootstrap=f"127.0.0.1:{self.certificates}",
            security_protocol="SSL",
            ca_file=str(self.pem),
            certificate_file=str(self._issue(user)),
        ).endpoint

    def _issue(self, user: str) -> Path:
        """A certificate that says CN=``user``, signed by the broker's own authority."""
        raw, now = self.pem.read_bytes(), datetime.now(UTC)
        authority, signer = x509.load_pem_x509_certificate(raw), load_pem_private_key(raw, None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user)])
        made = (
            x509.CertificateBuilder(authority.subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(signer, SHA256())
        )
        path = self.home / f"{user}.pem"
        plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(plain + made.public_bytes(Encoding.PEM))
        return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    supervisor = Supervisor()
    with pytest.MonkeyPatch.context() as monkeypatch:
        try:
            made = Site(tmp_path_factory.mktemp("proofs"), supervisor, monkeypatch)
            asyncio.run(topic_admin.create(made.broker.endpoint, 1, 1))
            acl.grant(made.broker.endpoint, acl_rules())
            yield made
        finally:
            supervisor.stop_all()


async def writes(kafka: KafkaEndpoint, topic: str) -> bool:
    async with make_producer(kafka, request_timeout_ms=5000) as producer:
        try:
            await asyncio.wait_for(producer.send_and_wait(topic, b"x", partition=0), STUCK_S)
        except TopicAuthorizationFailedError:
            return False
        return True


@pytest.mark.parametrize("proof", ["token", "certificate"])
def test_a_stage_does_what_the_table_says_under_the_name_that_it_proved(site: Site, proof: str) -> None:
    def known(user: str) -> KafkaEndpoint:
        return site.by_token(user) if proof == "token" else site.by_certificate(user)

    assert asyncio.run(writes(known("gateway"), "requests"))
    assert not asyncio.run(writes(known("gateway"), "decisions"))
    assert asyncio.run(writes(known("admit"), "decisions"))
    assert acl.check(known("operator"), acl_rules()) == []
    with pytest.raises(ConfigError, match="may not read or change the access control lists"):
        acl.check(known("admit"), acl_rules())


def test_a_stranger_with_neither_is_let_in_nowhere(site: Site) -> None:
    tls = Kafka(bootstrap=f"127.0.0.1:{site.certificates}", security_protocol="SSL", ca_file=str(site.pem)).endpoint
    with pytest.raises(Exception, match="no Kafka broker answered"):
        asyncio.run(topic_admin.reach(tls, 1))
    expired = base64.urlsafe_b64encode(json.dumps({"sub": "admit", "iat": 1, "exp": 2}).encode()).decode().rstrip("=")
    (site.home / "old").write_text(f"eyJhbGciOiJub25lIn0.{expired}.")
    old = Kafka(
        bootstrap=f"127.0.0.1:{site.tokens}",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        token_command=f"cat {site.home / 'old'}",
    ).endpoint
    with pytest.raises(ConfigError, match="refused"):
        asyncio.run(require_login(old))


@pytest.mark.parametrize("stage", ["gateway", "admit", "watch", "notify"])
def test_a_stage_with_a_wrong_password_says_so_and_ends_with_code_2(site: Site, tmp_path: Path, stage: str) -> None:
    (tmp_path / "password").write_text("a wrong one")
    (tmp_path / "sluice.toml").write_text(
        f"""[kafka]
bootstrap = "{site.broker.bootstrap}"
security_protocol = "SASL_PLAINTEXT"
sasl_mechanism = "SCRAM-SHA-512"
user = "{stage}"
password_file = "{tmp_path / "password"}"
[keys]
home = "{tmp_path / "keys"}"
deployment = "{"0" * 64}"
"""
    )
    ended = subprocess.run(
        module_command("pipeline", "--config", str(tmp_path / "sluice.toml"), "run", stage),
        env={**module_environment(), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=STUCK_S,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert f"refused user '{stage}'" in ended.stderr
    assert "a wrong one" not in ended.stderr
