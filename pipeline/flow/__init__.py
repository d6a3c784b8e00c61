"""Runs one pass on Ray Data: read, decode, infer and sink, as one chained expression."""
