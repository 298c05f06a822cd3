-- Requests in which a detection rule fired, on the way in (decision) and on the way out (outcome).
SELECT
    arrayJoin(rules) AS rule,
    countIf(kind = 'decision') AS prompts,
    countIf(kind = 'outcome') AS answers
FROM records
WHERE kind IN ('decision', 'outcome') AND notEmpty(rules) AND $__timeFilter(records.time)
  AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
GROUP BY rule
ORDER BY prompts + answers DESC, rule
LIMIT 20
