"""Shard readers: tar, Parquet and loose files; each turns one plan row into records, in a fixed order."""
