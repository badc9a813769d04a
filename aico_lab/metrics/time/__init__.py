"""Temporal behaviour."""
