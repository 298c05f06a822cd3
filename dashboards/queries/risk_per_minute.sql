-- Decisions per minute by the risk of their worst finding, 1 to 100; without findings a decision has none.
SELECT
    $__timeInterval(records.time) AS time,
    countIf(risk >= 75) * 60 / $__interval_s AS grave,
    countIf(risk BETWEEN 50 AND 74) * 60 / $__interval_s AS high,
    countIf(risk BETWEEN 25 AND 49) * 60 / $__interval_s AS medium,
    countIf(risk BETWEEN 1 AND 24) * 60 / $__interval_s AS low
FROM records
WHERE kind = 'decision' AND $__timeFilter(records.time)
  AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
GROUP BY time
ORDER BY time WITH FILL FROM $__timeInterval($__fromTime) TO $__toTime STEP toIntervalSecond($__interval_s)
