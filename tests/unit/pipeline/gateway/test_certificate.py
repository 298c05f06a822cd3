"""The gateway's certificate, over real TLS with a real HTTP client: replaced while it serves."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from pipeline.errors import ConfigError
from pipeline.gateway.certificate import ServedCertificate
from tests.certificates import write_pair
from tests.patience import STUCK_S


class Site:
    """A server of one page under a certificate, and a client that trusts what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "served.pem", folder / "served.key"
        self.digest = write_pair(self.certificate, self.key)
        self.counts: list[str] = []
        self.served = ServedCertificate(self.certificate, self.key, self.counts.append)

    async def start(self) -> None:
        async def page(_: web.Request) -> web.Response:
            return web.Response(text="here")

        app = web.Application()
        app.router.add_get("/", page)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.served.context)
        await site.start()
        self.port = self.runner.addresses[0][1]

    def client(self, **options: ssl.TLSVersion) -> http.client.HTTPSConnection:
        """A connection of its own that trusts the certificate as the file has it now."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        for name, value in options.items():
            setattr(context, name, value)
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context)

    async def seen(self, client: http.client.HTTPSConnection) -> bytes:
        """Ask for the page; gives the digest of the certificate that the server showed."""
        return await asyncio.to_thread(self._seen, client)

    def _seen(self, client: http.client.HTTPSConnection) -> bytes:
        client.request("GET", "/")
        assert client.getresponse().read() == b"here"
        shown = client.sock.getpeercert(binary_form=True)
        assert isinstance(shown, bytes)
        return hashlib.sha256(shown).digest()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_new_certificate_leads_the_next_handshake_and_ends_no_connection(site: Site) -> None:
    async def play() -> None:
        await site.start()
        first = site.client()
        assert await site.seen(first) == site.digest
        other = write_pair(site.certificate, site.key)
        site.served.reread()
        # kept alive, so under the certificate of its handshake
        assert await site.seen(first) == site.digest
        assert await site.seen(site.client()) == other
        first.close()
        await site.runner.cleanup()

    asyncio.run(play())
    assert site.counts == ["taken"]


def test_the_files_are_looked_at_while_it_serves(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.gateway.certificate.LOOK_S", 0.01)

    async def play() -> None:
        stop, taken = asyncio.Event(), asyncio.Event()
        site.served = ServedCertificate(site.certificate, site.key, lambda _: taken.set())
        following = asyncio.create_task(site.served.follow(stop))
        write_pair(site.certificate, site.key)
        await asyncio.wait_for(taken.wait(), STUCK_S)
        stop.set()
        await following

    asyncio.run(play())


@pytest.mark.parametrize("break_it", ["text", "other key", "gone"])
def test_files_that_do_not_fit_leave_the_certificate_before(
    site: Site, break_it: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = site.certificate.read_bytes()

    async def play() -> None:
        await site.start()
        trusting = site.client()
        if break_it == "text":
            site.certificate.write_text("no certificate")
        elif break_it == "gone":
            site.key.unlink()
        else:
            write_pair(tmp_path / "another.pem", site.key)
        site.served.reread()
        site.served.reread()
        assert await site.seen(trusting) == site.digest
        assert site.counts == ["refused"]
        assert "passed over" in caplog.text
        mended = write_pair(site.certificate, site.key)
        site.served.reread()
        assert await site.seen(site.client()) == mended
        await site.runner.cleanup()

    asyncio.run(play())
    assert before != site.certificate.read_bytes()
    assert site.counts == ["refused", "taken"]


def test_versions_below_tls_1_2_are_refused(site: Site) -> None:
    async def play() -> None:
        await site.start()
        with pytest.raises(ssl.SSLError):
            await site.seen(site.client(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1))
        assert await site.seen(site.client(maximum_version=ssl.TLSVersion.TLSv1_2)) == site.digest
        await site.runner.cleanup()

    asyncio.run(play())


def test_a_start_without_a_whole_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.certificate_file.*No such file"):
        ServedCertificate(tmp_path / "absent.pem", None)
    write_pair(tmp_path / "one.pem", tmp_path / "one.key")
    write_pair(tmp_path / "two.pem", tmp_path / "two.key")
    with pytest.raises(ConfigError, match=r"gateway\.certificate_file"):
        ServedCertificate(tmp_path / "one.pem", tmp_path / "two.key")
