"""What lies in an output: its layout, its published slices and its past runs."""
