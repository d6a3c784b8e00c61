"""Child processes for work that may crash, time limits of work, and notes about the current work of processes."""
