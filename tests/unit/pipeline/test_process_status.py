"""A process tells its state on its own port: to whom, and what of credentials, faults and inputs."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from pipeline import config
from pipeline.config import Settings
from pipeline.credentials import credential_faults, credential_readings
from pipeline.embedded.supervisor import free_port
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS, LiveReadings, MetricSample
from pipeline.process_status import SILENT_S, ProcessStatus
from pipeline.sections import Kafka, Status
from pipeline.status_server import served_status

_DAY_S = 86_400


async def asked(port: int, method: str, path: str, token: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, f"http://127.0.0.1:{port}{path}", headers=headers) as answer,
    ):
        return answer.status, await answer.text()


def test_a_port_beyond_loopback_needs_a_token(tmp_path: Path) -> None:
    file = tmp_path / "sluice.toml"
    file.write_text('[status]\nport = 9464\nhost = "0.0.0.0"\n')
    with pytest.raises(ConfigError, match=r"host 0\.0\.0\.0 is not on loopback and needs token_file"):
        config.load(file, {})
    for host in ("127.0.0.1", "localhost", "::1"):
        assert Status(port=9464, host=host).host == host
    assert config.load(file, {"SLUICE_STATUS__TOKEN_FILE": "/run/token"}).status.token_file == "/run/token"


def test_without_the_token_nothing_but_ready_or_not_is_told(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first-token\n")

    async def scene() -> None:
        status, port = ProcessStatus("seal"), free_port()
        settings = Settings(status=Status(port=port, token_file=str(token)))
        async with served_status(settings, status):
            assert await asked(port, "GET", "/livez") == (200, '{"status": "alive"}')
            assert (await asked(port, "GET", "/healthz"))[0] == 200
            assert await asked(port, "GET", "/readyz") == (503, '{"ready": false}')
            assert (await asked(port, "GET", "/metrics"))[0] == 401
            assert (await asked(port, "GET", "/metrics", "another"))[0] == 401
            assert (await asked(port, "GET", "/metrics", "first-token"))[0] == 200
            assert "seal: starting" in (await asked(port, "GET", "/readyz?x=1", "first-token"))[1]
            token.write_text("second-token")
            assert (await asked(port, "GET", "/metrics", "first-token"))[0] == 401
            assert (await asked(port, "GET", "/metrics", "second-token"))[0] == 200
            token.unlink()
            assert (await asked(port, "GET", "/metrics", "second-token"))[0] == 401
            assert (await asked(port, "POST", "/metrics"))[0] == 405
            assert (await asked(port, "GET", "/"))[0] == 404
            assert await asked(port, "HEAD", "/livez") == (200, "")

    asyncio.run(scene())


def test_what_is_no_request_is_hung_up_on() -> None:
    async def scene() -> None:
        port = free_port()
        async with served_status(Settings(status=Status(port=port)), ProcessStatus("watch")):
            for head in (b"\x16\x03\x01" + bytes(40_000), b"no end"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head)
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
            assert (await asked(port, "GET", "/livez"))[0] == 200

    asyncio.run(scene())


def test_a_taken_port_is_a_fault_of_the_settings() -> None:
    async def scene() -> None:
        settings = Settings(status=Status(port=free_port()))
        async with served_status(settings, ProcessStatus("admit")):
            with pytest.raises(ConfigError, match=r"status\.port: expected an address to listen on"):
                async with served_status(settings, ProcessStatus("admit")):
                    pass

    asyncio.run(scene())


def test_the_last_warning_or_error_is_told() -> None:
    async def scene() -> None:
        status, log = ProcessStatus("notify"), logging.getLogger("pipeline.somewhere")
        assert b"sluice_last_fault" not in status.render()
        async with served_status(Settings(), status):
            log.info("nothing of note")
            log.warning("waiting for %s", "a broker")
            log.error("something ended")
        log.error("after it")
        text = status.render().decode()
        assert 'sluice_log_lines_total{level="warning"} 1.0' in text
        assert 'sluice_log_lines_total{level="error"} 1.0' in text
        assert "sluice_last_fault_timestamp_seconds" in text
        assert status.fault_log.last is not None
        assert status.fault_log.last.text == "something ended"

    asyncio.run(scene())


def certificate(path: Path, days: int) -> None:
    key, now = Ed25519PrivateKey.generate(), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sluice")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
    )
    path.write_bytes(built.sign(key, None).public_bytes(Encoding.PEM))


def test_ages_and_ends_of_certificates_and_passwords_are_told(tmp_path: Path) -> None:
    authority, password = tmp_path / "ca.pem", tmp_path / "password"
    certificate(authority, 10)
    password.write_text("x")
    os.utime(password, (0, password.stat().st_mtime - 7 * _DAY_S))
    kafka = Kafka(
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        user="u",
        password_file=str(password),
        ca_file=str(authority),
    )
    settings = Settings(kafka=kafka)
    told = {(reading.name, *reading.labels): reading.value / _DAY_S for reading in credential_readings(settings)}
    assert round(told["sluice_certificate_left_seconds", "kafka.ca_file"]) == 10
    assert round(told["sluice_credential_age_seconds", "kafka.ca_file"]) == 30
    assert round(told["sluice_credential_age_seconds", "kafka.password_file"]) == 7
    assert credential_faults(settings) == []
    certificate(authority, -1)
    password.unlink()
    assert credential_faults(settings) == [
        "kafka.ca_file: the certificate has ended; put another in its place",
        f"kafka.password_file: {password} is not there",
    ]


def test_an_input_of_which_no_broker_tells_is_a_fault() -> None:
    status = ProcessStatus("admit")

    def silent() -> list[MetricSample]:
        return [MetricSample("sluice_broker_silent_seconds", SILENT_S + 1, ("requests", "2"))]

    status.add(silent)
    assert status.faults() == ["admit: no broker told the end of requests[2] for 31 s"]
    assert b"sluice_ready 0.0" in status.render()
    status.remove(silent)
    status.add(old := lambda: [MetricSample("sluice_seal_age_seconds", 3_601, ("access", "0"))])
    assert status.faults() == ["admit: not sealed: access[0] for 3601 s"]
    status.remove(old)
    assert b"sluice_ready 1.0" in status.render()
    assert b"sluice_broker_silent" not in status.render()


def test_no_metric_stands_twice_or_outside_the_table() -> None:
    for rows in METRICS.values():
        names = [metric.name for metric in rows]
        assert len(set(names)) == len(names)
        assert all(metric.name.endswith("_total") == (metric.kind == "counter") for metric in rows)
    readings = LiveReadings()
    readings.sources.append(lambda: [MetricSample("sluice_unheard_of", 1)])
    with pytest.raises(KeyError):
        list(readings.collect())
