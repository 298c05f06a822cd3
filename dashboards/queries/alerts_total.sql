-- Alerts raised in the time range. One row.
SELECT uniqExact(request) AS alerts
FROM records
WHERE kind = 'alert' AND $__timeFilter(records.time)
  AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
