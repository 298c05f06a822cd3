"""What ``sluice deploy secrets`` writes: once, for its owner and group alone, and nothing of it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from pipeline.cli import build_parser, main
from pipeline.cli.compose_kafka import USERS, write_secrets
from pipeline.config import Gateway, Settings
from pipeline.errors import ConfigError
from pipeline.sections import Kafka

SETTINGS = Settings(
    kafka=Kafka(bootstrap="kafka:9092"),
    gateway=Gateway(advertised_bootstrap="localhost:19092"),
)


def texts(folder: Path) -> dict[Path, str]:
    return {path.relative_to(folder): path.read_text() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate((folder / "operator" / "ca.pem").read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in found]


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    write_secrets(SETTINGS, tmp_path)
    first = texts(tmp_path)
    assert set(first) >= {Path(user) / "password" for user in (*USERS, "broker")}
    write_secrets(SETTINGS, tmp_path)
    assert texts(tmp_path) == first


def test_each_user_has_another_password_and_the_broker_is_told_its_own_and_the_operators(tmp_path: Path) -> None:
    write_secrets(SETTINGS, tmp_path)
    passwords = {user: (tmp_path / user / "password").read_text() for user in (*USERS, "broker")}
    assert len(set(passwords.values())) == len(passwords)
    properties = (tmp_path / "broker" / "server.properties").read_text()
    assert {user for user, password in passwords.items() if password in properties} == {"operator", "broker"}


def test_files_are_their_owners_and_its_groups_alone(tmp_path: Path) -> None:
    write_secrets(SETTINGS, tmp_path)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o640}
    assert {path.stat().st_mode & 0o007 for path in tmp_path.iterdir()} == {0}


def test_what_direct_producers_are_given_has_no_key(tmp_path: Path) -> None:
    write_secrets(SETTINGS, tmp_path)
    assert "PRIVATE KEY" not in (tmp_path / "operator" / "ca.pem").read_text()
    assert "PRIVATE KEY" in (tmp_path / "broker" / "certificate.pem").read_text()


@pytest.mark.parametrize(("host", "name"), [("kafka.example.com", "kafka.example.com"), ("10.0.0.7", "10.0.0.7")])
def test_another_address_gets_a_certificate_of_its_own_and_keeps_the_passwords(
    tmp_path: Path, host: str, name: str
) -> None:
    write_secrets(SETTINGS, tmp_path)
    before = (tmp_path / "admit" / "password").read_text()
    assert names(tmp_path) == ["localhost"]
    moved = SETTINGS.model_copy(update={"gateway": Gateway(advertised_bootstrap=f"{host}:19092")})
    write_secrets(moved, tmp_path)
    assert names(tmp_path) == [name]
    assert (tmp_path / "admit" / "password").read_text() == before
    assert f"PRODUCERS://{host}:19092" in (tmp_path / "broker" / "server.properties").read_text()


@pytest.mark.parametrize("address", ["", "localhost", "localhost:port"])
def test_an_address_that_is_none_is_refused_before_anything_is_written(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.advertised_bootstrap"):
        write_secrets(SETTINGS.model_copy(update={"gateway": Gateway(advertised_bootstrap=address)}), tmp_path)
    assert not texts(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "broker").write_text("in the way")
    with pytest.raises(ConfigError, match="secrets into"):
        write_secrets(SETTINGS, tmp_path)


def test_the_command_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_GATEWAY__ADVERTISED_BOOTSTRAP", "localhost:19092")
    assert main(["deploy", "secrets", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    written = texts(tmp_path)
    assert str(tmp_path / "admit" / "password") in told.out
    for path, text in written.items():
        assert path.name != "password" or text not in told.out + told.err


def test_users_are_given_from_a_folder() -> None:
    assert build_parser().parse_args(["deploy", "users", "--secrets", "somewhere"]).secrets == Path("somewhere")
    with pytest.raises(SystemExit):
        build_parser().parse_args(["deploy", "users"])
