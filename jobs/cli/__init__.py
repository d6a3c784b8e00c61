"""Code that the commands share: flags, logging, progress, the last line of stdout and the webhook."""
