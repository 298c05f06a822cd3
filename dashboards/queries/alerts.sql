-- Newest alerts, and what became of their delivery: the newest attempt on record.
SELECT
    alerts.time AS raised,
    alerts.severity AS severity,
    alerts.rules[1] AS rule,
    alerts.tenant AS tenant,
    alerts.principal AS principal,
    JSONExtractUInt(alerts.body, 'count') AS hits,
    JSONExtractString(alerts.body, 'title') AS title,
    if(attempts.result = '', 'none', attempts.result) AS delivery,
    attempts.made AS attempts,
    alerts.request AS alert
FROM
(
    SELECT * FROM records
    WHERE kind = 'alert' AND $__timeFilter(records.time)
      AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
    ORDER BY records.time DESC, request
    LIMIT 1 BY request
    LIMIT 200
) AS alerts
LEFT JOIN
(
    SELECT request, argMax(result, offset) AS result, count() AS made
    FROM records
    WHERE kind = 'delivery'
    GROUP BY request
) AS attempts ON attempts.request = alerts.request
ORDER BY raised DESC, alert
