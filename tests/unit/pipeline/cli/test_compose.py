"""The compose file and the image against the repository: pins, settings, files, wiring. No container is started."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.compose import GROUP, Isolated, tenants_file
from pipeline.cli.compose_kafka import MOUNTED, RECORDS, USERS, write_secrets
from pipeline.clickhouse import accounts
from pipeline.config import Settings, known_environment, load
from pipeline.gateway.refusals import because
from pipeline.gateway.translate import too_large
from pipeline.topics import GROUPS, pool_user
from pipeline.wiring import STAGES

ROOT = Path(__file__).parents[4]
BASE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
TENANTS: dict[str, Any] = yaml.safe_load(
    tenants_file([Isolated("initech", "device", 2), Isolated("acme", "process", 0)], ("GPU-1",))
)
COMPOSE: dict[str, Any] = {
    **BASE,
    "services": BASE["services"] | TENANTS["services"],
    "volumes": BASE["volumes"] | TENANTS["volumes"],
}
"""Compose's reading of the project's file with that of two isolated tenants laid over it."""
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = re.sub(r"\s*\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
BASES = {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)}
PARTS = dict(zip(BASES, re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE)[1:], strict=True))
"""Stage of the Dockerfile -> what it does, an instruction a line."""
each_service = pytest.mark.parametrize("name", SERVICES)
each_of_ours = pytest.mark.parametrize("name", OURS)


def settings(name: str) -> dict[str, str]:
    return {key: value for key, value in SERVICES[name].get("environment", {}).items() if key.startswith("SLUICE_")}


def published(name: str) -> list[str]:
    ports: list[str] = SERVICES[name].get("ports", [])
    return ports


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the service of that name writes."""
    out = tmp_path_factory.mktemp("secrets")
    write_secrets(load(None, settings("secrets")), out)
    return out


@pytest.fixture(scope="module")
def broker(secrets: Path) -> dict[str, str]:
    text = (secrets / "broker" / "server.properties").read_text()
    return dict(line.split("=", 1) for line in text.splitlines())


@each_service
def test_images_are_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[a-z0-9/-]+:\d+\.\d+\.\d+(\.\d+)?(-alpine)?", image), image


def test_the_images_base_is_pinned_and_the_image_is_not_root() -> None:
    bases = {base for base in BASES.values() if base not in BASES}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", bases.pop())
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["10001"]
    assert "useradd --uid 10001" in PARTS["runtime"]
    assert BASES["stage"] == BASES["worker"] == "runtime"


def test_the_image_holds_what_the_lock_names_and_only_what_its_stages_need() -> None:
    installs = [line for part in PARTS.values() for line in part.split("\n") if " install " in line]
    packages = {name: re.findall(r"--extra (\w+)", PARTS[name]) for name in ("stage-packages", "worker-packages")}
    assert packages == {"stage-packages": ["stages"], "worker-packages": ["stages", "engine"]}
    for line in installs:
        assert "--require-hashes" in line or "--no-deps --no-index" in line or "--directory" in line, line
    # a change of the code leaves the layers of packages as they are
    for name in ("tools", "stage-packages", "worker-packages"):
        assert not re.search(r"^COPY .*(pipeline|detectors|inference|dashboards)", PARTS[name], re.MULTILINE)


@each_of_ours
def test_the_image_that_is_built_is_the_one_that_runs(name: str) -> None:
    service = OURS[name]
    target = "worker" if service["command"][:2] == ["run", "generate"] else "stage"
    assert service["build"] == {"context": ".", "target": target}
    assert service["image"] == {"worker": "sluice-worker:0.1.0", "stage": "sluice:0.1.0"}[target]
    assert target in BASES


def test_the_image_copies_what_the_project_declares_and_the_context_lets_it_in() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = [
        part for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for part in line.split()
    ]
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages | {"pyproject.toml", "requirements.lock", project["project"]["readme"]} <= set(copied)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == set(copied)
    for name in set(copied) - {project["project"]["readme"]}:
        assert (ROOT / name).exists(), name


@each_of_ours
def test_every_setting_exists_and_its_value_is_taken(name: str) -> None:
    given = {key: re.sub(r"\$\{.*\}", "word", value) for key, value in settings(name).items()}
    assert given.keys() <= known_environment().keys()
    assert all(isinstance(value, str) for value in settings(name).values()), "quote numbers and booleans"
    assert load(None, given) != Settings()


def test_every_stage_runs_and_each_gateway_has_its_lane() -> None:
    run = {name: service["command"][1] for name, service in OURS.items() if service["command"][0] == "run"}
    assert set(run.values()) == set(STAGES)
    lanes = [settings(name)["SLUICE_GATEWAY__LANE"] for name, stage in run.items() if stage == "gateway"]
    partitions = int(settings("topics")["SLUICE_KAFKA__PARTITIONS"])
    assert len(lanes) == len(set(lanes)) == 2
    assert all(0 <= int(lane) < partitions for lane in lanes)
    upstream = re.findall(r"server (gateway-\d):(\d+)", COMPOSE["configs"]["balancer"]["content"])
    port = settings("gateway-0")["SLUICE_GATEWAY__PORT"]
    assert upstream == [(name, port) for name, stage in run.items() if stage == "gateway"]


def test_exactly_one_engine_per_profile() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"generate": ["cpu"], "generate-gpu": ["gpu"]}
    (device,) = SERVICES["generate-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


@each_service
def test_dependencies_exist_and_their_conditions_can_come_true(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert SERVICES[other]["restart"] == "on-failure", "a job that is always restarted never completes"


@each_of_ours
def test_stages_wait_for_topics_users_and_tables(name: str) -> None:
    waits = set(SERVICES[name]["depends_on"])
    jobs = {
        "secrets": set(),
        "topics": {"kafka"},
        "users": {"topics"},
        "tables": {"clickhouse"},
        "accounts": {"tables"},
        "grant-acme": {"users"},
        "grant-initech": {"users"},
    }
    granted = {name.replace("generate-", "grant-")} if name in TENANTS["services"] else set()
    accounts = {"accounts"} if name == "seal" else set()
    assert waits == jobs.get(name, {"users", "tables"} | granted | accounts)


@each_service
def test_volumes_networks_and_files_exist(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
    assert service.get("networks")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
    for config in service.get("configs", []):
        assert config["source"] in COMPOSE["configs"]
    for _, target in (volume.split(":")[:2] for volume in service.get("volumes", [])):
        assert target.startswith("/")


def test_every_volume_is_used() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= used


def test_published_ports_are_loopback_distinct_and_listened_on(broker: dict[str, str]) -> None:
    ports = {name: port for name in SERVICES for port in published(name)}
    assert set(ports) == {"kafka", "balancer", "grafana"}
    outside = [port.split(":")[1] for port in ports.values()]
    assert len(set(outside)) == len(outside)
    for name, port in ports.items():
        host, _, inside = port.split(":")
        assert host == "127.0.0.1"
        assert "outer" in SERVICES[name]["networks"], "an internal network publishes nothing"
        listened = {"kafka": broker["listeners"], "grafana": "3000"}.get(name, str(COMPOSE["configs"]))
        assert inside in listened


def test_only_what_must_can_reach_out() -> None:
    assert COMPOSE["networks"]["inner"] == {"internal": True}
    out = {name for name, service in SERVICES.items() if "outer" in service["networks"]}
    assert out == {"kafka", "balancer", "grafana", "notify"}


def test_secrets_come_from_outside_and_have_no_default() -> None:
    found = 0
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if key == "SLUICE_KAFKA__PASSWORD_FILE":
                assert value.startswith("/secrets/") or value == "/keys/kafka-password"
            elif key.endswith(("PASSWORD_FILE", "PASSWORD_FOLDER")):
                assert value.startswith("/run/secrets")
            elif "PASSWORD" in key:
                assert re.fullmatch(r"\$\{[A-Z_]+:\?set it in \.env\}", value), key
                found += 1
    found += len(COMPOSE["secrets"])
    for name, secret in COMPOSE["secrets"].items():
        assert set(secret) == {"environment"}, name
    assert found >= 5


def test_each_account_of_the_store_has_its_password_where_it_is_used() -> None:
    assert set(COMPOSE["secrets"]) == {f"clickhouse-{name}" for name in accounts.NAMES}
    given = {name: {secret["target"] for secret in service.get("secrets", [])} for name, service in SERVICES.items()}
    assert given["tables"] == given["accounts"] == set(accounts.NAMES)
    assert given["seal"] == {accounts.SEAL}
    assert settings("seal")["SLUICE_CLICKHOUSE__USER"] == accounts.SEAL
    assert {name for name, targets in given.items() if targets} == {"tables", "accounts", "seal"}
    assert SERVICES["grafana"]["environment"]["CLICKHOUSE_USER"] == accounts.VIEW
    assert SERVICES["grafana"]["depends_on"].keys() == {"accounts"}
    assert SERVICES["clickhouse"]["environment"]["CLICKHOUSE_USER"] == accounts.OPERATOR


WRITABLE = {
    "secrets": [f"kafka-{user}:/secrets/{user}" for user in ("broker", "operator", *GROUPS)],
    "topics": ["keys:/keys"],
    "generate": ["models:/models"],
    "generate-gpu": ["models:/models"],
    **{f"grant-{tenant}": [f"keys-{tenant}:/granted"] for tenant in ("acme", "initech")},
    **{f"generate-{tenant}": [f"models-{tenant}:/models"] for tenant in ("acme", "initech")},
}


@each_of_ours
def test_our_containers_are_confined(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["init"] is True
    writable = [volume for volume in service["volumes"] if not volume.endswith(":ro")]
    assert writable == WRITABLE.get(name, [])
    assert settings(name).get("SLUICE_KEYS__HOME", "/keys") == "/keys"


def test_only_the_sealer_and_the_jobs_know_passwords_of_the_store() -> None:
    known = {name for name in OURS for key in settings(name) if key.startswith("SLUICE_CLICKHOUSE__PASSWORD")}
    assert known == {"seal", "tables", "accounts"}


def test_what_grafanas_files_ask_for_is_given() -> None:
    given = SERVICES["grafana"]["environment"]
    text = (ROOT / "dashboards/provisioning/datasources/clickhouse.yaml").read_text()
    (source,) = yaml.safe_load(text)["datasources"]
    assert set(re.findall(r"\$\{(\w+)\}", text.split("apiVersion", 1)[1])) <= set(given)
    assert given["GF_PLUGINS_PREINSTALL_SYNC"] == f"{source['type']}@{source['jsonData']['version']}"
    (provider,) = yaml.safe_load((ROOT / "dashboards/provisioning/dashboards/sluice.yaml").read_text())["providers"]
    mounts = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert any(fnmatch.fnmatch(mount, provider["options"]["path"] + "/*.json") for mount in mounts)


def test_the_broker_agrees_with_itself_and_its_clients(broker: dict[str, str]) -> None:
    listeners = [entry.split("://")[0] for entry in broker["listeners"].split(",")]
    protocols = dict(entry.split(":") for entry in broker["listener.security.protocol.map"].split(","))
    assert set(listeners) == set(protocols)
    advertised = dict(entry.split("://") for entry in broker["advertised.listeners"].split(","))
    for name in (name for name, service in OURS.items() if service["command"][0] == "run"):
        assert settings(name)["SLUICE_KAFKA__BOOTSTRAP"] == advertised["CLIENT"]
        assert settings(name)["SLUICE_KAFKA__SECURITY_PROTOCOL"] == protocols["CLIENT"]
    # a key's user is made for the listener that the gateway tells its bearer
    for name in ("gateway-0", "gateway-1", "topics"):
        told = settings(name)
        assert told["SLUICE_GATEWAY__ADVERTISED_BOOTSTRAP"] == advertised["PRODUCERS"]
        assert told["SLUICE_GATEWAY__ADVERTISED_PROTOCOL"] == protocols["PRODUCERS"] == "SASL_SSL"
        mechanism = told["SLUICE_GATEWAY__ADVERTISED_MECHANISM"]
        assert broker["listener.name.producers.sasl.enabled.mechanisms"] == mechanism == "SCRAM-SHA-256"
    assert broker["auto.create.topics.enable"] == "false"


def test_no_listener_of_the_broker_takes_a_stranger(broker: dict[str, str]) -> None:
    protocols = [entry.split(":")[1] for entry in broker["listener.security.protocol.map"].split(",")]
    assert all(protocol.startswith("SASL_") for protocol in protocols)
    assert broker["authorizer.class.name"].endswith(".StandardAuthorizer")
    assert broker["allow.everyone.if.no.acl.found"] == "false"
    assert set(broker["super.users"].split(";")) == {"User:broker", "User:operator"}
    assert int(broker["listener.name.producers.scram-sha-256.connections.max.reauth.ms"]) <= 60_000


def test_the_broker_finds_what_was_written_for_it(broker: dict[str, str], secrets: Path) -> None:
    kafka = SERVICES["kafka"]
    assert f"kafka-broker:{MOUNTED}:ro,nocopy" in kafka["volumes"], "its image would make the volume its own"
    assert f"kafka:{RECORDS}" in kafka["volumes"]
    assert broker["log.dirs"] == RECORDS
    # its process has another user id, and the files are their owner's and its group's
    assert kafka["group_add"] == [str(GROUP)]
    assert "environment" not in kafka
    for path in (Path(broker["ssl.keystore.location"]), Path(kafka["healthcheck"]["test"][-1])):
        assert path.parent == MOUNTED
        assert (secrets / "broker" / path.name).stat().st_mode & 0o777 == 0o640


def test_each_user_of_the_broker_has_its_password_where_it_is_used_and_nowhere_else() -> None:
    users = {"broker", *USERS}
    held: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        mounts = [volume.split(":") for volume in service.get("volumes", []) if volume.startswith("kafka-")]
        held[name] = {mount[0].removeprefix("kafka-") for mount in mounts}
        assert all(mount[1] == f"/secrets/{mount[0].removeprefix('kafka-')}" for mount in mounts) or name == "kafka"
    assert held.pop("secrets") == users
    assert held.pop("users") == users - {"broker"}
    assert held.pop("kafka") == {"broker"}
    for name, own in held.items():
        given = settings(name)
        user = given.get("SLUICE_KAFKA__USER", "")
        if not own:
            assert not user or given["SLUICE_KAFKA__PASSWORD_FILE"] == "/keys/kafka-password"
            continue
        assert own == {user}
        assert given["SLUICE_KAFKA__PASSWORD_FILE"] == f"/secrets/{user}/password"
        command = SERVICES[name]["command"]
        assert user == (command[1] if command[0] == "run" else "operator")
        assert given["SLUICE_KAFKA__SASL_MECHANISM"] == ("PLAIN" if user == "operator" else "SCRAM-SHA-512")


def test_a_tenants_own_workers_have_a_user_of_their_own_that_their_job_makes() -> None:
    for tenant in ("acme", "initech"):
        assert "--kafka" in SERVICES[f"grant-{tenant}"]["command"]
        given = settings(f"generate-{tenant}")
        assert given["SLUICE_KAFKA__USER"] == pool_user(tenant)
        assert given["SLUICE_KAFKA__SASL_MECHANISM"] == "SCRAM-SHA-512"
        assert given["SLUICE_KAFKA__PASSWORD_FILE"] == "/keys/kafka-password"


def test_the_image_has_a_folder_for_each_volume_of_secrets_which_is_its_users() -> None:
    [folders] = re.findall(r"for user in (.*); do (.*); done", DOCKERFILE)
    assert set(folders[0].split()) == {"broker", *USERS}
    assert "--owner sluice --group sluice --mode 0750" in folders[1]


def test_the_balancer_speaks_as_the_gateway_does_and_keeps_its_figures_in() -> None:
    text = COMPOSE["configs"]["balancer"]["content"]
    told = dict(re.findall(r"return (\d{3}) '(.+)';", text))
    assert json.loads(told["413"]) == json.loads(too_large().body())
    absent = json.loads(told["503"])["error"]
    busy = json.loads(because("busy").body())["error"]
    assert {**absent, "message": ""} == {**busy, "message": ""}
    assert "add_header Retry-After 1 always;" in text
    assert "location = /metrics { return 404; }" in text
    assert {name: code for code, name in re.findall(r"error_page ([\d ]+) (@\w+);", text)} == {
        "@large": "413",
        "@absent": "502 504",
    }
    assert set(re.findall(r"location (@\w+) \{", text)) == {"@large", "@absent"}
    assert text.count("{") == text.count("}")
