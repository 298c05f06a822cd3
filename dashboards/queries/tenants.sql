-- Values of the tenant variable: those with records in the last 30 days.
SELECT DISTINCT tenant
FROM records
WHERE tenant != '' AND records.time > now() - INTERVAL 30 DAY
ORDER BY tenant
LIMIT 1000
