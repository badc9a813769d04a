"""The metrics of a lab by name: what `lab.metrics` is.

Nothing that computes is imported before a metric is called or explained: a notebook gets the names
at its first Tab, for which JupyterLab waits a second, and a shell those for its own completion.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, Literal

from aico_lab.metrics.engine.catalogue import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.etl.snapshots import Reader
    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.filters import Moment, Role
    from aico_lab.metrics.engine.metric import Metric, Parameter

FILTERS: Final = {
    "since": "The first day or moment that counts, or how far back: '30d', '4w', '12h'.",
    "until": "The last day, or the moment from which on nothing counts.",
    "user": "Only these people: one id or a list.",
    "channel": "Only these channels: one id or a list.",
    "role": "Only what this side wrote: 'user' or 'assistant'.",
    "timezone": "An IANA name: in which days and hours are counted; else the lab's.",
    "min_cell": "Leave out rows that rest on fewer observations.",
    "min_people": "Leave out rows about fewer people; else the metric's own number.",
}
"""What every metric takes besides its own parameters."""


class Metrics:
    """The metrics of a lab, by name.

    ::

        lab.metrics.reply_latency(since="30d", timezone="Europe/Berlin")
        help(lab.metrics.reply_latency)
    """

    def __init__(self, reader: Reader, *, timezone: str) -> None:
        self._reader = reader
        self._timezone = timezone

    def __getattr__(self, name: str) -> Question:
        if name.startswith("_"):  # what notebooks look for, such as _repr_png_
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Question:
        """Return a metric whose name is known only when the program runs.

        Raises:
            UnknownName: There is no such metric.
        """
        return Question(CATALOGUE[name], self._reader, self._timezone)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *CATALOGUE]

    def __repr__(self) -> str:
        how = "`lab.metrics.NAME()` asks one, `help(lab.metrics.NAME)` explains it."
        metrics, broken = CATALOGUE.by_domain()
        lines = [f"{len(metrics)} metrics: {how}"]
        domain = ""
        for metric in metrics:
            if metric.domain != domain:
                domain = metric.domain
                lines += ["", f"{domain}:"]
            lines.append(f"  {metric.name:<24} {metric.question}")
        return "\n".join([*lines, *map(str, broken)])

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f'<tr><td style="text-align: left;">{metric.domain}</td>'
            f'<td style="text-align: left;"><code>{metric.name}</code></td>'
            f'<td style="text-align: left;">{escape(metric.question)}</td></tr>'
            for metric in CATALOGUE.by_domain()[0]
        )
        return f"<table><tbody>{rows}</tbody></table>"


class Question:
    """One metric of a lab, to be called."""

    def __init__(self, metric: Metric, reader: Reader, timezone: str) -> None:
        self.metric = metric
        self._reader = reader
        self._timezone = timezone
        self.__name__ = metric.name
        self.__doc__ = _explained(metric)
        self.__signature__ = _signature(metric)

    def __call__(
        self,
        /,  # so that nothing else of that name gets here
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        user: str | Sequence[str] | None = None,
        channel: str | Sequence[str] | None = None,
        role: Role | None = None,
        timezone: str | None = None,
        min_cell: int = 1,
        min_people: int | None = None,
        **parameters: object,
    ) -> Answer:
        """Ask it of the newest snapshot; see `FILTERS`, and the metric's own parameters.

        Raises:
            WrongUse: A filter or parameter cannot be meant; the message says what there is.
            NeverSynced: There is no snapshot yet, or one without the tables of metrics.
        """
        from aico_lab.metrics.engine.asking import ask
        from aico_lab.metrics.engine.filters import Filters

        filters = Filters(
            since=since,
            until=until,
            user=user,
            channel=channel,
            role=role,
            timezone=timezone or self._timezone,
            min_cell=min_cell,
            min_people=min_people,
        )
        return ask(self.metric, self._reader, filters, self.metric.check(parameters))

    def __repr__(self) -> str:
        # `help()` begins with it, cut to 100 characters.
        return f"{self.metric.name}(): {self.metric.question}"


def _explained(metric: Metric) -> str:
    """Return what a metric answers and how, with its filters, parameters and columns."""
    said = [
        metric.question,
        f"{metric.name}{_signature(metric)}",
        f"{metric.definition}\n\nSource: {metric.source}",
    ]
    if metric.parameters:
        said.append(_listed("Parameters", {p.name: _meaning(p) for p in metric.parameters}))
    said.append(_listed("Filters", {name: FILTERS[name] for name in _filters(metric)}))
    columns = {
        column.name: f"{column.meaning} ({column.unit})" if column.unit else column.meaning
        for column in metric.columns
    }
    said.append(_listed("Columns", columns))
    return "\n\n".join(said)


def _listed(heading: str, meanings: dict[str, str]) -> str:
    return "\n".join([f"{heading}:", *(f"    {name}: {said}" for name, said in meanings.items())])


def _meaning(parameter: Parameter) -> str:
    if not parameter.choices:
        return parameter.meaning
    return f"{parameter.meaning} One of {', '.join(map(repr, parameter.choices))}."


def _signature(metric: Metric) -> inspect.Signature:
    """Return how a metric is called: its own parameters, then the filters that it takes."""
    own = [
        inspect.Parameter(
            parameter.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=parameter.default,
            annotation=_annotation(parameter),
        )
        for parameter in metric.parameters
    ]
    general = inspect.signature(Question.__call__).parameters
    plain = [general[name].replace(annotation=inspect.Parameter.empty) for name in _filters(metric)]
    return inspect.Signature([*own, *plain])


def _annotation(parameter: Parameter) -> Any:
    return Literal[parameter.choices] if parameter.choices else parameter.type


def _filters(metric: Metric) -> list[str]:
    from aico_lab.metrics.engine.metric import RoleFilter

    return [name for name in FILTERS if name != "role" or metric.role is not RoleFilter.REFUSED]
