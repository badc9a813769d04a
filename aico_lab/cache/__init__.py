"""Expendable hot state: session context, and rows that are read often."""
