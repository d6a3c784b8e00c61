"""Turns pixels into answers: packs of images go through the network, and outputs become columns."""
