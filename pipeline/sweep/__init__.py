"""A sweep of sizes: one pass over labelled images at several sizes, an ordinary output of each size, and the choice."""
