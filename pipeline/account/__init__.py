"""Sums, timeline, verdict, report and metrics: what a run did, in numbers that add up."""
