-- Decisions per minute by verdict. Quiet intervals are filled with 0; see "Newest record" for whether the log stands still.
SELECT
    $__timeInterval(records.time) AS time,
    countIf(verdict = 'admit') * 60 / $__interval_s AS admitted,
    countIf(verdict = 'deny') * 60 / $__interval_s AS refused
FROM records
WHERE kind = 'decision' AND $__timeFilter(records.time)
  AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
GROUP BY time
ORDER BY time WITH FILL FROM $__timeInterval($__fromTime) TO $__toTime STEP toIntervalSecond($__interval_s)
