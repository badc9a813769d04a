"""Vectors of texts, search by meaning, and segments of conversations."""
