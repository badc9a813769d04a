"""Vectors for texts, and finding by meaning with them."""
