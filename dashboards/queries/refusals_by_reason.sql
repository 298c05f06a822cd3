-- Refused requests by their first reason.
SELECT reason, count() AS refusals
FROM records
WHERE kind = 'decision' AND verdict = 'deny' AND $__timeFilter(records.time)
  AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
GROUP BY reason
ORDER BY refusals DESC, reason
LIMIT 20
