"""`aico-lab bench`: benchmarks of this package and of comparable tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from aico_lab.cli.common import JsonOption
from aico_lab.cli.output import Bar, emit, say

if TYPE_CHECKING:
    from aico_lab.bench.harness import BenchResult

bench = typer.Typer(
    help="Measure speed, also of other tools on the same data.", no_args_is_help=True
)


RowsOption = Annotated[
    int,
    typer.Option("--rows", min=1000, help="The number of messages: real ones, repeated if needed."),
]
RepeatOption = Annotated[
    int,
    typer.Option("--repeat", min=1, help="The number of runs of each job; medians are reported."),
]


@bench.command("etl")
def bench_etl(
    *, rows: RowsOption = 250_000, repeat: RepeatOption = 3, json: JsonOption = False
) -> None:
    """Time imports and syncs, and the loads of other tools.

    The other tools load the same messages without encryption.
    """
    from aico_lab.bench.etl import run_bench

    _show(run_bench, rows, repeat, json=json)


@bench.command("start")
def bench_start(
    *, rows: RowsOption = 250_000, repeat: RepeatOption = 9, json: JsonOption = False
) -> None:
    """Time short commands as whole processes."""
    from aico_lab.bench.start import run_bench

    _show(run_bench, rows, repeat, json=json)


@bench.command("storage")
def bench_storage(
    *, rows: RowsOption = 100_000, repeat: RepeatOption = 3, json: JsonOption = False
) -> None:
    """Time writing messages, also by the bare driver."""
    from aico_lab.bench.storage import run_bench

    _show(run_bench, rows, repeat, json=json)


@bench.command("import")
def bench_import(
    *, rows: RowsOption = 250_000, repeat: RepeatOption = 3, json: JsonOption = False
) -> None:
    """Time reading an export, before sentiment scores."""
    from aico_lab.bench.exports import run_bench

    _show(run_bench, rows, repeat, json=json)


@bench.command("report")
def bench_report(
    *, rows: RowsOption = 258_145, repeat: RepeatOption = 1, json: JsonOption = False
) -> None:
    """Time the report, and measure its page."""
    from aico_lab.bench.report import run_bench

    _show(run_bench, rows, repeat, json=json)


@bench.command("metrics")
def bench_metrics(
    *, rows: RowsOption = 250_000, repeat: RepeatOption = 3, json: JsonOption = False
) -> None:
    """Time all metrics, and some of them in SQL and pandas."""
    from aico_lab.bench.metrics import run_bench

    _show(run_bench, rows, repeat, json=json)


@bench.command("vectors")
def bench_vectors(
    *, rows: RowsOption = 258_145, repeat: RepeatOption = 1, json: JsonOption = False
) -> None:
    """Time segments, vectors, index and search, and measure recall."""
    from aico_lab.bench.vectors import run_bench

    _show(run_bench, rows, repeat, json=json)


@bench.command("cache")
def bench_cache(
    *, rows: RowsOption = 258_145, repeat: RepeatOption = 1, json: JsonOption = False
) -> None:
    """Time the cache, kept answers of metrics, and a report."""
    from aico_lab.bench.cache import run_bench

    _show(run_bench, rows, repeat, json=json)


@bench.command("personality")
def bench_personality(
    *,
    rows: Annotated[
        int,
        typer.Option(
            "--rows", min=1000, help="The number of decisions; one simulated home per 2,000."
        ),
    ] = 1_000_000,
    repeat: RepeatOption = 1,
    json: JsonOption = False,
) -> None:
    """Time estimates of a policy, and test them on simulated homes."""
    from aico_lab.bench.personality import run_bench

    _show(run_bench, rows, repeat, json=json)


def _show(
    run_bench: Callable[[int, int, Callable[[str, int, int | None], None]], BenchResult],
    rows: int,
    repeat: int,
    *,
    json: bool,
) -> None:
    with Bar("runs") as bar:
        outcome = run_bench(rows, repeat, bar.show)
    if json:
        emit(outcome)
    else:
        say(outcome.describe())
