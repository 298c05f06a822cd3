"""The direct door: applications write their own signed records into Kafka and learn outcomes from the gateway."""

from __future__ import annotations

from pipeline.producer.blocking import SyncProducer, SyncTicket
from pipeline.producer.client import Producer, Ticket
from pipeline.producer.outcomes import Answer, NoAnswer, NotConfirmed, Refused
from pipeline.producer.redaction import Left

__all__ = ["Answer", "Left", "NoAnswer", "NotConfirmed", "Producer", "Refused", "SyncProducer", "SyncTicket", "Ticket"]
