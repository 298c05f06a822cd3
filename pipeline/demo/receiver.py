"""A webhook target on loopback that takes nothing unsigned (Standard Webhooks)."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from pipeline.embedded.supervisor import LOOPBACK

_MAX_BYTES = 256 * 1024


class Receiver:
    """Counts alerts by tenant: each id once, however often it comes."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.refused = 0
        self.secrets: Mapping[str, bytes] = {}
        self._seen: set[str] = set()
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen on a free port and give the URL that tenants' names are appended to."""
        app = web.Application(client_max_size=_MAX_BYTES)
        app.router.add_post("/{tenant}", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        tenant = request.match_info["tenant"]
        body = await request.read()
        try:
            secret = base64.b64encode(self.secrets[tenant]).decode()
            Webhook(f"whsec_{secret}").verify(body, dict(request.headers))
        except (KeyError, WebhookVerificationError):
            self.refused += 1
            return web.Response(status=401)
        alert = request.headers["webhook-id"]
        if alert not in self._seen:
            self._seen.add(alert)
            self.received[tenant] += 1
        return web.Response(status=204)
