"""Connections to brokers that end when they must, and say so as every other break does.

aiokafka expects an OSError, or nothing, from a write to a closed transport; uvloop raises RuntimeError. Let out, it
would end the partition that asked. And aiokafka does not prove who it is a second time (KIP-368), so a broker that asks
for it would cut it off in the middle of a request.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from aiokafka import conn
from aiokafka.errors import KafkaConnectionError, SaslAuthenticationFailed
from aiokafka.protocol.admin import SaslAuthenticateRequest

_RENEWED_AT = 0.85
"""Of the time for which a broker believes a login: what is asked from then on goes over a fresh connection."""
_LOOK_S = 0.05


class BrokerConnection(conn.AIOKafkaConnection):  # type: ignore[misc]
    """A connection to one broker that reports a closed transport as every other break, and is replaced in time where
    the broker believes a login for so long only."""

    _lapsing = False

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request and give the future answer. Raises KafkaConnectionError where the connection is gone."""
        try:
            answer = super().send(request, expect_response=expect_response)
        except RuntimeError as error:
            self.close(reason=conn.CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error
        return self._logged_in(answer) if isinstance(request, SaslAuthenticateRequest) else answer

    def connected(self) -> bool:
        """Tell whether to send over it; clients open another where not."""
        return not self._lapsing and super().connected()

    async def _logged_in(self, answer: Awaitable[Any]) -> Any:
        """Note for how long the broker believes what it was just told. Raises SaslAuthenticationFailed for a token that
        it does not believe, which aiokafka takes for a success (RFC 7628, section 3.2.3)."""
        told = await answer
        if self._sasl_mechanism == "OAUTHBEARER" and told.sasl_auth_bytes:
            raise SaslAuthenticationFailed("the broker does not believe the token")
        lifetime_ms = getattr(told, "session_lifetime_ms", 0)
        if lifetime_ms > 0:
            self._loop.call_later(_RENEWED_AT * lifetime_ms / 1000, self._lapse)
        return told

    def _lapse(self) -> None:
        """Take no more requests, and close once those under way are answered."""
        self._lapsing = True
        if self._requests:
            self._loop.call_later(_LOOK_S, self._lapse)
        else:
            self.close(reason=conn.CloseReason.IDLE_DROP)


def guard_connections() -> None:
    """Have every Kafka client of this process use ``BrokerConnection``."""
    conn.AIOKafkaConnection = BrokerConnection
