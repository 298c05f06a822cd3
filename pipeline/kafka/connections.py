"""A connection that the broker has closed is a broken connection, whatever the event loop calls it.

aiokafka expects an OSError, or nothing, from a write to a closed transport; uvloop raises RuntimeError. Let out, it
would end the partition that asked.
"""

from __future__ import annotations

from typing import Any

from aiokafka import conn
from aiokafka.errors import KafkaConnectionError


class BrokerConnection(conn.AIOKafkaConnection):  # type: ignore[misc]
    """A connection to one broker that reports a closed transport as every other break."""

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request and give the future answer. Raises KafkaConnectionError where the connection is gone."""
        try:
            return super().send(request, expect_response=expect_response)
        except RuntimeError as error:
            self.close(reason=conn.CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error


def guard_connections() -> None:
    """Have every Kafka client of this process use ``BrokerConnection``."""
    conn.AIOKafkaConnection = BrokerConnection
