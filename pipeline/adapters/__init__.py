"""The rim: Kafka, ClickHouse, HTTP, processes. Only wiring knows this package."""
