-- What each tenant used: tokens of outcomes, as charged.
SELECT
    tenant,
    sum(records.input_tokens) AS input_tokens,
    sum(records.output_tokens) AS output_tokens,
    count() AS outcomes,
    countIf(result = 'finished') AS finished
FROM records
WHERE kind = 'outcome' AND $__timeFilter(records.time)
  AND $__conditionalAll(tenant = decodeURLComponent('${tenant:percentencode}'), $tenant)
GROUP BY tenant
ORDER BY input_tokens + output_tokens DESC, tenant
LIMIT 50
