-- Age of the newest sealed record, seconds. One row; null where no record was ever sealed.
SELECT dateDiff('second', maxOrNull(records.time), now64(3, 'UTC')) AS age
FROM records
