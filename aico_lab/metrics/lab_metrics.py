"""`lab.metrics`: the metrics of a lab by name.

Listing the names imports no module of a metric, since JupyterLab waits only one second for the
first Tab completion, and shells complete names too.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from aico_lab.errors import UnknownAttribute, UnknownName
from aico_lab.metrics.engine.catalogue import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aico_lab.etl.reader import Reader
    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.filters import Role
    from aico_lab.metrics.engine.memo import Memo
    from aico_lab.metrics.engine.metric import Metric, Parameter
    from aico_lab.period import Moment

FILTERS: Final = {
    "since": "The first day or moment, or how far back: '30d', '4w', '12h'.",
    "until": "The last day (included), or a moment (excluded).",
    "user": "Only messages of these people: an id or pseudonym, or a list.",
    "channel": "Only messages in these channels: an id or pseudonym, or a list.",
    "role": "Only messages by this side: 'user' or 'assistant'.",
    "timezone": "The IANA name of the zone of days and hours; by default the lab's.",
    "min_cell": "Leave out rows with fewer observations.",
    "min_people": "Leave out rows about fewer people; the default depends on the metric.",
}
"""The filters that metrics take besides their own parameters."""


class Metrics(Mapping[str, "Question"]):
    """The metrics of a lab, a mapping of their names.

    ::

        lab.metrics.reply_latency(since="30d", timezone="Europe/Berlin")
        help(lab.metrics.reply_latency)
    """

    def __init__(self, reader: Reader, *, timezone: str, memo: Memo | None = None) -> None:
        """Ask the metrics of a snapshot.

        Args:
            reader: The reader of the snapshot.
            timezone: The zone of days and hours.
            memo: Keeps answers; None computes each.
        """
        self.memo = memo
        self._reader = reader
        self._timezone = timezone

    def __getattr__(self, name: str) -> Question:
        if name.startswith("_"):  # notebooks look for methods such as _repr_png_
            raise AttributeError(name)
        try:
            return self[name]
        except UnknownName as unknown:
            raise UnknownAttribute(str(unknown)) from None

    def __getitem__(self, name: str) -> Question:
        """Return a metric by its name.

        Raises:
            UnknownName: No metric has that name.
        """
        if not isinstance(name, str):
            raise UnknownName(f"Metrics have names, such as 'overview', not {name!r}.")
        return Question(CATALOGUE[name], self._reader, self._timezone, self.memo)

    def __contains__(self, name: object) -> bool:
        return name in list(CATALOGUE)

    def __iter__(self) -> Iterator[str]:
        return iter(CATALOGUE)

    def __len__(self) -> int:
        return len(list(CATALOGUE))

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
    """A metric of a lab; calling it computes the answer."""

    def __init__(
        self, metric: Metric, reader: Reader, timezone: str, memo: Memo | None = None
    ) -> None:
        self.metric = metric
        self._memo = memo
        self._reader = reader
        self._timezone = timezone
        self.__name__ = metric.name
        self.__doc__ = _explained(metric)
        self.__signature__ = _signature(metric)

    def __call__(
        self,
        /,  # a parameter of a metric may be called `self`
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
        """Compute the metric on the newest snapshot; see `FILTERS` and the metric's parameters.

        If the same question was asked of the same snapshot before, the kept answer is returned.

        Raises:
            WrongUse: A filter or parameter is unknown or invalid.
            NeverSynced: There is no snapshot yet, or another version of aico_lab made it.
        """
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
        checked = self.metric.check(parameters)
        memo = self._memo
        place = memo and memo.place(self.metric, self._reader, filters, checked)
        if memo and place:
            kept = memo.find(place, self.metric, filters, checked)
            if kept is not None:  # an answer without rows is false
                return kept
        from aico_lab.metrics.engine.asking import ask

        started_ms = time.time_ns() // 1_000_000
        answer = ask(self.metric, self._reader, filters, checked)
        if memo and place:
            memo.keep(place, answer, self._reader, filters, started_ms=started_ms)
        return answer

    def __repr__(self) -> str:
        # `help()` begins with this text, cut to 100 characters.
        return f"{self.metric.name}(): {self.metric.question}"


def _explained(metric: Metric) -> str:
    """Return the help text of a metric: question, definition, parameters, filters and columns."""
    said = [
        metric.question,
        f"{metric.name}{_signature(metric)}",
        f"{metric.definition}\n\nSource: {metric.source}",
    ]
    if metric.parameters:
        said.append(_listed("Parameters", {p.name: _meaning(p) for p in metric.parameters}))
    said.append(_listed("Filters", {name: FILTERS[name] for name in metric.filters}))
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
    """Return the call signature of a metric: its own parameters, then the filters it accepts."""
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
    plain = [general[name].replace(annotation=inspect.Parameter.empty) for name in metric.filters]
    return inspect.Signature([*own, *plain])


def _annotation(parameter: Parameter) -> Any:
    return Literal[parameter.choices] if parameter.choices else parameter.type
