"""The way from chunks to slices to published files: the collector and the commit, without Ray."""
