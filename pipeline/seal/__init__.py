"""SEAL signs the log in batches and inserts its rows into ClickHouse."""
