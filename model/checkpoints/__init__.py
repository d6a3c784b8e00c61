"""Checkpoints of every published format: found, read, and loaded strictly."""
