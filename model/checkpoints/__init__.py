"""Finds, reads and loads checkpoints of every published format; every tensor of a checkpoint must fit."""
