"""The commands, one file each: a command parses flags, runs the pipeline, and turns errors into exit codes."""
