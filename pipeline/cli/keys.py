"""``sluice keys``: replace the keys of the log, of tenants and of the keyring, while requests go on."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any, get_args

from pipeline import terminal, wiring
from pipeline.cli.arguments import BY, Act, add_command, add_group, whole
from pipeline.cli.show_keys import add_show
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.events.control import Tenant
from pipeline.events.wrapped import secret_id
from pipeline.keys.rotation import FIELDS, SecretKind
from pipeline.terminal import UnixMs

_ROTATE = """\
No request fails meanwhile: what was sealed, wrapped or signed under a former key still opens. A former key is dropped
by sluice keys forget alone, which says first what it closes. Every act is signed by you and stands in access.
"""
_EXAMPLES = """\
examples:
  sluice keys rotate data acme                       texts of acme are sealed under a new key from now on
  sluice keys rotate webhook acme --days 7           both secrets sign until the receiver has the new one
  sluice keys rotate log                             seal signs with new keys; sluice keys show prints them
  sluice keys rotate keyring --prepare               then copy keyring.json to the other hosts, then
  sluice keys rotate keyring                         wrap everything anew, and a quarter of an hour later
  sluice keys rotate keyring --drop                  the former key goes
a tenant with workers of its own:
  sluice keys rotate data bank --prepare && sluice deploy grant bank --out bank-keys && sluice keys rotate data bank
"""
_FORGET = """\
Without --yes it says what would be closed for ever, changes nothing and ends with exit code 2.
"""
_TENANT = "id of the tenant, as in: sluice tenant list"
_WAIT_S = 60


def add(commands: Any) -> None:
    """Add ``keys``."""
    group = add_group(commands, "keys", "show public keys, replace keys, and forget former ones")
    add_show(group)
    rotate = add_group(group, "rotate", "replace a key while requests go on", _ROTATE, _EXAMPLES)
    _add_secrets(rotate)
    _add_shared(rotate)
    forget = add_command(
        group, "forget", "drop a former key of a tenant, with all that only it opens", _forget, _FORGET
    )
    forget.add_argument("kind", choices=get_args(SecretKind), help="kind of the key")
    forget.add_argument("tenant", help=_TENANT)
    forget.add_argument("id", help="id of the former key, as rotate prints it")
    forget.add_argument("--yes", action="store_true", help="do it")
    forget.add_argument("--by", metavar="NAME", default="", help=BY)


def _add_secrets(rotate: Any) -> None:
    data = _add(rotate, "data", "replace the key that a tenant's texts are sealed under", _secret, _DATA)
    hpke = _add(rotate, "hpke", "replace the key that direct producers seal for", _secret, _HPKE)
    hook = _add(rotate, "webhook", "replace the secret that signs a tenant's deliveries", _webhook, _WEBHOOK)
    for parser in (data, hpke, hook):
        parser.add_argument("tenant", help=_TENANT)
    for parser in (data, hpke):
        parser.add_argument(
            "--prepare", action="store_true", help="only let readers know the next key, for workers to be granted it"
        )
    hook.add_argument(
        "--days", type=whole(0, 90), metavar="N", default=7, help="days that both secrets sign for (default: 7)"
    )


def _add_shared(rotate: Any) -> None:
    log = _add(rotate, "log", "replace the keys that sign the log", _log, _LOG)
    log.add_argument(
        "--wait",
        type=whole(1, 3600),
        metavar="SECONDS",
        default=_WAIT_S,
        help=f"seconds to wait for seal to go over (default: {_WAIT_S})",
    )
    log.add_argument(
        "--propose", type=Path, metavar="FILE", help="write each document to a file, for more roots to sign"
    )
    keyring = _add(rotate, "keyring", "replace the key that wraps all secrets in control", _keyring, _KEYRING)
    step = keyring.add_mutually_exclusive_group()
    step.add_argument("--prepare", action="store_true", help="only add the next key to the file, for copies to have it")
    step.add_argument("--drop", action="store_true", help="only drop former keys that nothing is wrapped with any more")
    _add(rotate, "wraps", "bind the secrets of API keys of before to key, principal and tenant", _wraps, _WRAPS)


_DATA = (
    "Requests and answers are sealed under the new key as soon as its readers have read of it; texts of before still "
    "open. The tenant's canary is another one then: sluice tenant canary; the former one is still found."
)
_HPKE = (
    "Producers that start from now on seal for the new key; those that run go on with the former one until they ask "
    "the gateway again, and both open."
)
_WEBHOOK = (
    "Prints the new secret. Deliveries bear both signatures for --days, as Standard Webhooks has it, so the receiver "
    "may take the new secret at any time in between."
)
_LOG = (
    "The deployment document names the new keys first, then seal signs with them, and when every origin has a manifest "
    "of theirs the former ones are retired: a root signs twice. Killed, or without seal, it goes on from there when "
    "it is run again. Give auditors the new keys."
)
_KEYRING = (
    "Every process that runs reads the file again when it meets the new key. Killed, it goes on with the rest when it "
    "is run again. Former keys stay until --drop."
)
_WRAPS = "Wraps with the keyring's key in use what another one has wrapped, too. Safe to repeat."


def _add(rotate: Any, name: str, summary: str, act: Act, description: str) -> argparse.ArgumentParser:
    parser = add_command(rotate, name, summary, act, description)
    parser.add_argument("--by", metavar="NAME", default="", help=BY)
    return parser


def _secret(arguments: argparse.Namespace, settings: Settings) -> int:
    kind: SecretKind = arguments.verb
    if arguments.prepare:
        document = asyncio.run(wiring.prepare_secret(settings, kind, arguments.tenant, by=arguments.by))
    else:
        document = asyncio.run(wiring.rotate_secret(settings, kind, arguments.tenant, by=arguments.by))
    return _print_secrets(kind, document, arguments)


def _webhook(arguments: argparse.Namespace, settings: Settings) -> int:
    tenant, days = arguments.tenant, arguments.days
    document, secret = asyncio.run(wiring.rotate_webhook(settings, tenant, days, by=arguments.by))
    columns = ("tenant", "secret", "both sign until")
    until = UnixMs(max((former.until for former in document.former_webhook_secrets), default=0))
    terminal.table("give it to the receiver", columns, [(tenant, secret, until)], as_json=arguments.json)
    return 0


def _log(arguments: argparse.Namespace, settings: Settings) -> int:
    asyncio.run(wiring.rotate_log(settings, arguments.wait, terminal.note, arguments.by, arguments.propose))
    keys = asyncio.run(wiring.log_keys(settings))
    terminal.table("log keys, oldest first", ("key",), [(key,) for key in keys], as_json=arguments.json)
    return 0


def _keyring(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.drop:
        rows = asyncio.run(wiring.drop_keyring(settings, by=arguments.by))
    else:
        rows = asyncio.run(wiring.rotate_keyring(settings, prepare=arguments.prepare, by=arguments.by))
    terminal.table("keyring", ("what", "value"), rows, as_json=arguments.json)
    return 0


def _wraps(arguments: argparse.Namespace, settings: Settings) -> int:
    rows = asyncio.run(wiring.rewrap_secrets(settings, by=arguments.by))
    terminal.table("wrapped anew", ("what", "value"), rows, as_json=arguments.json)
    return 0


def _forget(arguments: argparse.Namespace, settings: Settings) -> int:
    kind: SecretKind = arguments.kind
    closes = f"closed for ever: {FIELDS[kind].loses}"
    if not arguments.yes:
        raise ConfigError(f"{kind} key {arguments.id} of {arguments.tenant}: {closes}. To do it, add --yes")
    document = asyncio.run(wiring.forget_secret(settings, kind, arguments.tenant, arguments.id, by=arguments.by))
    terminal.note(closes)
    return _print_secrets(kind, document, arguments)


def _print_secrets(kind: SecretKind, document: Tenant, arguments: argparse.Namespace) -> int:
    fields = FIELDS[kind]
    rows: list[tuple[object, ...]] = [("in use", secret_id(getattr(document, fields.current)) or "without an id", "")]
    if fields.following and getattr(document, fields.following):
        rows.append(("next", secret_id(getattr(document, fields.following)), ""))
    former = reversed(getattr(document, fields.former))
    rows += [("former", secret_id(each.secret), UnixMs(each.retired)) for each in former]
    columns = ("key", "id", "retired")
    terminal.table(f"{kind} keys of {document.id}", columns, rows, as_json=arguments.json)
    return 0
