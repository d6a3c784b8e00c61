"""What there is to read: listing, names, and one reader for each input format."""
