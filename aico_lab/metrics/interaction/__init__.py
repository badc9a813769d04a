"""Interaction metrics: how much is written, by whom, and who comes back."""
