"""Declare metrics: question, definition, parameters, columns, finding and chart."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import dataclass, field, fields
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
"""The domains: conversation patterns, interaction metrics, temporal behaviour, personality
adaptation insights, usage and preferences."""

Chart: TypeAlias = Any
"""Any Altair chart; Altair's chart classes have no useful common type."""

Far = Literal["left out", "among them"]
"""Whether messages dated before 1990 or in the future are excluded from or included in a metric."""


class RoleFilter(Enum):
    """The effect of the filter `role` on a metric."""

    CHOOSES_ROWS = "only the rows of that side are shown"
    RESTRICTS_MESSAGES = "only messages by that side are counted"
    REFUSED = "the metric is about both sides at once, so the filter is an error"


Type = Literal["text", "integer", "number", "truth", "date"]

Expression: TypeAlias = "Callable[..., ir.Table]"
"""Maps a `Talk` and parameters to a table."""

Finish: TypeAlias = "Callable[..., pl.DataFrame]"
"""Maps the rows of the expression, a `Talk` and parameters to the rows of the answer."""

N: Final = "n"
"""The column that counts the observations of a row."""

NOTHING: Final = "Nothing matches."

NOTE: Final = "_note"
"""The hidden column with a note for the caption, the same in every row; null for none."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an answer.

    Attributes:
        name: The name.
        type: The type of its values.
        meaning: The meaning of its values, in a few words.
        unit: The unit, such as 's' or '%'; empty for names and counts.
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


PEOPLE: Final = Column("people", "integer", "named people with observations in the row")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a metric.

    Attributes:
        name: The name of the keyword-only argument of the expression.
        type: int, float, str or bool.
        default: The value if none is given.
        meaning: The help text, with the unit.
        choices: The allowed values; empty for any.
    """

    name: str
    type: type
    default: Any
    meaning: str
    choices: tuple[str, ...] = ()

    def check(self, value: object) -> Any:
        """Return the value converted to the parameter's type; text from the command line is parsed.

        Raises:
            InvalidValue: The value is not of the type, too large, or not among the choices.
        """
        if self.type is bool:
            return self._check_truth(value)
        wanted = f"one of {', '.join(self.choices)}" if self.choices else _NAMES[self.type]
        refused = InvalidValue(f"{self.name} must be {wanted}, not {value!r}.")
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise refused
        try:
            taken = self.type(value)
            str(taken).encode()  # no bytes of a command line that are not UTF-8
        except (ValueError, OverflowError):
            raise refused from None
        if self.type is int and not isinstance(value, str) and value != taken:
            raise refused
        if self.type is float and not abs(taken) < float("inf"):
            raise refused
        if self.type is int and abs(taken) > _LARGEST:
            raise InvalidValue(f"{self.name} must be a whole number of at most {_LARGEST:,}.")
        if self.choices and taken not in self.choices:
            raise refused
        return taken

    def _check_truth(self, value: object) -> bool:
        found = _TRUTHS.get(value.strip().lower()) if isinstance(value, str) else value
        if not isinstance(found, bool):
            raise InvalidValue(f"{self.name} must be true or false, not {value!r}.")
        return found


_TRUTHS: Final = {"true": True, "yes": True, "false": False, "no": False}

_LARGEST: Final = 1_000_000_000_000
"""The largest absolute value of whole numbers; engines and frames cannot hold arbitrary ones."""

_NAMES: Final = {int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A question about conversations, with everything that answers it.

    Attributes:
        name: The name in `lab.metrics`.
        domain: The domain.
        question: The question.
        definition: The definition, from the docstring.
        source: The paper or document of the definition.
        parameters: The parameters of the metric, besides the filters.
        columns: The columns of the answer.
        role: The effect of the filter `role`.
        people: The column that counts the people of a row.
        min_people: The fewest people of a row, unless the filters set another number.
        nothing: The finding of an answer without rows, or a function of the rows of the expression
            and the `Talk` that returns it.
        far: Whether messages dated before 1990 or in the future are excluded or included; None if
            the metric does not count messages.
        estimated: The end of a sentence on the use of messages with an estimated time, such as
            'among them'; empty if their times do not matter.
        of_all: Whether the finding is about all rows even if some are left out.
        expression: Returns the Ibis expression.
        finish: Computes the rows of the answer from those of the expression, if needed.
        finding: Returns the result in one sentence, for an answer with rows.
        chart: Draws an answer with rows.
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
    estimated: str
    of_all: bool
    expression: Expression = field(repr=False)
    finish: Finish | None = field(repr=False)
    finding: Callable[[pl.DataFrame], str] = field(repr=False)
    chart: Callable[[Answer], Chart] = field(repr=False)

    @property
    def filters(self) -> list[str]:
        """The names of the filters that can be used."""
        from aico_lab.metrics.engine.filters import Filters  # needed by few: names come first

        names = [one.name for one in fields(Filters)]
        return [name for name in names if name != "role" or self.role is not RoleFilter.REFUSED]

    def check(self, given: Mapping[str, object]) -> dict[str, Any]:
        """Return the values of all parameters: validated, or the defaults.

        Raises:
            UnknownName: The metric has no parameter of a given name.
            InvalidValue: A value has the wrong type, or is not among the choices.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                filters = self.filters
                have = (
                    f": it has {', '.join(known) if known else 'none of its own'}, and the filters "
                    f"{', '.join(filters)}."
                )
                end = did_you_mean(name, [*known, *filters], have)
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
    nothing: str | Callable[[pl.DataFrame, Talk], str] = NOTHING,
    far: Far | None = "among them",
    estimated: str = "",
    of_all: bool = False,
) -> Callable[[Expression], Metric]:
    """Declare the decorated function as a metric with its name; its docstring is the definition.

    The function takes the `Talk`, and the parameters as keyword-only arguments. For the arguments
    of this decorator see the attributes of `Metric`.

    Raises:
        ValueError: The column `n` or the column of people is missing, or the parameters differ from
            the function's keyword-only arguments.
    """
    nested = (c if isinstance(c, tuple) else (c,) for c in columns)
    flat = tuple(itertools.chain.from_iterable(nested))
    names = [column.name for column in flat]
    usual_role = RoleFilter.CHOOSES_ROWS if "role" in names else RoleFilter.RESTRICTS_MESSAGES

    def declare(expression: Expression) -> Metric:
        name = expression.__name__
        for needed in (N, people):
            if needed not in names:
                raise ValueError(f"{name} has no column {needed}, which small cells are judged by")
        signature = inspect.signature(expression).parameters.values()
        taken = [one.name for one in signature if one.kind is one.KEYWORD_ONLY]
        if taken != [parameter.name for parameter in parameters]:
            raise ValueError(f"{name} takes {taken}, but declares other parameters")
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
            estimated=estimated,
            of_all=of_all,
            expression=expression,
            finish=finish,
            finding=finding,
            chart=chart,
        )

    return declare
