-- Requests decided in the time range. One row.
SELECT count() AS decisions
FROM records
WHERE kind = 'decision' AND $__timeFilter(records.time)
  AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
