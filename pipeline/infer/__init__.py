"""The infer step: pixels become packs, packs go through the network, answers become columns."""
