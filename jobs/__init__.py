"""The commands, one file each. A command parses flags, runs the pipeline, and turns errors into exit codes."""
