"""Rows of metrics under the filters of a page that chooses no side."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import polars as pl

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.reports.page import Page


def rows_of(page: Page, metric: str, **parameters: object) -> pl.DataFrame:
    """Return the rows of a metric.

    Args:
        page: The page.
        metric: The name of the metric.
        parameters: Its parameters, and filters that replace those of the page.
    """
    return cast("Answer", page.ask(metric, **parameters)).pl()
