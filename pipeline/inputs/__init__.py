"""The inputs of a job: listing, names, and one reader for each input format."""
