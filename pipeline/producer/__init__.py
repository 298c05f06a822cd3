"""The direct producer: applications write their own signed records into Kafka and learn outcomes from the gateway."""

from __future__ import annotations

from pipeline.producer.blocking import SyncProducer, SyncTicket
from pipeline.producer.client import Producer, Ticket
from pipeline.producer.outcomes import NoAnswer, NotConfirmed, Refused, Result
from pipeline.producer.redaction import Left

__all__ = ["Left", "NoAnswer", "NotConfirmed", "Producer", "Refused", "Result", "SyncProducer", "SyncTicket", "Ticket"]
