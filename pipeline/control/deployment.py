"""The first signed document of a deployment is made and written once; an older deployment is taken over by its own.

Written in this order, so that a crash between two steps is made good by the next start: keys, the record in a file, the
record in ``control``, and last the pin, by which every process trusts what it reads there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.config import Keys, Settings
from pipeline.control.table import ControlTable
from pipeline.errors import ConfigError, Malformed
from pipeline.events.codec import decode, encode
from pipeline.events.control import Control, Deployment, Operator, RootKey
from pipeline.events.signed_document import DEPLOYMENT, SignedDocument, digest, message, sign
from pipeline.kafka.writer import Publisher
from pipeline.keys.files import create_once, replace_file
from pipeline.keys.signing import create_signer
from pipeline.keys.vault import FileKeyring, Vault
from pipeline.retry import retry_until

_LEADER_S = 10.0
_TAKE_OVERS = 20
Tell = Callable[[str], None]


def mint(settings: Settings, log_keys: tuple[str, ...]) -> str:
    """Make the keys and the first document of a new deployment, and pin it; gives the pin. Nothing is sent."""
    keys = settings.keys
    if not _record_file(keys).exists():
        first = _with_keys(keys, Deployment(partitions=settings.kafka.partitions, log_keys=log_keys))
        create_once(_record_file(keys), encode(_signed(keys, first, "")).decode())
    pin = _pin_of(keys)
    create_once(keys.pin_file, pin)
    return pin


async def establish(settings: Settings, log_keys: tuple[str, ...], tell: Tell) -> Control:
    """Write the first document where it is missing, or take an older deployment over; gives ``control``.

    Raises ConfigError where ``control`` is a deployment that nothing here vouches for.
    """
    keys = settings.keys
    table = ControlTable(settings.kafka.endpoint, keys.pin or _pin_of(keys))
    try:
        # a topic that was just made may not have its leader yet
        await retry_until(table.start, _LEADER_S, "the leader of control")
        if table.fold.signed:
            create_once(keys.pin_file, table.fold.pin)
            return table.control
        if not keys.pin and table.fold.other:
            raise ConfigError(
                f"control holds the signed deployment {table.fold.other}, and nothing here says that it is yours; "
                "restore the file deployment in keys.home, or set keys.deployment to what sluice keys show prints"
            )
        if table.control.deployment is not None:
            if keys.pin:
                raise ConfigError(
                    f"control holds the unsigned deployment {table.control.generation}, and {keys.home} pins another; "
                    "set keys.home to the folder of that deployment's keys, or connect to the brokers of this one"
                )
            _require_own(keys, table.control, log_keys)
            return await _take_over(settings, table, tell)
        mint(settings, log_keys)
        return await _publish(settings, tell)
    finally:
        await table.close()


async def _publish(settings: Settings, tell: Tell) -> Control:
    """Send the record that ``mint`` made, and see that it counts."""
    keys = settings.keys
    if _pin_of(keys) != keys.pin:
        raise ConfigError(
            f"control holds nothing of the deployment {keys.pin[:16]}, and its first document is not in keys.home; "
            "connect to the brokers of that deployment, or correct keys.deployment"
        )
    control = await _send(settings, keys.pin)
    if control is None:
        raise ConfigError("the first deployment document was passed over by control; start again with other brokers")
    tell(f"a new deployment: {control.generation}, pinned by {keys.pin_file}")
    tell(f"its root key is in {keys.roots}: keep it offline once the deployment is set up")
    return control


def _require_own(keys: Keys, control: Control, log_keys: tuple[str, ...]) -> None:
    """Raise ConfigError where the keys here are another deployment's: signing for it would shut its own ones out."""
    named = control.require_deployment().log_keys
    try:
        Vault(FileKeyring(keys.keyring), control).require_all()
        if named and not set(log_keys) <= set(named):
            raise ConfigError(f"{keys.log_key} is no key of its log")
    except ConfigError as error:
        raise ConfigError(
            f"the keys in {keys.home} are not those of the deployment {control.generation}: {error}; "
            "set keys.home to the folder that it was set up with"
        ) from error


async def _take_over(settings: Settings, table: ControlTable, tell: Tell) -> Control:
    """Sign for all that lies in ``control``: a document at its end with the digest of the records below."""
    keys = settings.keys
    for _ in range(_TAKE_OVERS):
        await table.refresh()
        current = table.control.require_deployment()
        place = {"adopts": await table.end(), "adopted": table.fold.prefix}
        document = _with_keys(keys, current.model_copy(update=place))
        replace_file(_record_file(keys), encode(_signed(keys, document, table.fold.digest_of(DEPLOYMENT))).decode())
        pin = _pin_of(keys)
        control = await _send(settings, pin)
        # another record came first where it is None
        if control is not None:
            create_once(keys.pin_file, pin)
            tell(f"taken over: the {place['adopts']} records of {control.generation}, which bore no signatures")
            tell(f"from now on control is signed by the operator's key in {keys.operators}, pinned by {keys.pin_file}")
            tell(f"the root key is in {keys.roots}: keep it offline")
            return control
    raise ConfigError("control is written to all the time; end what writes it, and run: sluice topics apply")


async def _send(settings: Settings, pin: str) -> Control | None:
    """Send the record in the file; gives ``control`` where that put the deployment of ``pin`` in force."""
    kafka = settings.kafka.endpoint
    table, publisher = ControlTable(kafka, pin), Publisher(kafka)
    try:
        await publisher.send("control", 0, DEPLOYMENT.encode(), _record_file(settings.keys).read_bytes())
        await table.start()
        return table.control if table.fold.signed else None
    finally:
        await publisher.close()
        await table.close()


def _with_keys(keys: Keys, document: Deployment) -> Deployment:
    root = create_signer(keys.roots / "root.pem")
    operator = create_signer(keys.operators / f"{keys.operator}.pem")
    named = {
        "roots": (RootKey(name=root.name, public=root.public),),
        "threshold": 1,
        "operators": (Operator(id=operator.name, public=operator.public, role="administrator"),),
    }
    return document.model_copy(update=named)


def _signed(keys: Keys, document: Deployment, replaces: str) -> SignedDocument:
    return sign("", document, replaces, [create_signer(keys.roots / "root.pem")])


def _record_file(keys: Keys) -> Path:
    return keys.home / "deployment.json"


def _pin_of(keys: Keys) -> str:
    """Give the digest of the record in the file; empty where there is none."""
    try:
        record = decode(SignedDocument, _record_file(keys).read_bytes())
    except (OSError, Malformed):
        return ""
    return digest(message("", DEPLOYMENT, record.replaces, record.document))
