"""The file of isolated tenants: deterministic, and no two tenants share a user, a volume or a device."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli import build_parser
from pipeline.cli.compose import FIRST_UID, GROUP, LAST_UID, Isolated, tenants_file
from pipeline.errors import ConfigError

PARSER = build_parser()
names = st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,20}\Z")
tiers = st.sampled_from(["process", "device"])
some = st.dictionaries(names, tiers, max_size=4).map(
    lambda found: [Isolated(name, tier, at) for at, (name, tier) in enumerate(found.items())]
)


def written(isolated: list[Isolated]) -> dict[str, Any]:
    text = tenants_file(isolated, [f"GPU-{n}" for n in range(len(isolated))])
    assert text == tenants_file(isolated[::-1], [f"GPU-{n}" for n in range(len(isolated))])
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def volumes(service: dict[str, Any]) -> set[str]:
    return {volume.split(":")[0] for volume in service["volumes"]}


@settings(max_examples=15, deadline=None)
@given(some)
def test_each_tenant_has_a_worker_that_shares_nothing_with_the_others(isolated: list[Isolated]) -> None:
    services = written(isolated)["services"]
    workers = {each.tenant: services[f"generate-{each.tenant}"] for each in isolated}
    assert len(services) == 2 * len(isolated)
    assert len({worker["user"] for worker in workers.values()}) == len(workers)
    held = [name for worker in workers.values() for name in volumes(worker)]
    assert len(set(held)) == len(held)
    for tenant, worker in workers.items():
        assert volumes(worker) == {f"keys-{tenant}", f"models-{tenant}"}
        assert f"keys-{tenant}:/keys:ro" in worker["volumes"]
        running = PARSER.parse_args(worker["command"])
        assert (running.stage, running.pool) == ("generate", tenant)
        granting = PARSER.parse_args(services[f"grant-{tenant}"]["command"])
        assert (granting.tenant, str(granting.out)) == (tenant, "/granted")


@settings(max_examples=15, deadline=None)
@given(some)
def test_only_tenants_of_the_tier_have_a_device_and_each_another(isolated: list[Isolated]) -> None:
    services = written(isolated)["services"]
    found = []
    for each in isolated:
        worker = services[f"generate-{each.tenant}"]
        assert ("deploy" in worker) == (each.tier == "device")
        assert worker["environment"].get("SLUICE_GENERATE__DEVICE", "cpu") == ("cuda" if "deploy" in worker else "cpu")
        if "deploy" in worker:
            [device] = worker["deploy"]["resources"]["reservations"]["devices"]
            assert "count" not in device, "a count does not keep two containers off one device"
            found += device["device_ids"]
    assert len(set(found)) == len(found)


def test_a_tenants_user_id_does_not_depend_on_who_else_is_isolated() -> None:
    alone = written([Isolated("acme", "process", 7)])["services"]["generate-acme"]["user"]
    among = written([Isolated("aaa", "process", 3), Isolated("acme", "process", 7)])["services"]
    assert alone == among["generate-acme"]["user"] == f"{FIRST_UID + 7}:{GROUP}"


def test_nobody_isolated_is_a_file_that_changes_nothing() -> None:
    assert written([]) == {"services": {}}


@pytest.mark.parametrize("devices", [(), ("0", "0")])
def test_devices_must_suffice_and_differ(devices: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="nvidia-smi -L"):
        tenants_file([Isolated("acme", "device", 0)], devices)


def test_more_tenants_than_user_ids_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most"):
        tenants_file([Isolated("acme", "process", LAST_UID - FIRST_UID + 1)])


@pytest.mark.parametrize("devices", ["", "0,", "a b", "0;rm", "x" * 65])
def test_a_device_is_an_index_or_a_uuid(devices: str) -> None:
    with pytest.raises(SystemExit):
        PARSER.parse_args(["deploy", "tenants", "--devices", devices])
