"""Vectors for texts, and finding by meaning with them."""

DIMENSIONS = 256
"""The numbers of every vector; the column for them in libSQL has as many."""
