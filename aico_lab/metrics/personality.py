"""Personality adaptation insights: what came of the versions of the companion's personality."""
