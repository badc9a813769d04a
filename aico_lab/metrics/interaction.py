"""Interaction metrics: how much is written, by how many people, and who comes back."""
