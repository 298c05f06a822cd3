-- Attempts to deliver alerts, by what they came to.
SELECT
    $__timeInterval(records.time) AS time,
    countIf(result = 'delivered') AS delivered,
    countIf(result = 'retry') AS failed,
    countIf(result = 'dead') AS given_up
FROM records
WHERE kind = 'delivery' AND $__timeFilter(records.time)
  AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
GROUP BY time
ORDER BY time WITH FILL FROM $__timeInterval($__fromTime) TO $__toTime STEP toIntervalSecond($__interval_s)
