"""Models that are a tenant's adapter: whole or not at all, over a base of the file, and nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.control.policy_file import read_policies
from pipeline.errors import ConfigError, Malformed
from pipeline.events import plans
from pipeline.events.codec import encode
from pipeline.events.control import Model, Plan, parse

OWN: dict[str, Any] = {"tenant": "acme", "base": "glossary", "adapter": "acme-tone"}
BASE = Model(id="glossary", context=1024)
ADAPTER = Model(id="glossary:acme", context=1024, **OWN)


@pytest.mark.parametrize("left_out", sorted(OWN))
def test_half_an_adapter_is_no_model(left_out: str) -> None:
    fields: dict[str, Any] = {"doc": "model", "id": "m", "context": 64, **OWN}
    assert parse(encode(fields)) == Model(id="m", context=64, **OWN)
    del fields[left_out]
    with pytest.raises(Malformed, match="together, or none"):
        parse(encode(fields))


@pytest.mark.parametrize(
    ("model", "tenant", "models", "knows", "allows"),
    [
        (BASE, "acme", ("glossary",), True, True),
        (BASE, "acme", ("echo",), True, False),
        (ADAPTER, "acme", ("glossary",), True, True),
        (ADAPTER, "acme", ("echo",), True, False),
        (ADAPTER, "acme", ("glossary:acme",), True, False),
        (ADAPTER, "beta", ("glossary",), False, False),
        (ADAPTER, "beta", ("glossary", "glossary:acme"), False, False),
    ],
)
def test_who_knows_of_a_model_and_who_may_ask(
    model: Model, tenant: str, models: tuple[str, ...], knows: bool, allows: bool
) -> None:
    assert plans.knows(tenant, model) == knows
    assert plans.allows(Plan(id="p", models=models), tenant, model) == allows
    assert not plans.knows(tenant, None)


def written(path: Path, *models: str) -> Path:
    path.write_text("".join(f"[[model]]\ncontext = 64\n{fields}\n" for fields in models))
    return path


def adapter(name: str, base: str) -> str:
    return f'id = "{name}"\ntenant = "acme"\nbase = "{base}"\nadapter = "acme-tone"'


@pytest.mark.parametrize("others", [(), (adapter("glossary", "else"), 'id = "else"')])
def test_a_file_names_a_base_that_is_one(tmp_path: Path, others: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="no base in the file"):
        read_policies(written(tmp_path / "p.toml", adapter("glossary:acme", "glossary"), *others))
    whole = written(tmp_path / "p.toml", adapter("glossary:acme", "glossary"), 'id = "glossary"')
    assert [document.id for document in read_policies(whole)] == ["glossary:acme", "glossary"]
