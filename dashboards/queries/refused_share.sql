-- Part of the decided requests that was refused, 0 to 1. One row; null where nothing was decided.
SELECT if(count() = 0, NULL, countIf(verdict = 'deny') / count()) AS refused
FROM records
WHERE kind = 'decision' AND $__timeFilter(records.time)
  AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
