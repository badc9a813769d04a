"""Themes, a map, neighbours, duplicates and drift of passages, and their storage."""
