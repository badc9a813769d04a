"""Personality adaptation insights."""
