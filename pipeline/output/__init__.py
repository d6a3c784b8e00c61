"""The content of an output: its layout, its published slices and its past runs."""
