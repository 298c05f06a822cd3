-- What analysts said of requests in which a rule fired; the newest label of each request counts.
SELECT
    rule,
    countIf(label = 'label.attack') AS confirmed,
    countIf(label = 'label.benign') AS false_alarms,
    confirmed / (confirmed + false_alarms) AS precision
FROM
(
    SELECT request, argMax(reason, (time, leaf)) AS label
    FROM records
    WHERE kind = 'access' AND reason IN ('label.attack', 'label.benign')
      AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
    GROUP BY request
) AS labels
INNER JOIN
(
    SELECT DISTINCT request, arrayJoin(rules) AS rule
    FROM records
    WHERE kind IN ('decision', 'outcome') AND notEmpty(rules) AND $__timeFilter(records.time)
) AS fired USING request
GROUP BY rule
ORDER BY confirmed + false_alarms DESC, rule
LIMIT 50
