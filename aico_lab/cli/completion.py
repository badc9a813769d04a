"""Shell completion of names, without slow imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer  # noqa: TC002 - it reads the annotations

from aico_lab.cli.common import home_of

if TYPE_CHECKING:
    from collections.abc import Iterable


def sources(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the matching names of sources and of the home's saved imports."""
    from aico_lab.importing.saved import saved_names
    from aico_lab.sources import SOURCES

    return _beginning(incomplete, [*SOURCES, *saved_names(home_of(ctx.params.get("home")))])


def metrics(incomplete: str) -> list[str]:
    """Return the matching names of metrics."""
    from aico_lab.metrics.engine.catalogue import CATALOGUE

    return _beginning(incomplete, CATALOGUE)


def reports(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the matching names of notebooks, shipped and in the home."""
    from aico_lab.reports.lab_reports import notebooks

    return _beginning(incomplete, notebooks(home_of(ctx.params.get("home"))))


def pipelines(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the matching names of pipelines, shipped and in the home."""
    from aico_lab.pipeline.finding import pipelines

    return _beginning(incomplete, pipelines(home_of(ctx.params.get("home"))))


def timezones(incomplete: str) -> list[str]:
    """Return the matching names of time zones."""
    from zoneinfo import available_timezones

    return _beginning(incomplete, sorted(available_timezones()))


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
