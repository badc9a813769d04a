"""Names that a shell completes; they import nothing that computes, since somebody waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def sources(incomplete: str) -> list[str]:
    """Return the sources of messages that begin so."""
    from aico_lab.sources import SOURCES

    return _beginning(incomplete, SOURCES)


def metrics(incomplete: str) -> list[str]:
    """Return the metrics that begin so."""
    from aico_lab.metrics.engine.catalogue import CATALOGUE

    return _beginning(incomplete, CATALOGUE)


def reports(incomplete: str) -> list[str]:
    """Return the notebooks of the package that begin so."""
    from aico_lab.shipped import shipped

    return _beginning(incomplete, shipped("notebooks", ".ipynb"))


def pipelines(incomplete: str) -> list[str]:
    """Return the pipelines of the package that begin so."""
    from aico_lab.shipped import shipped

    return _beginning(incomplete, shipped("pipelines", ".toml"))


def timezones(incomplete: str) -> list[str]:
    """Return the names of time zones that begin so."""
    from zoneinfo import available_timezones

    return _beginning(incomplete, sorted(available_timezones()))


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
