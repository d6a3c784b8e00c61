"""The order of a run: prepare, pass after pass, close, report."""
