"""`aico-lab bench`: ourselves against peers."""

from __future__ import annotations

from typing import Annotated

import typer

from aico_lab.cli.common import JsonOption
from aico_lab.cli.output import Bar, emit, say

bench = typer.Typer(help="Compare with the best peers on the same data.", no_args_is_help=True)


@bench.command("etl")
def bench_etl(
    *,
    rows: Annotated[
        int, typer.Option(min=1000, help="Messages, repeated from real ones.")
    ] = 250_000,
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each; medians are quoted.")] = 3,
    json: JsonOption = False,
) -> None:
    """Time loading the warehouse, and peers doing the same job in plain text."""
    from aico_lab.bench.etl import run_bench

    with Bar("runs") as bar:
        outcome = run_bench(rows, repeat, bar.show)
    if json:
        emit(outcome)
    else:
        say(outcome.describe())
