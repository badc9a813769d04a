"""Notebooks as reports: checked parameters, a run that is kept whatever happens, one HTML file."""
