"""The process of a step: child processes that may die, time limits, its current work, and bugs in it."""
