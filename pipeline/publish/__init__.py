"""Chunks become slices and slices become files: the collector and the commit, free of Ray."""
