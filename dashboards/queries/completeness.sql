-- Is anything missing? Per log, over its whole history: signed manifests against stored rows, admissions against outcomes.
-- `sluice audit verify` proves the same from the signatures; this is the view that is always on.
WITH
    sealed AS
    (
        SELECT
            origin,
            count() AS batches,
            max(batch) + 1 - uniqExact(batch) AS missing_batches,
            sum(rows) AS sealed_rows,
            max(size) AS leaves,
            max(manifests.time) AS sealed_until
        FROM manifests
        GROUP BY origin
    ),
    stored AS
    (
        SELECT
            origin,
            count() AS stored_rows,
            uniqExact(leaf) AS stored_leaves,
            countIf(kind = 'decision') AS decisions,
            countIf(kind = 'decision' AND verdict = 'admit') AS admitted,
            countIf(kind = 'outcome') AS outcomes,
            countIf(kind = 'decision') - uniqExactIf(request, kind = 'decision')
                + countIf(kind = 'outcome') - uniqExactIf(request, kind = 'outcome') AS doubled
        FROM records
        GROUP BY origin
    )
SELECT
    if(sealed.origin = '', stored.origin, sealed.origin) AS log,
    multiIf(
        sealed.origin = '', 'rows without a manifest',
        missing_batches > 0, 'batch missing',
        sealed_rows != leaves, 'manifests disagree',
        stored_rows < sealed_rows, 'rows missing',
        stored_rows > sealed_rows, 'rows too many',
        stored_leaves != leaves, 'leaf doubled',
        doubled > 0, 'answered twice',
        outcomes > admitted, 'outcome without admission',
        'complete'
    ) AS state,
    decisions,
    admitted,
    outcomes,
    toInt64(admitted) - toInt64(outcomes) AS open,
    sealed_rows,
    stored_rows,
    batches,
    sealed_until
FROM sealed
FULL OUTER JOIN stored ON sealed.origin = stored.origin
ORDER BY state = 'complete', log
LIMIT 500
