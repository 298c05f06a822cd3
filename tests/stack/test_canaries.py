"""No prompt, answer or key secret can be read anywhere the whole stack writes: files, topics, store, metrics, errors.

One stack start. Every door is used, and every way of being refused; then what is left behind is searched for the
canaries in each encoding that a leak would wear. The search is shown to find what is there.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.embedded.stack import LocalStack, Ports
from pipeline.embedded.supervisor import free_port
from pipeline.gateway.auth import parse_bearer
from tests.deployment_site import CACHE
from tests.stack.canary_play import MARK, NAMES, PLANS, Remains, canary, played, stored, topics


def forms(secret: bytes) -> set[bytes]:
    """The readable forms of a secret: as it is, hex, UTF-16, and inside base64 at each of the three alignments."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    found.add(secret.decode("latin-1").encode("utf-16-le"))
    for shift in range(3):
        # the first and the last four letters also hold bits of the neighbours
        inner = slice(4 if shift else 0, -4)
        found |= {encode(bytes(shift) + secret)[inner] for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    return found


@pytest.fixture(scope="module")
def remains(tmp_path_factory: pytest.TempPathFactory) -> Remains:
    home = tmp_path_factory.mktemp("stack") / "home"
    ports = Ports(free_port(), free_port(), free_port(), free_port())
    stack = LocalStack(home, CACHE, ports, {"SLUICE_GENERATE__MODEL": "echo"})
    try:
        stack.start(print)
        found = asyncio.run(played(stack))
        found.topics, written = asyncio.run(topics(stack.settings))
        found.bodies, found.opened = stored(stack.settings, written)
    finally:
        stack.stop()
    return found


def files(home: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(home.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(home)), path.read_bytes()


def places(remains: Remains) -> Iterator[tuple[str, bytes]]:
    yield from files(remains.home)
    yield from ((f"topic {name}", raw) for name, raw in remains.topics.items())
    yield "store", b"\n".join(remains.bodies)
    yield "metrics", remains.metrics
    yield "errors", b"\n".join(remains.errors)
    yield "webhooks", remains.webhooks


def hits(remains: Remains, needles: set[bytes]) -> list[str]:
    return [place for place, raw in places(remains) if any(needle in raw for needle in needles)]


def test_every_way_in_was_taken(remains: Remains) -> None:
    reasons = {name: {reason for seen, reason in remains.seen if seen == name} for name in NAMES}
    assert reasons == {
        **{name: {""} for name in ("chat", "stream", "simple", "kafka", "personal")},
        "injection": {"injection"},
        "direct-injection": {"injection"},
        "quota": {"", "rate_limited"},
        "foreign-key": {"?"},
        "no-list": {"?"},
        "oversized": {"input_too_long"},
        "too-long": {"input_too_long"},
        "model": {"unknown_model"},
        "role": {"invalid_value"},
        "type": {"invalid_type"},
        "utf8": {"invalid_json"},
        "cut": {"invalid_json"},
        "wrong-key": {"unknown_key"},
        "revoked": {"revoked_key"},
    }
    for name in ("chat", "stream", "simple", "kafka"):
        assert canary(name) in remains.answers[name].replace('"}\n\ndata: {"text":"', "")
    assert canary("personal") not in remains.answers["personal"]
    assert b'"undecryptable"' in remains.topics["decisions"]
    assert b'"malformed"' in remains.topics["decisions"]


def test_no_prompt_and_no_answer_can_be_read_anywhere(remains: Remains) -> None:
    assert hits(remains, forms(MARK.encode())) == []


@pytest.mark.parametrize("who", [*PLANS, "revoked"])
def test_no_key_secret_can_be_read_anywhere(remains: Remains, who: str) -> None:
    parsed = parse_bearer(remains.keys[who])
    assert parsed is not None
    needles = {*forms(parsed[1]), remains.keys[who].rpartition(".")[2].encode()}
    assert hits(remains, needles) == []


def test_the_search_finds_what_is_there(remains: Remains) -> None:
    for before in range(3):
        assert any(form in base64.b64encode(b"x" * before + MARK.encode() + b"yz") for form in forms(MARK.encode()))
    found = hits(remains, {b"globex-app"})
    assert {"topic decisions", "topic requests", "topic alerts", "store", "webhooks"} <= set(found)
    assert any(place.startswith("kafka/") and place.endswith(".log") for place in found)
    names = [name for name, _ in files(remains.home)]
    assert {"sluice.toml", "keys/keyring.json", "keys/log-key.json", "logs/gateway.log", "logs/admit.log"} <= {*names}
    assert any(name.startswith("clickhouse/") and name.endswith(".bin") for name in names)
    kept = "".join(remains.opened)
    assert canary("chat") in kept
    assert canary("injection") in kept
