"""What a metric is: declared once, with its question, its definition, its columns and its chart."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    TypeAlias,
    get_args,
    get_origin,
    get_type_hints,
)

from aico_lab.errors import InvalidValue, UnknownName, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import ibis.expr.types as ir
    import polars as pl

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.talk import Talk

Domain = Literal["conversation", "interaction", "time", "personality", "usage"]
"""The domains of the source document: conversation patterns, interaction metrics, temporal
behaviour, personality adaptation insights, usage and preferences."""

Chart: TypeAlias = Any
"""One of Altair's charts, which have no type in common."""

Far = Literal["left out", "among them"]

Type = Literal["text", "integer", "number", "truth", "date"]

Expression: TypeAlias = "Callable[..., ir.Table]"
"""From a `Talk` and parameters to a table."""

Finish: TypeAlias = "Callable[..., pl.DataFrame]"
"""From the rows of the expression, a `Talk` and parameters to the rows of the answer."""

N: Final = "n"
"""The column that says how many observations a row rests on."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an answer.

    Attributes:
        name: Its name.
        type: What its values are.
        meaning: What they tell.
        unit: In which unit, such as 's' or '%'; empty for names and counts.
    """

    name: str
    type: Type
    meaning: str
    unit: str = ""


def interval(name: str, unit: str = "") -> tuple[Column, Column]:
    """Return the columns of the 95 % interval of a column."""
    return (
        Column(f"{name}_low", "number", f"lower end of the 95 % interval of {name}", unit),
        Column(f"{name}_high", "number", f"upper end of the 95 % interval of {name}", unit),
    )


PEOPLE: Final = Column("people", "integer", "people whom these observations are of")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a metric.

    Attributes:
        name: Its name.
        type: int, float or str.
        default: Its value where none is given.
        choices: The values that it may have; empty for any.
        meaning: What it is for.
    """

    name: str
    type: type
    default: Any
    choices: tuple[str, ...]
    meaning: str

    def check(self, value: object) -> Any:
        """Return the value as its type; text is read, as the command line has nothing else.

        Raises:
            InvalidValue: It is none of that type, or none of the choices.
        """
        wanted = f"one of {', '.join(self.choices)}" if self.choices else _NAMES[self.type]
        refused = InvalidValue(f"{self.name} is {wanted}, not {value!r}.")
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise refused
        try:
            taken = self.type(value)
        except (ValueError, OverflowError):
            raise refused from None
        if self.type is int and not isinstance(value, str) and value != taken:
            raise refused
        if self.type is float and not abs(taken) < float("inf"):
            raise refused
        if self.type is int and abs(taken) > _LARGEST:
            raise InvalidValue(f"{self.name} is a whole number of at most {_LARGEST:,}.")
        if self.choices and taken not in self.choices:
            raise refused
        return taken


_LARGEST: Final = 1_000_000_000_000
"""Larger numbers are not meant, and engines and frames cannot hold them."""

_NAMES: Final = {int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A question that the conversations answer.

    Attributes:
        name: As `lab.metrics` calls it.
        domain: What it is about.
        question: What it answers.
        definition: How, from the docstring.
        source: The paper or document that the definition is from.
        parameters: What can be chosen, besides the filters.
        columns: The columns of the answer.
        role: What the filter of that name does: it chooses rows of the answer that have a `role`,
            restricts what is counted, or makes no sense.
        people: The column that counts the people whom a row is about.
        min_people: Rows about fewer people are left out, unless the filters name another number.
        nothing: The finding of an answer without rows; or what tells it from the rows of the
            expression and the `Talk`.
        far: What becomes of messages of before 1990 and of the future, if it counts any.
        of_all: Whether the finding is of all rows, also where some are left out.
        expression: The Ibis expression.
        finish: What is computed from its rows in Python, if anything.
        finding: One sentence that says what the answer is, for an answer that has rows.
        chart: Draws an answer that has rows.
    """

    name: str
    domain: Domain
    question: str
    definition: str
    source: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Column, ...]
    role: Literal["answer", "input", "none"]
    people: str
    min_people: int
    nothing: str | Callable[[pl.DataFrame, Talk], str]
    far: Far | None
    of_all: bool
    expression: Expression = field(repr=False)
    finish: Finish | None = field(repr=False)
    finding: Callable[[pl.DataFrame], str] = field(repr=False)
    chart: Callable[[Answer], Chart] = field(repr=False)

    def check(self, given: Mapping[str, object]) -> dict[str, Any]:
        """Return every parameter its value.

        Raises:
            UnknownName: There is no such parameter.
            InvalidValue: A value has the wrong type.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                have = f": it has {', '.join(known) if known else 'none of its own'}."
                end = did_you_mean(name, known, have)
                raise UnknownName(f"{self.name} has no parameter {name!r}{end}")
        return {
            name: parameter.check(given[name]) if name in given else parameter.default
            for name, parameter in known.items()
        }


FORMER_NAMES: Final = {"repair": "mood_recovery"}
"""Metrics that had another name, with the one that they have now."""


class Catalogue:
    """Metrics by name, in the order in which they were declared."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def metric(
        self,
        *,
        domain: Domain,
        question: str,
        source: str,
        columns: Sequence[Column | tuple[Column, ...]],
        finding: Callable[[pl.DataFrame], str],
        chart: Callable[[Answer], Chart],
        finish: Finish | None = None,
        role: Literal["answer", "input", "none"] | None = None,
        people: str = "people",
        min_people: int = 1,
        nothing: str | Callable[[pl.DataFrame, Talk], str] = "Nothing matches.",
        far: Far | None = "among them",
        of_all: bool = False,
    ) -> Callable[[Expression], Expression]:
        """Register the function below as a metric of its name.

        Its first argument is the `Talk`; keyword-only ones with defaults are the parameters, and
        the docstring is the definition, whose `Args` say what the parameters are for.

        Raises:
            ValueError: There is one of that name, or the declaration is not complete.
        """
        nested = (c if isinstance(c, tuple) else (c,) for c in columns)
        flat = tuple(itertools.chain.from_iterable(nested))

        def register(expression: Expression) -> Expression:
            name = expression.__name__
            if name in self._metrics:
                raise ValueError(f"there are two metrics {name}")
            for needed in (N, people):
                if needed not in [column.name for column in flat]:
                    raise ValueError(f"{name} has no column {needed} to leave out small cells by")
            definition, meanings = _read_docstring(expression)
            has_role = "role" in [column.name for column in flat]
            self._metrics[name] = Metric(
                name=name,
                domain=domain,
                question=question,
                definition=definition,
                source=source,
                parameters=_parameters(expression, meanings),
                columns=flat,
                role=role or ("answer" if has_role else "input"),
                people=people,
                min_people=min_people,
                nothing=nothing,
                far=far,
                of_all=of_all,
                expression=expression,
                finish=finish,
                finding=finding,
                chart=chart,
            )
            return expression

        return register

    def __getitem__(self, name: str) -> Metric:
        if name in FORMER_NAMES:
            raise UnknownName(
                f"The metric {name!r} is called {FORMER_NAMES[name]!r} now: ask that."
            )
        if name not in self._metrics:
            see = ": see `aico-lab metrics list` or `lab.metrics`."
            raise UnknownName(
                f"There is no metric {name!r}{did_you_mean(name, self._metrics, see)}"
            )
        return self._metrics[name]

    def by_domain(self) -> list[Metric]:
        """Return all metrics, domain by domain in the order of the source document."""
        domains = get_args(Domain)
        return sorted(self._metrics.values(), key=lambda metric: domains.index(metric.domain))

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)


def _read_docstring(function: Expression) -> tuple[str, dict[str, str]]:
    """Return the definition, and what each argument is for."""
    text = inspect.getdoc(function) or ""
    definition, _, arguments = text.partition("\nArgs:\n")
    meanings: dict[str, str] = {}
    name = ""
    for line in arguments.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            name, _, meaning = line.strip().partition(": ")
            meanings[name] = meaning
        elif name and line.strip():
            meanings[name] += f" {line.strip()}"
    return definition.strip(), meanings


def _parameters(function: Expression, meanings: Mapping[str, str]) -> tuple[Parameter, ...]:
    from aico_lab.metrics import talk

    hints = get_type_hints(function, localns={"Talk": talk.Talk, "ir": _Anything})
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        hint = hints[name]
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        type_ = str if choices else hint
        if type_ not in _NAMES or name not in meanings:
            raise ValueError(f"{function.__name__}({name}) lacks a simple type or a description")
        found.append(Parameter(name, type_, parameter.default, choices, meanings[name]))
    return tuple(found)


class _Anything:
    """Stands for modules that only annotations name."""

    Table = object


CATALOGUE: Final = Catalogue()
"""The metrics of this package."""
