"""What is left to do: inputs compared with the output, as a plan on disk."""
