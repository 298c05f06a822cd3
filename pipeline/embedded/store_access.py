"""Tells the embedded engine of the store's accounts: a role for each, enforced by ClickHouse's own access control.

The engine (chdb) knows one user and creates none while it runs, but reads users and roles from a file when it opens.
So each account is a role there, and a statement runs under ``SET ROLE`` of the account that asked. The one user has no
right but by its roles, and none of them may reach files, addresses or other programs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from pipeline.clickhouse.accounts import ACCOUNTS, NAMES, OPERATOR, StoreAccount

DATABASE = "sluice"
INCOMING = "incoming"
"""The role under which the engine reads the rows of an insert from the file where the server laid them down."""
_OPERATOR_GRANT = (
    "GRANT SHOW, SHOW ACCESS, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, DROP DATABASE, DROP TABLE, "
    "TRUNCATE, OPTIMIZE, CHECK ON *.*"
)
_INCOMING_GRANTS = ("GRANT CREATE TEMPORARY TABLE ON *.*", "GRANT READ ON FILE")
_PROFILE = {"input_format_values_interpret_expressions": "0"}
"""An expression among the rows of VALUES is no part of the statement, so its functions could not be looked at."""
_FIXED = (
    *_PROFILE,
    # the guard reads a statement in ClickHouse's own dialect
    "dialect",
    # each of these names a file of this machine, or a place for tables outside the store's folder
    "format_schema",
    "format_schema_source",
    "format_template_row",
    "format_template_resultset",
    "merge_tree_disk",
    "merge_tree_storage_policy",
)


def write_access(folder: Path) -> Path:
    """Write what the engine reads when it opens into ``folder``; gives the file to name to it."""
    folder.mkdir(exist_ok=True, mode=0o700)
    users, config = folder / "users.xml", folder / "config.xml"
    _write(users, _users())
    _write(config, _tree("clickhouse", {"users_config": str(users)}))
    return config


def role_statement(account: str, *, incoming: bool) -> str:
    """Give the statement that leaves a connection what ``account`` may do; ``incoming``: and the rows of an insert."""
    return f"SET ROLE `{account}`" + (f", `{INCOMING}`" if incoming else "")


def _users() -> ElementTree.Element:
    root = _tree("clickhouse", {"profiles": {"default": _PROFILE}, "quotas": {"default": {}}})
    constraints = ElementTree.SubElement(root.find("profiles/default") or root, "constraints")
    for name in _FIXED:
        constraints.append(_tree(name, {"readonly": {}}))
    roles = ElementTree.SubElement(root, "roles")
    for name, grants in _roles().items():
        roles.append(_granted(name, grants))
    users = ElementTree.SubElement(root, "users")
    only = _granted("default", [f"GRANT {', '.join(f'`{name}`' for name in (*NAMES, INCOMING))}"])
    for name, value in {"password": "", "profile": "default", "quota": "default"}.items():
        only.append(_tree(name, value))
    only.append(_tree("networks", {"ip": "::/0"}))
    users.append(only)
    return root


def _roles() -> dict[str, list[str]]:
    roles = {account.name: _grants(account) for account in ACCOUNTS}
    return {OPERATOR: [_OPERATOR_GRANT], **roles, INCOMING: list(_INCOMING_GRANTS)}


def _grants(account: StoreAccount) -> list[str]:
    return [f"GRANT {right.on(DATABASE)}" for right in account.rights]


def _granted(name: str, grants: list[str]) -> ElementTree.Element:
    element = ElementTree.Element(name)
    queries = ElementTree.SubElement(element, "grants")
    queries.extend(_tree("query", grant) for grant in grants)
    return element


def _tree(name: str, content: Mapping[str, object] | object) -> ElementTree.Element:
    element = ElementTree.Element(name)
    if isinstance(content, Mapping):
        element.extend(_tree(inner, value) for inner, value in content.items())
    else:
        element.text = str(content)
    return element


def _write(path: Path, root: ElementTree.Element) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
