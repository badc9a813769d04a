"""Shell completion of names, without slow imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def sources(incomplete: str) -> list[str]:
    """Return the matching names of sources."""
    from aico_lab.sources import SOURCES

    return _beginning(incomplete, SOURCES)


def metrics(incomplete: str) -> list[str]:
    """Return the matching names of metrics."""
    from aico_lab.metrics.engine.catalogue import CATALOGUE

    return _beginning(incomplete, CATALOGUE)


def reports(incomplete: str) -> list[str]:
    """Return the matching names of shipped notebooks."""
    from aico_lab.shipped import shipped

    return _beginning(incomplete, shipped("notebooks", ".ipynb"))


def pipelines(incomplete: str) -> list[str]:
    """Return the matching names of shipped pipelines."""
    from aico_lab.shipped import shipped

    return _beginning(incomplete, shipped("pipelines", ".toml"))


def timezones(incomplete: str) -> list[str]:
    """Return the matching names of time zones."""
    from zoneinfo import available_timezones

    return _beginning(incomplete, sorted(available_timezones()))


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
