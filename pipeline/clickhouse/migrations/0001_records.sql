-- Every sealed record, one row each. `body` is the exact bytes that were hashed; the typed columns are read from it.
CREATE TABLE IF NOT EXISTS records
(
    origin LowCardinality(String),
    batch UInt64 CODEC(DoubleDelta, ZSTD(1)),
    leaf UInt64 CODEC(DoubleDelta, ZSTD(1)),
    offset UInt64 CODEC(DoubleDelta, ZSTD(1)),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    kind LowCardinality(String),
    request String CODEC(ZSTD(1)),
    organisation LowCardinality(String),
    tenant LowCardinality(String),
    principal LowCardinality(String),
    sequence UInt64 CODEC(T64, ZSTD(1)),
    verdict LowCardinality(String),
    reason LowCardinality(String),
    limit_id LowCardinality(String),
    result LowCardinality(String),
    model LowCardinality(String),
    finish LowCardinality(String),
    reserved_tokens UInt64 CODEC(T64, ZSTD(1)),
    input_tokens UInt64 CODEC(T64, ZSTD(1)),
    output_tokens UInt64 CODEC(T64, ZSTD(1)),
    latency_ms UInt64 CODEC(T64, ZSTD(1)),
    first_token_ms UInt64 CODEC(T64, ZSTD(1)),
    rules Array(LowCardinality(String)),
    severity UInt8,
    body String CODEC(ZSTD(3))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (tenant, kind, time, origin, leaf)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- One row per sealed batch: enough to verify the rows above without Kafka.
CREATE TABLE IF NOT EXISTS manifests
(
    origin LowCardinality(String),
    batch UInt64,
    topic LowCardinality(String),
    partition UInt32,
    first UInt64,
    last UInt64,
    rows UInt64,
    skipped UInt64,
    size UInt64,
    root String,
    time DateTime64(3, 'UTC'),
    body String CODEC(ZSTD(3))
)
ENGINE = MergeTree
ORDER BY (origin, batch)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS schema_version
(
    version UInt32,
    applied DateTime64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY version;
