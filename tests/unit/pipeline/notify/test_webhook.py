"""Webhook targets and signatures: what is refused, and that the reference library accepts the rest."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import time

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from pipeline.keys.vault import secret_text
from pipeline.notify import webhook
from pipeline.notify.outbox import WebhookReply
from pipeline.notify.webhook import TargetRefused, WebhookSender

SECRET = b"s" * 32


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff0e::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
    ],
)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not webhook.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001:800::200e"])
def test_addresses_outside_are_public(address: str) -> None:
    assert webhook.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://hooks.example.com/a", "https"),
        ("ftp://hooks.example.com/a", "https"),
        ("file:///etc/passwd", "https"),
        ("https:///a", "host"),
        ("not a url", "https"),
        ("https://user:word@hooks.example.com/", "no user"),
        ("https://hooks.example.com:22/", "port"),
        ("https://hooks.example.com:99999/", "not a URL"),
        ("https://127.0.0.1/", "not public"),
        ("https://[::1]/", "not public"),
        ("https://[::ffff:10.0.0.1]/", "not public"),
        ("https://169.254.169.254/latest/meta-data/", "not public"),
    ],
)
def test_targets_that_are_refused(url: str, told: str) -> None:
    with pytest.raises(TargetRefused, match=told):
        webhook.check(url, allow_private=False)


def test_targets_that_are_taken() -> None:
    assert str(webhook.check("https://hooks.example.com/a?b=c", False)) == "https://hooks.example.com/a?b=c"
    assert webhook.check("https://8.8.8.8:8443/", False).port == 8443
    assert webhook.check("http://127.0.0.1:9/", True).port == 9


def test_the_reference_library_accepts_the_signature_and_no_other() -> None:
    body, now = b'{"type":"alert.raised"}', int(time.time())
    sent = webhook.headers((SECRET,), "a" * 32, now, body)
    receiver = Webhook(secret_text(SECRET))
    assert receiver.verify(body, sent) == {"type": "alert.raised"}
    for forged in ({"webhook-id": "b" * 32}, {"webhook-timestamp": str(now + 1)}):
        with pytest.raises(Exception, match="No matching signature"):
            receiver.verify(body, {**sent, **forged})
    with pytest.raises(Exception, match="No matching signature"):
        receiver.verify(body + b" ", sent)


def test_during_an_overlap_receivers_with_either_secret_take_the_delivery() -> None:
    body, later = b'{"type":"alert.raised"}', os.urandom(32)
    sent = webhook.headers((later, SECRET), "a" * 32, int(time.time()), body)
    for secret in (later, SECRET):
        assert Webhook(secret_text(secret)).verify(body, sent) == {"type": "alert.raised"}
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(secret_text(os.urandom(32))).verify(body, sent)


async def post(url: str, allow_private: bool, timeout_s: float = 5.0) -> WebhookReply:
    async with WebhookSender(allow_private, timeout_s) as courier:
        return await courier.post(url, (SECRET,), "a" * 32, int(time.time()), b"{}")


@pytest.mark.parametrize("host", ["localhost", "0x7f.1"])
def test_names_that_lead_inside_are_refused_when_they_are_resolved(host: str) -> None:
    answer = asyncio.run(post(f"https://{host}/", False))
    assert answer.status == 0
    assert "not public" in answer.fault


@pytest.mark.parametrize("host", ["2130706433", "127.1"])
def test_addresses_written_as_numbers_are_refused(host: str) -> None:
    assert asyncio.run(post(f"https://{host}/", False)) == WebhookReply(0, fault="InvalidUrlClientError")


def test_redirects_are_not_followed_and_bodies_not_read() -> None:
    seen: list[str] = []

    async def route(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        if request.path == "/endless":
            return web.Response(body=b"x" * 50_000_000)
        if request.path == "/slow-down":
            return web.Response(status=429, headers={"retry-after": "7"})
        raise web.HTTPFound("/elsewhere")

    async def run() -> list[WebhookReply]:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", route)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            return [await post(f"http://127.0.0.1:{port}/{path}", True) for path in ("moved", "endless", "slow-down")]
        finally:
            await runner.cleanup()

    moved, endless, slow = asyncio.run(run())
    assert seen == ["/moved", "/endless", "/slow-down"]
    assert (moved.status, endless.status, slow.status, slow.retry_after_ms) == (302, 200, 429, 7000)


def test_a_dead_or_silent_target_is_an_answer_and_no_error() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        refused = asyncio.run(post(f"http://127.0.0.1:{port}/secret-path", True))
        silent.listen()
        hung = asyncio.run(post(f"http://127.0.0.1:{port}/secret-path", True, timeout_s=0.3))
    assert refused.status == hung.status == 0
    assert refused.fault
    assert hung.fault
    assert "secret-path" not in refused.fault + hung.fault


def test_a_payload_above_what_receivers_take_is_not_sent() -> None:
    async def run() -> WebhookReply:
        async with WebhookSender(True, 1.0) as courier:
            return await courier.post("http://127.0.0.1:9/", (SECRET,), "a" * 32, 0, b"x" * 20_001)

    assert "20001 bytes" in asyncio.run(run()).fault
