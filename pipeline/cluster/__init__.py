"""Joins the Ray cluster, checks its nodes, and divides its processors among the steps."""
