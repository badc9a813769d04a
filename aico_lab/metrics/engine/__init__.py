"""Declare, compute, estimate, word and draw metrics."""
