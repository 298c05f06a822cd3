"""An operator's act in ``access`` bears the operator's signature: nobody is named who did not sign."""

from __future__ import annotations

import msgspec

from pipeline.events.codec import encode
from pipeline.events.messages import Access
from pipeline.events.signed_document import Signer

_DOMAIN = b"sluice/access/v1\n"


def access_message(record: Access, generation: str) -> bytes:
    """Give the bytes that are signed: the deployment, and the record with its key but without the signature."""
    return _DOMAIN + generation.encode() + b"\n" + encode(msgspec.structs.replace(record, signature=b""))


def sign_access(record: Access, generation: str, signer: Signer) -> Access:
    """Give the record with key and signature."""
    named = msgspec.structs.replace(record, key=signer.key)
    return msgspec.structs.replace(named, signature=signer.sign(access_message(named, generation)))
