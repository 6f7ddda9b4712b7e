"""Convert tables between CSV, TSV, JSON, NDJSON and Parquet."""
