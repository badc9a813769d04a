"""How a metric is declared: its question, definition, parameters, columns, finding and chart."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from aico_lab.errors import InvalidValue, UnknownName, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import ibis.expr.types as ir
    import polars as pl

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.talk import Talk

Domain = Literal["conversation", "interaction", "time", "personality", "usage"]
"""The domains of the source document: conversation patterns, interaction metrics, temporal
behaviour, personality adaptation insights, usage and preferences."""

Chart: TypeAlias = Any
"""One of Altair's charts, which have no type in common."""

Far = Literal["left out", "among them"]
"""What becomes of messages of before 1990 and of the future."""


class RoleFilter(Enum):
    """What the filter `role` does to a metric."""

    CHOOSES_ROWS = "of the answer, only the rows of that side are shown"
    RESTRICTS_MESSAGES = "only what that side wrote is counted"
    REFUSED = "the metric is not about one of the sides, so the filter is an error"


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
        name: The name of the keyword-only argument of the expression.
        type: int, float or str.
        default: Its value if none is given.
        meaning: What it is for, with its unit.
        choices: The values that it may have; empty for any.
    """

    name: str
    type: type
    default: Any
    meaning: str
    choices: tuple[str, ...] = ()

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
        role: What the filter `role` does.
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
    role: RoleFilter
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


def metric(
    *,
    domain: Domain,
    question: str,
    source: str,
    columns: Sequence[Column | tuple[Column, ...]],
    finding: Callable[[pl.DataFrame], str],
    chart: Callable[[Answer], Chart],
    parameters: Sequence[Parameter] = (),
    finish: Finish | None = None,
    role: RoleFilter | None = None,
    people: str = "people",
    min_people: int = 1,
    nothing: str | Callable[[pl.DataFrame, Talk], str] = "Nothing matches.",
    far: Far | None = "among them",
    of_all: bool = False,
) -> Callable[[Expression], Metric]:
    """Declare the function below as a metric of its name; its docstring is the definition.

    The function's first argument is the `Talk`; its keyword-only ones are the parameters. The other
    arguments are the attributes of `Metric`.

    Raises:
        ValueError: A column that is needed is missing, or the arguments of the function are not the
            parameters.
    """
    nested = (c if isinstance(c, tuple) else (c,) for c in columns)
    flat = tuple(itertools.chain.from_iterable(nested))
    names = [column.name for column in flat]
    usual_role = RoleFilter.CHOOSES_ROWS if "role" in names else RoleFilter.RESTRICTS_MESSAGES

    def declare(expression: Expression) -> Metric:
        name = expression.__name__
        for needed in (N, people):
            if needed not in names:
                raise ValueError(f"{name} has no column {needed} to leave out small cells by")
        signature = inspect.signature(expression).parameters.values()
        taken = [one.name for one in signature if one.kind is one.KEYWORD_ONLY]
        if taken != [parameter.name for parameter in parameters]:
            raise ValueError(f"{name} takes {taken}, which are not the parameters it declares")
        return Metric(
            name=name,
            domain=domain,
            question=question,
            definition=inspect.getdoc(expression) or "",
            source=source,
            parameters=tuple(parameters),
            columns=flat,
            role=role or usual_role,
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

    return declare
