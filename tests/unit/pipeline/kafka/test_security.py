"""Settings of authentication: what is refused at start, what a client is told, what an error never shows."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import pytest
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

from pipeline.config import load
from pipeline.endpoints import KafkaEndpoint, KafkaSecurity
from pipeline.errors import ConfigError, Retryable
from pipeline.kafka.clients import faust_options
from pipeline.kafka.security import CommandTokens, client_options, refused


def environment(**fields: str) -> dict[str, str]:
    return {f"SLUICE_KAFKA__{name.upper()}": value for name, value in fields.items()}


def test_a_scram_user_with_a_password_file_is_what_clients_get(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    fields = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "user": "admit"}
    settings = load(None, environment(**fields, password_file=str(tmp_path / "password")))
    options = client_options(settings.kafka.endpoint.security)
    assert isinstance(options.pop("ssl_context"), ssl.SSLContext)
    assert options == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "admit",
        "sasl_plain_password": "s3cret",
    }
    assert "s3cret" not in repr(settings.kafka.endpoint)
    assert "s3cret" not in refused(settings.kafka.endpoint)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"security_protocol": "SASL_SSL"}, "security_protocol SASL_SSL needs sasl_mechanism"),
        ({"user": "admit"}, "security_protocol PLAINTEXT has no use for user"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "user": "admit"},
            "security_protocol SASL_SSL PLAIN needs password_file",
        ),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "user": "admit"},
            "security_protocol SASL_SSL OAUTHBEARER needs token_command",
        ),
        ({"certificate_file": "mine.pem"}, "security_protocol PLAINTEXT has no use for certificate_file"),
        ({"security_protocol": "TLS"}, "SLUICE_KAFKA__SECURITY_PROTOCOL: expected 'PLAINTEXT', 'SSL'"),
    ],
)
def test_a_proof_without_use_or_a_use_without_proof_is_refused(fields: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(None, environment(**fields))
    assert fault in str(refusal.value)


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_password_that_cannot_be_read_is_told_by_its_setting(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    fields = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "user": "admit", "password_file": str(path)}
    settings = load(None, environment(**fields))
    with pytest.raises(ConfigError, match=f"kafka.password_file: expected a file with a password, got .*{path.name}"):
        _ = settings.kafka.endpoint


@pytest.mark.parametrize("setting", ["ca_file", "certificate_file"])
def test_a_certificate_that_cannot_be_read_is_told_by_its_setting(tmp_path: Path, setting: str) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    for path in (bad, tmp_path / "absent.pem"):
        with pytest.raises(ConfigError, match=f"kafka.{setting}: expected a PEM file, got {path}"):
            client_options(KafkaSecurity("SSL", **{setting: str(path)}))


def test_a_token_comes_from_the_command_and_is_asked_for_once_a_minute(tmp_path: Path) -> None:
    script = tmp_path / "token.py"
    script.write_text(f"import pathlib\nruns = pathlib.Path({str(tmp_path / 'runs')!r})\n")
    with script.open("a") as file:
        file.write("runs.open('a').write('x')\nprint('token', len(runs.read_text()), sep='-')\n")
    tokens = CommandTokens(f"{sys.executable} {script}")
    assert [tokens.token(), tokens.token()] == ["token-1", "token-1"]
    assert (tmp_path / "runs").read_text() == "x"


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "print()", "print('x' * 70000)"])
def test_a_command_without_a_token_is_told_without_what_it_printed(program: str) -> None:
    with pytest.raises(Retryable, match="expected one token, got") as fault:
        CommandTokens(f'{sys.executable} -c "{program}"').token()
    assert "xxx" not in str(fault.value)


def test_faust_gets_the_same_proof() -> None:
    def credentials(security: KafkaSecurity) -> object:
        return faust_options(KafkaEndpoint("a:1,b:2", security)).get("broker_credentials")

    assert credentials(KafkaSecurity()) is None
    assert isinstance(credentials(KafkaSecurity("SSL")), SSLCredentials)
    scram = credentials(KafkaSecurity("SASL_SSL", "SCRAM-SHA-256", "watch", "s3cret"))
    assert isinstance(scram, SASLCredentials)
    assert (scram.username, scram.password, scram.mechanism.value) == ("watch", "s3cret", "SCRAM-SHA-256")
    assert scram.protocol.value == "SASL_SSL"
    tokens = credentials(KafkaSecurity("SASL_PLAINTEXT", "OAUTHBEARER", token_command="true"))
    assert isinstance(tokens, OAuthCredentials)
