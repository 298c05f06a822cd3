"""Settings: defaults, overrides, and refusals that name the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import config
from pipeline.errors import ConfigError


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sluice.toml"
    file.write_text('[gateway]\nport = 9000\nhost = "0.0.0.0"\n')
    settings = config.load(file, {"SLUICE_GATEWAY__PORT": "9001", "SLUICE_HOME": "ignored"})
    assert (settings.gateway.port, settings.gateway.host) == (9001, "0.0.0.0")


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("[gateway]\nhost = 'x'\nprot = 1\n", {}, "sluice.toml:3: gateway.prot: no such setting"),
        ("[gatway]\nhost = 'x'\n", {}, "sluice.toml:1: gatway: no such setting"),
        ("[gateway]\nport = 'many'\n", {}, "sluice.toml:2: gateway.port: expected a valid integer"),
        ("[gateway\n", {}, "sluice.toml: "),
        ("", {"SLUICE_GATEWAY__PROT": "1"}, "SLUICE_GATEWAY__PROT: no such setting"),
        ("", {"SLUICE_GATEWAY__PORT": "0"}, "SLUICE_GATEWAY__PORT: expected greater"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(
    tmp_path: Path, text: str, environ: dict[str, str], expected: str
) -> None:
    file = tmp_path / "sluice.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(file, environ)
    assert expected in str(caught.value)


def test_the_password_never_shows() -> None:
    settings = config.load(None, {"SLUICE_CLICKHOUSE__PASSWORD": "hunter2-canary"})
    assert "hunter2-canary" not in repr(settings)
    assert settings.clickhouse.password.get_secret_value() == "hunter2-canary"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("[clickhouse]\npassword = 31337\n", "31337"),
        ("[generate]\nupstream_key_file = [4711]\n", "4711"),
        ("[generate]\nupstream = 'ftp://me:hunter2@host'\n", "hunter2"),
    ],
)
def test_a_refused_secret_is_not_quoted(tmp_path: Path, text: str, secret: str) -> None:
    file = tmp_path / "sluice.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(file, {})
    assert secret not in str(caught.value)
    assert str(caught.value).endswith("; see: sluice config")


def test_the_callers_key_comes_from_a_file_or_a_descriptor(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-sluice-k1.secret\n")
    assert config.api_key({"SLUICE_KEY_FILE": str(file), "SLUICE_KEY": "another"}) == "sk-sluice-k1.secret"
    with file.open() as opened:
        assert config.api_key({"SLUICE_KEY_FILE": f"/dev/fd/{opened.fileno()}"}) == "sk-sluice-k1.secret"
    assert config.api_key({"SLUICE_KEY": "another"}) == "another"
    file.write_text("")
    with pytest.raises(ConfigError, match="SLUICE_KEY_FILE: expected a file with a key, got an empty one"):
        config.api_key({"SLUICE_KEY_FILE": str(file)})


def test_no_setting_is_a_secret_but_the_stores_password() -> None:
    """A secret in the environment or the file is in every child's environment, and in each copy of the file."""
    secret = {f"{section}.{field}" for section, field, _, _ in config.table() if "SecretStr" in kind(section, field)}
    assert secret == {"clickhouse.password"}


def kind(section: str, field: str) -> str:
    return str(type(getattr(config.Settings(), section)).model_fields[field].annotation)
