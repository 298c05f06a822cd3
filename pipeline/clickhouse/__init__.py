"""The store: tables and their migrations, inserts, and the reads of operators and auditors."""
