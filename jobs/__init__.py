"""The commands, one file each: flags in, pipeline run, errors turned into sentences and exit codes."""
