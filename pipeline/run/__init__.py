"""The order of a run: prepare, pass after pass, finish with the report."""
