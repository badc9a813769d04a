"""Interaction metrics: amounts of messages, active people, and retention."""
