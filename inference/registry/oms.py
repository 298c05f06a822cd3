"""The same files signed once more for outside tools: an OpenSSF model-signing (OMS 1.0) bundle.

A Sigstore bundle v0.3 around a DSSE envelope around an in-toto statement v1 of SHA-256 digests, signed with ECDSA
P-256.
``model_signing verify key FOLDER --signature FOLDER/model.sig --public_key KEY`` checks it. It says nothing of
freshness, and this project never trusts it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from inference.registry.content import BUNDLE_FILE
from inference.registry.dsse import pae
from inference.registry.keys import ECDSA, SigningKey
from inference.registry.refusal import ModelRefused

_STATEMENT = "application/vnd.in-toto+json"


def bundle(model: str, digests: Mapping[str, str], key: SigningKey) -> bytes:
    """The bundle over ``{file name: SHA-256 in hex}`` of every file but the bundle itself. Raises ModelRefused."""
    if key.public.algorithm != ECDSA:
        raise ModelRefused("key", f"the OpenSSF bundle: expected an {ECDSA} key, got {key.public.algorithm}")
    payload = msgspec.json.encode(_statement(model, digests))
    envelope = {
        "payload": base64.b64encode(payload).decode("ascii"),
        "payloadType": _STATEMENT,
        "signatures": [{"sig": base64.b64encode(key.sign(pae(_STATEMENT, payload))).decode("ascii"), "keyid": ""}],
    }
    document = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(key.public.pem).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": envelope,
    }
    return msgspec.json.format(msgspec.json.encode(document)) + b"\n"


def _statement(model: str, digests: Mapping[str, str]) -> dict[str, Any]:
    names = sorted(digests)
    root = hashlib.sha256(b"".join(bytes.fromhex(digests[name]) for name in names)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": model, "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                # not .git and .github, which that tool leaves out by default and so leaves open
                "ignore_paths": [BUNDLE_FILE],
            },
            "resources": [{"name": name, "algorithm": "sha256", "digest": digests[name]} for name in names],
        },
    }
