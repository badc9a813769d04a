"""Measure ourselves against the best peers, on the same data, in one run."""
