-- The worst finding of a decision or an outcome, 0 to 100; rows from before show 0, as their bodies do.
ALTER TABLE records ADD COLUMN IF NOT EXISTS risk UInt8 AFTER severity;
