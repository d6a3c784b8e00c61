"""The account of a run: sums, timeline, verdict, report and metrics."""
