"""What an operator may not put in force, told with table and field before any of it is; and what a webhook is told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from pipeline.control.policy_file import read_policies
from pipeline.control.registry import Registry
from pipeline.embedded.stack import DEFAULT_POLICIES
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError
from pipeline.events.control import Control, Plan, Tenant, parse
from pipeline.keys.vault import FileKeyring, Vault, tenant_keys
from pipeline.notify.webhook import headers
from tests.deployment_site import signing_of

HEAD = '[[model]]\nid = "m"\ncontext = 64\n[[plan]]\nid = "p"\nmodels = ["m"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"nothing in it: expected tables of \[\[plan\]\]"),
        (HEAD + "max_tokens = 0", "plan.* p: max_tokens: expected 1 or more, got 0"),
        (HEAD + "max_input_bytes = -5", "max_input_bytes: expected 1 or more, got -5"),
        (
            HEAD + 'personal_off = ["IP", "email"]',
            "personal_off: expected types of .*, got email; use ADDRESS,",
        ),
        (HEAD + '[[plan]]\nid = "p"', r"\[\[plan\]\] p: expected once, got 2 times"),
        (HEAD + '[[model]]\nid = "m"\ncontext = 99', r"\[\[model\]\] m: expected once, got 2 times"),
        (
            HEAD + 'tenant = [{id = "a", meter = "rate", amount = 1}, {id = "a", meter = "open", amount = 1}]',
            "tenant.a: expected an id of its own",
        ),
        (HEAD + 'principal = [{id = "a", meter = "window", amount = 1001}]', "principal.a: .* at most 1000"),
        (
            HEAD + 'organisation = [{id = "a", meter = "window", unit = "tokens", amount = 9}]',
            "organisation.a: a window counts requests",
        ),
        (HEAD + 'key = [{id = "a", meter = "window", amount = 1001}]', "key.a: .* at most 1000"),
        (
            HEAD + 'tenant = [{id = "a", meter = "window", amount = 9, period_s = 2764801}]',
            "tenant.a: expected a window full again within 2764800 s, got 2764801 s; take a budget",
        ),
        (
            HEAD + 'tenant = [{id = "a", meter = "rate", amount = 1, period_s = 31622400}]',
            "tenant.a: expected a rate full again within 2764800 s, got 31622400 s; take a budget",
        ),
        (
            HEAD + 'tenant = [{id = "a", meter = "rate", amount = 2, period_s = 86400, burst = 65}]',
            "tenant.a: expected a rate full again within 2764800 s, got 2808000 s; take a budget",
        ),
        (
            HEAD + '[plan.model]\n"*" = [{id = "a", meter = "open", amount = 1}]\n'
            'm = [{id = "a", meter = "open", amount = 2}]',
            "model.m.a: expected an id of its own",
        ),
        (HEAD + '[plan.model]\nn = [{id = "a", meter = "open", amount = 1}]', r"plan p names models .*: \['n'\]"),
        (
            HEAD + 'tenant = [{id = "a", meter = "rate", amount = 1, period = "day"}]',
            "tenant.0: .* expected period in a budget alone",
        ),
        (
            HEAD + 'tenant = [{id = "a", meter = "budget", amount = 1, period = "day", period_s = 3600}]',
            "tenant.0: .* without period_s",
        ),
        (
            HEAD + 'principal = [{id = "throttle", meter = "rate", amount = 1}]',
            "principal.throttle: expected another id",
        ),
        (
            HEAD + 'tenant = [{id = "a", meter = "budget", unit = "cost", amount = 1, period = "day"}]',
            r"plan p limits cost: expected a price for each model, got none: \['m'\]",
        ),
    ],
)
def test_what_no_operator_means(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said) as raised:
        read_policies(file)
    assert str(raised.value).startswith(f"{file}: ")


def test_one_id_may_stand_in_each_scope_and_the_default_file_is_fine(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    limit = '[{id = "a", meter = "window", amount = 1000}]'
    file.write_text(f"{HEAD}tenant = {limit}\nprincipal = {limit}\n")
    assert len(read_policies(file)) == 2
    found = read_policies(DEFAULT_POLICIES)
    assert len(found) == 5
    assert [parse(document.model_dump_json().encode()) for document in found] == found


class ControlStub:
    def __init__(self) -> None:
        self.control = Control()
        self.control.apply(0, Plan(id="team"))

    async def refresh(self) -> None:
        """Nothing is ever written here."""


@pytest.mark.parametrize(("tenant", "organisation"), [("Not An Id", "fine"), ("fine", "Not An Id")])
def test_a_tenant_that_does_not_fit_leaves_nothing_behind(
    tenant: str, organisation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def job() -> None:
        table: Any = ControlStub()
        keyring = FileKeyring.create(tmp_path / "keyring.json")
        registry = Registry(KafkaEndpoint("127.0.0.1:1"), table, keyring, signing_of(tmp_path))
        written: list[object] = []

        async def write(*document: object) -> None:
            written.append(document)

        monkeypatch.setattr(registry._writer, "write", write)
        with pytest.raises(ConfigError, match=r"tenant\.(id|organisation): String should match"):
            await registry.add_tenant(tenant, "team", organisation)
        assert not written

    asyncio.run(job())


def test_a_receiver_checks_deliveries_with_the_secret_that_is_shown(tmp_path: Path) -> None:
    kms, table, now = FileKeyring.create(tmp_path / "keyring.json"), ControlStub(), int(time.time())
    hook = "https://alerts.example/x"
    table.control.apply(
        1, Tenant(id="acme", organisation="acme", plan="team", webhook=hook, **tenant_keys(kms, "acme"))
    )
    registry = Registry(KafkaEndpoint("127.0.0.1:1"), table, kms, signing_of(tmp_path))  # type: ignore[arg-type]
    url, shown = registry.webhook("acme")
    signed = headers((Vault(kms, table.control).webhook_secret("acme"),), "alert-1", now, b'{"a": 1}')
    assert (url, Webhook(shown).verify(b'{"a": 1}', signed)) == (hook, {"a": 1})
    with pytest.raises(ConfigError, match="no tenant 'other'"):
        registry.webhook("other")
