"""Estimates a planned run: its work from a sample of image headers, its time from an earlier run or a trial."""
