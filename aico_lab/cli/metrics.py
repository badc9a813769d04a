"""`aico-lab metrics`: list metrics, and show their answers as tables or pictures."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aico_lab.cli import completion
from aico_lab.cli.common import (
    ForceOption,
    HomeOption,
    JsonOption,
    KeyFileOption,
    ParameterOption,
    importing,
    open_lab,
    read_pairs,
    refuse_existing,
)
from aico_lab.cli.output import emit, note, say

if TYPE_CHECKING:
    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Metric

metrics = typer.Typer(help="List and compute metrics.", no_args_is_help=True)

PICTURES = (".png", ".svg", ".html")


@metrics.command("list")
def metrics_list(
    name: Annotated[
        str | None,
        typer.Argument(
            help="The name of a metric, to describe it.", autocompletion=completion.metrics
        ),
    ] = None,
    *,
    json: JsonOption = False,
) -> None:
    """List all metrics, or describe one.

    The description has the definition, the source, the parameters and the columns.
    """
    with importing("aico_lab.metrics.engine.metric"):
        from aico_lab.metrics.engine.catalogue import CATALOGUE

        chosen, broken = ([CATALOGUE[name]], []) if name else CATALOGUE.by_domain()
    for error in broken:
        note(str(error))
    if json:
        emit([_facts(metric) for metric in chosen])
        return
    if name:
        _describe(chosen[0])
        return
    domain = ""
    for metric in chosen:
        if metric.domain != domain:
            domain = metric.domain
            say(f"{domain}:")
        say(f"  {metric.name:<24} {metric.question}")


@metrics.command("show")
def metrics_show(
    name: Annotated[
        str,
        typer.Argument(
            help="The name of a metric, such as reply_latency.", autocompletion=completion.metrics
        ),
    ],
    *,
    parameter: ParameterOption = None,
    since: Annotated[
        str | None, typer.Option(help="The first day or moment, or a span back: 30d, 4w, 12h.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="The last day (included), or a moment (excluded).")
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option(
            help="A person, by id or pseudonym, whose messages are selected; may be repeated."
        ),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            help="A channel, by id or pseudonym, whose messages are selected; may be repeated."
        ),
    ] = None,
    role: Annotated[
        Literal["user", "assistant"] | None,
        typer.Option(help="The side whose messages are selected."),
    ] = None,
    timezone: Annotated[
        str,
        typer.Option(
            help="The IANA time zone of days and hours.", autocompletion=completion.timezones
        ),
    ] = "UTC",
    min_cell: Annotated[
        int, typer.Option(min=1, help="The fewest observations of a row that is shown.")
    ] = 1,
    min_people: Annotated[
        int | None,
        typer.Option(
            min=1, help="The fewest people of a row that is shown; by default 1, or 5 for words."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="A .png, .svg or .html file for a chart.")
    ] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Compute a metric on the newest snapshot."""
    from aico_lab.errors import InvalidValue

    with importing("aico_lab.metrics.engine.filters"):
        from aico_lab.metrics.engine.filters import Filters
    given: dict[str, Any] = read_pairs(parameter)
    if filters := sorted(given.keys() & {field.name for field in fields(Filters)}):
        option = filters[0].replace("_", "-")
        raise InvalidValue(f"{filters[0]} is a filter, not a parameter: use --{option}.")
    if plot and plot.suffix.lower() not in PICTURES:
        raise InvalidValue(f"{plot.name} does not end in {', '.join(PICTURES)}.")
    refuse_existing(plot, force=force)
    with open_lab(home, key_file, timezone=timezone) as lab:
        with importing("aico_lab.metrics.engine.asking"):
            question = lab.metrics[name]
        answer: Answer = question(
            since=since,
            until=until,
            user=user or None,
            channel=channel or None,
            role=role,
            min_cell=min_cell,
            min_people=min_people,
            **given,
        )
    if plot:
        _draw(answer, plot)
    if json:
        emit(
            {
                "metric": name,
                "question": answer.metric.question,
                "finding": answer.finding,
                "parameters": answer.parameters,
                "filters": answer.filters,
                "generation": answer.generation,
                "left_out": answer.left_out,
                "values_left_out": answer.values_left_out,
                "notes": answer.notes,
                "columns": answer.metric.columns,
                "rows": answer.pl().to_dicts(),
            }
        )
    else:
        say(str(answer))


def _draw(answer: Answer, file: Path) -> None:
    import vl_convert

    from aico_lab.charts.labels import drawable
    from aico_lab.errors import InvalidValue

    chart = answer.plot()
    specification = drawable(chart.to_dict())
    try:
        match file.suffix.lower():
            case ".html":
                chart.save(str(file), format="html", inline=True)
            case ".svg":
                file.write_text(vl_convert.vegalite_to_svg(specification), encoding="utf-8")
            case _:
                file.write_bytes(vl_convert.vegalite_to_png(specification, scale=2))
    except OSError as refused:
        raise InvalidValue(f"{file} cannot be written: {refused.strerror}.") from refused
    note(f"Chart: {file}")


def _facts(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "domain": metric.domain,
        "question": metric.question,
        "definition": metric.definition,
        "source": metric.source,
        "parameters": [
            {
                "name": parameter.name,
                "type": parameter.type.__name__,
                "default": parameter.default,
                "choices": parameter.choices,
                "meaning": parameter.meaning,
            }
            for parameter in metric.parameters
        ],
        "columns": metric.columns,
    }


def _describe(metric: Metric) -> None:
    say(f"{metric.name}: {metric.question}")
    say(f"\n{metric.definition}\n\nSource: {metric.source}")
    if metric.parameters:
        say("\nParameters (-p NAME=VALUE):")
    for parameter in metric.parameters:
        choices = f" One of {', '.join(parameter.choices)}." if parameter.choices else ""
        said = f"{parameter.name}={parameter.default}"
        say(f"  {said:<24} {parameter.meaning}{choices}")
    say("\nColumns:")
    for column in metric.columns:
        unit = f" ({column.unit})" if column.unit else ""
        say(f"  {column.name:<24} {column.meaning}{unit}")
