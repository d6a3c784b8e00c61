"""The process of a step: child processes that may die, time limits, and its current work."""
