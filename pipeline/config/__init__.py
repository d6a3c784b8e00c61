"""What one job is asked to do: its configuration, weights, precision and identity."""
