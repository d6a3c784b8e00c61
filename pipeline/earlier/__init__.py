"""The rows of an output of earlier rules of reading that are wrong, and the images that have no row there."""
