"""Sets the accounts of a ClickHouse server to the table of accounts, and tells where they differ from it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pipeline.clickhouse.accounts import ACCOUNTS, StoreAccount
from pipeline.clickhouse.store import ClickHouseStore

_GRANTS = """
SELECT ifNull(user_name, role_name), toString(access_type), ifNull(database, '*'), ifNull(table, '*'),
    ifNull(column, ''), is_partial_revoke
FROM system.grants WHERE ifNull(user_name, role_name) IN {names:Array(String)}
"""
_BOUNDS = """
SELECT user_name, setting_name, ifNull(value, '') FROM system.settings_profile_elements
WHERE user_name IN {names:Array(String)} AND setting_name IS NOT NULL
"""
_USERS = "SELECT name FROM system.users WHERE name IN {names:Array(String)}"
_RUN = "run: sluice tables accounts apply"


class GrantedRight(NamedTuple):
    """One right on one column, or on a whole table (column ``''``)."""

    account: str
    operation: str
    database: str
    table: str
    column: str
    denied: bool = False

    @property
    def text(self) -> str:
        """Give it as GRANT and REVOKE write it."""
        column = f"(`{self.column}`)" if self.column else ""
        place = ".".join(name if name == "*" else f"`{name}`" for name in (self.database, self.table))
        return f"{self.operation}{column} ON {place}"


def check(store: ClickHouseStore, database: str) -> list[str]:
    """Give a sentence with the fix for each difference, none where all is well. Errors as `ClickHouseStore.query`."""
    granted = _granted(store)
    known = {right.account for right in granted} | _users(store)
    faults = [f"account {name} is missing; {_RUN}" for name in _names() if name not in known]
    for account in ACCOUNTS:
        wanted, present = _wanted(account, database), {r for r in granted if r.account == account.name}
        if account.name in known:
            faults += [f"account {account.name}: missing {right.text}; {_RUN}" for right in sorted(wanted - present)]
        faults += [f"account {account.name}: not in the table {r.text}; {_RUN}" for r in sorted(present - wanted)]
    return faults + _unbounded(store)


def apply(store: ClickHouseStore, database: str, passwords: Mapping[str, str]) -> list[tuple[str, str]]:
    """Make each account, with its password, its bounds and its rights; gives each change. Errors as `query`.

    What is too much is taken away last: a running stage must not lose a right in between.
    """
    users, granted, changes = _users(store), _granted(store), []
    for account in ACCOUNTS:
        verb = "ALTER" if account.name in users else "CREATE"
        store.command(f"{verb} USER `{account.name}` {_identified(passwords[account.name])} {_settings(account)}")
        changes.append(("password and bounds set" if verb == "ALTER" else "created", account.name))
        wanted, present = _wanted(account, database), {r for r in granted if r.account == account.name}
        for right in account.rights:
            if not set(_columns(account, right.operation, database, right.table, right.columns)) <= present:
                store.command(f"GRANT {right.on(database)} TO `{account.name}`")
                changes.append(("granted", f"{account.name}: {right.on(database)}"))
        for surplus in sorted(present - wanted):
            verb = f"GRANT {surplus.text} TO" if surplus.denied else f"REVOKE {surplus.text} FROM"
            store.command(f"{verb} `{account.name}`")
            changes.append(("revoked", f"{account.name}: {surplus.text}"))
    return changes


def _names() -> list[str]:
    return [account.name for account in ACCOUNTS]


def _users(store: ClickHouseStore) -> set[str]:
    return {str(name) for (name,) in store.query(_USERS, {"names": _names()})}


def _granted(store: ClickHouseStore) -> set[GrantedRight]:
    rows = store.query(_GRANTS, {"names": _names()})
    return {
        GrantedRight(str(account), str(operation), str(base), str(table), str(column), bool(denied))
        for account, operation, base, table, column, denied in rows
    }


def _wanted(account: StoreAccount, database: str) -> set[GrantedRight]:
    return {
        granted
        for right in account.rights
        for granted in _columns(account, right.operation, database, right.table, right.columns)
    }


def _columns(
    account: StoreAccount, operation: str, database: str, table: str, columns: tuple[str, ...]
) -> Iterator[GrantedRight]:
    for column in columns or ("",):
        yield GrantedRight(account.name, operation, database, table, column)


def _unbounded(store: ClickHouseStore) -> list[str]:
    """Bounds of a server's users; those of the embedded store are set with each statement."""
    users = _users(store)
    rows = store.query(_BOUNDS, {"names": sorted(users)}) if users else []
    set_to = {(str(user), str(setting)): str(value) for user, setting, value in rows}
    return [
        f"account {account.name}: {name} is {set_to.get((account.name, name), 'not set')}, expected {value}; {_RUN}"
        for account in ACCOUNTS
        if account.name in users
        for name, value in _values(account).items()
        if set_to.get((account.name, name)) != str(value)
    ]


def _values(account: StoreAccount) -> dict[str, int]:
    bounds = {name: bound.value for name, bound in account.bounds.items()}
    return bounds if account.writes else {"readonly": 1, **bounds}


def _settings(account: StoreAccount) -> str:
    """Bounds as CREATE USER writes them: a value, and the most that a statement may ask for."""
    parts = [] if account.writes else ["readonly = 1"]
    for name, bound in account.bounds.items():
        limits = (
            f"MIN 1 MAX {bound.most} {'' if account.writes else 'CHANGEABLE_IN_READONLY'}" if bound.most else "CONST"
        )
        parts.append(f"`{name}` = {bound.value} {limits}".rstrip())
    return f"SETTINGS {', '.join(parts)}"


def _identified(password: str) -> str:
    """The password as its hash: statements are kept in the server's logs."""
    salt = secrets.token_hex(16)
    digest = hashlib.sha256((password + salt).encode()).hexdigest()
    return f"IDENTIFIED WITH sha256_hash BY '{digest}' SALT '{salt}'"
