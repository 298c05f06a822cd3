"""Every metric of the gateway: a closed table. Labels are routes, reasons and events, never keys, tenants or text."""

from __future__ import annotations

from pipeline.metrics import Meters, Metric

METRICS: tuple[Metric, ...] = (
    Metric("sluice_gateway_requests_total", "counter", "HTTP requests answered.", ("route", "status")),
    Metric("sluice_gateway_refusals_total", "counter", "Requests refused at the gateway itself.", ("reason",)),
    Metric(
        "sluice_gateway_wrong_keys_total", "counter", "Requests with a key that is unknown or whose secret is wrong."
    ),
    Metric("sluice_gateway_wrong_key_addresses", "gauge", "Addresses of which wrong keys are remembered."),
    Metric("sluice_gateway_connections", "gauge", "Connections that are open."),
    Metric("sluice_gateway_reaped_connections_total", "counter", "Connections closed while they waited, to make room."),
    Metric("sluice_gateway_open_requests", "gauge", "Requests that wait for their answer."),
    Metric("sluice_gateway_request_seconds", "histogram", "From arrival to the end of the answer.", ("route",)),
    Metric("sluice_gateway_first_text_seconds", "histogram", "From arrival to the first text of an answer."),
    Metric("sluice_gateway_tokens_total", "counter", "Tokens of finished answers.", ("direction",)),
    Metric("sluice_gateway_cancels_total", "counter", "Cancel records written because a client went away."),
    Metric("sluice_gateway_responses_total", "counter", "Response records read.", ("event",)),
    Metric("sluice_gateway_attempts_moved_total", "counter", "Answers that went on with another worker's run."),
    Metric("sluice_gateway_unknown_writes_total", "counter", "Records whose write the broker did not confirm."),
    Metric("sluice_gateway_reader_restarts_total", "counter", "Response readers that had to start again."),
    Metric("sluice_gateway_held_requests", "gauge", "Requests whose responses are held for a later GET."),
    Metric("sluice_gateway_held_bytes", "gauge", "Bytes of responses held for a later GET."),
    Metric("sluice_gateway_access_records_total", "counter", "Refusal summaries written to access."),
)


class Metrics(Meters):
    """The table's metrics."""

    def __init__(self) -> None:
        super().__init__(METRICS)
