-- Finished requests: milliseconds from the request's record to the completion's, and to the first token. No value where none finished.
SELECT
    $__timeInterval(records.time) AS time,
    quantileOrNull(0.5)(latency_ms) AS p50,
    quantileOrNull(0.99)(latency_ms) AS p99,
    quantileOrNull(0.5)(first_token_ms) AS first_token_p50
FROM records
WHERE kind = 'outcome' AND result = 'finished' AND $__timeFilter(records.time)
  AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
GROUP BY time
ORDER BY time
