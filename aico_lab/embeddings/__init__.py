"""Vectors of texts, and search by meaning."""

DIMENSIONS = 256
"""The dimension of every vector, also of the vector column in libSQL."""
