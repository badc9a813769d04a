"""Notebooks as reports: checked parameters, a run that is kept whatever happens, one HTML file."""

from __future__ import annotations


def __getattr__(name: str) -> object:
    if name == "charts":  # where people's own notebooks may look for it
        from aico_lab import charts

        return charts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
