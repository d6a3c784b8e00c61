"""A step's process: child processes that may die, time limits, and what the process is working on."""
