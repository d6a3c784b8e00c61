"""The plan: compares the inputs with the output, and keeps what is left to do on disk."""
