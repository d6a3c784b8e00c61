"""The settings of one job: its configuration, weights, precision and identity."""
