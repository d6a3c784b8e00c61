"""Turns encoded bytes into RGB pixels at the size that the network sees, or into a failed record."""
