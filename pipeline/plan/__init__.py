"""Plans the work that is left: compares the inputs with the output, and keeps the plan in a file on disk."""
