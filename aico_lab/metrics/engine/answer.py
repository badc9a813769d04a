"""The answer of a metric: a typed table with a finding, a caption and a chart."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from aico_lab.metrics.engine.claims import SIDES, counted, isolated, with_minus, written
from aico_lab.metrics.engine.days import written_moment
from aico_lab.metrics.engine.intervals import COUNTED, FEW, FEWEST, MOST, PEOPLE_OF, UNIT, UNITS
from aico_lab.metrics.engine.metric import NOTE, N
from aico_lab.results import in_cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import pyarrow as pa

    from aico_lab import charts
    from aico_lab.metrics.engine.filters import Filters
    from aico_lab.metrics.engine.metric import Chart, Column, Metric
    from aico_lab.metrics.engine.pseudonyms import Key

_MUCH: Final = 10
"""The caption names the share of a unit above this percentage, since it sways the result."""

_TOO_LITTLE: Final = "Too little data"

SHOWN: Final = 30
"""The most rows that are displayed."""

TYPES: Final = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "truth": pl.Boolean(),
    "date": pl.Date(),
}


class Called(NamedTuple):
    """The pseudonym and the name of a chosen person or channel.

    Attributes:
        pseudonym: The pseudonym.
        name: The name, or the id if there is none.
    """

    pseudonym: str
    name: str


@dataclass(frozen=True, repr=False)
class Answer:
    """The result of a metric.

    Attributes:
        metric: The metric that was computed.
        parameters: The values of its parameters.
        filters: The filters that select messages.
        generation: The generation of the snapshot that it was computed from.
        left_out: The number of rows removed for having fewer observations than `min_cell`, or
            fewer people than `min_people`.
        begins: The local start of the period, if `since` is relative; else None.
        far: The number of selected messages dated before 1990 or in the future.
        estimated: The number of selected messages with an estimated time, if the metric uses times.
        nothing: The finding if there are no rows.
        values_left_out: The number of values removed from the remaining rows for resting on fewer
            people than `min_people`.
        called: The names of the chosen people and channels, by the column of their ids.
        names: Whether they are called by names rather than pseudonyms.
        simulated: Whether the data are simulated.
    """

    metric: Metric
    parameters: dict[str, Any]
    filters: Filters
    generation: int
    left_out: int
    _rows: pl.DataFrame
    begins: str | None = None
    far: int = 0
    estimated: int = 0
    nothing: str = ""
    values_left_out: int = 0
    called: Mapping[Key, Sequence[Called]] = field(default_factory=dict)
    names: bool = False
    simulated: bool = False

    def pl(self) -> pl.DataFrame:
        """Return the rows as a polars frame."""
        return self._rows.select(column.name for column in self.metric.columns)

    def hidden(self) -> dict[str, Any]:
        """Return the first row of the hidden columns, for charts; see `typed`."""
        hidden = self._rows.select(name for name in self._rows.columns if name.startswith("_"))
        return hidden.row(0, named=True) if hidden.height else {}

    def arrow(self) -> pa.Table:
        """Return the rows as an Arrow table; each field's metadata has its `meaning` and `unit`."""
        import pyarrow as pa

        table = self.pl().to_arrow()
        described = [
            table.schema.field(column.name).with_metadata(
                {"meaning": column.meaning, "unit": column.unit}
            )
            for column in self.metric.columns
        ]
        return table.cast(pa.schema(described))

    def df(self) -> pd.DataFrame:
        """Return the rows as a pandas frame."""
        frame: pd.DataFrame = self.arrow().to_pandas()
        return frame

    def write(self, file: Path | str) -> None:
        """Write all rows to a file that only its owner can read, replacing an existing file.

        Args:
            file: The path; the suffix, in any case, selects the format: .csv, .parquet or .json (a
                list of objects).

        Raises:
            InvalidValue: The suffix is another one, or the file lies inside a home.
            HomeNotWritable: The file cannot be written.
        """
        from aico_lab.results import results_file

        rows = self.pl()
        with results_file(Path(file)) as target:
            match target.suffix:
                case ".csv":
                    rows.write_csv(target)
                case ".parquet":
                    rows.write_parquet(target)
                case _:
                    rows.write_json(target)

    def plot(self) -> Chart:
        """Return the chart; without rows, an empty chart with question and caption."""
        import altair as alt

        from aico_lab import charts

        if alt.renderers.active != charts.NAME:
            charts.enable()
        question, caption = self.metric.question, _lines(self.caption, 100)
        charts.describe(question, self._details())
        if self._rows.is_empty():
            empty = alt.Chart(pl.DataFrame({"x": []})).mark_point()
            return empty.properties(title=alt.Title(question, subtitle=caption), height=20)
        title = self.finding
        if title.startswith(tuple(SIDES.values())):  # which begin in lower case
            title = f"{title[:1].upper()}{title[1:]}"
        return self.metric.chart(self).properties(
            title=alt.Title(_lines(title, 75), subtitle=[question, *caption])
        )

    def _details(self) -> charts.Details:
        """Return the details that a figure shows on demand: definition, source, headings."""
        from aico_lab.charts import Details

        headings = zip(self.metric.columns, self._headings(), strict=True)
        return Details(
            {"Definition": self.metric.definition, "Source": self.metric.source},
            {column.name: heading for column, heading in headings},
        )

    @property
    def finding(self) -> str:
        """The result in one sentence."""
        return isolated(with_minus(self._finding))

    @property
    def _finding(self) -> str:
        if self._rows.is_empty() and not self.left_out:
            return self.nothing
        if not self.left_out:
            return self.metric.finding(self._rows)
        if self._rows.filter(pl.col(N).is_null() | (pl.col(N) > 0)).is_empty():
            return f"{_TOO_LITTLE}: nothing about fewer than {self._limits} is shown"
        said = self.metric.finding(self._rows)
        if self.metric.of_all:
            return said
        if said.startswith(_TOO_LITTLE):
            return said.replace(_TOO_LITTLE, f"{_TOO_LITTLE} in the rows that are shown", 1)
        return f"Of the rows that are shown: {said}"

    @property
    def notes(self) -> list[str]:
        """Notes on the intervals, followed by the note of the metric."""
        notes = self._notes_on_intervals
        if NOTE in self._rows.columns and not self._rows.is_empty():
            notes += [note for note in self._rows[NOTE].head(1) if note is not None]
        return notes

    @property
    def _notes_on_intervals(self) -> list[str]:
        """The units of the intervals, and whether any interval is missing or rough."""
        if UNITS not in self._rows.columns or self._rows.is_empty():
            return []
        rows = self._rows.filter(pl.col(UNITS) > 0)
        ends = [name for name in rows.columns if name.endswith("_low")]
        if rows.is_empty() or not ends:
            return []
        unit, units = rows[UNIT].mode().sort()[0], rows[UNITS]
        notes = [f"95 % intervals over {unit}"]
        if (units < FEWEST).any():
            notes.append(f"none below {FEWEST} {unit}")
        if units.is_between(FEWEST, FEW - 1).any():
            notes.append(f"rough below {FEW} {unit}")
        if MOST in self._rows.columns:
            notes += _dominant(rows.filter(pl.col(UNITS) >= FEWEST))
        return notes

    @property
    def caption(self) -> str:
        """Parameters, filters, time zone, snapshot, notes, and counts of what was left out."""
        said = ["simulated data"] if self.simulated else []
        said += [
            f"{name} {in_cell(value, written) if isinstance(value, bool) else value}"
            for name, value in self.parameters.items()
            if value != ""
            and not (name == "names" and value is False)
            and not (name == "top" and len(self) < value)
        ]
        filters = self.filters
        limits: dict[str, str | None] = {
            name: None if bound is None else written_moment(bound, filters.timezone)
            for name, bound in (("since", filters.since), ("until", filters.until))
        }
        if self.begins is not None:
            limits["since"] = f"{filters.since} (from {written_moment(self.begins, 'UTC')})"
        limits["role"] = filters.role
        said += [f"{name} {value}" for name, value in limits.items() if value is not None]
        for plural, chosen in (("people", self.users), ("channels", self.channels)):
            if chosen:
                said.append(chosen[0] if len(chosen) == 1 else f"{len(chosen)} {plural}")
        said += [f"days and hours of {filters.timezone}", f"snapshot {self.generation}"]
        if self.far and self.metric.far:
            far = f"{counted(self.far, 'messages')} from before 1990 or in the future"
            said.append(f"{far} {self.metric.far}")
        if self.estimated:
            guessed = f"{counted(self.estimated, 'messages')} with an estimated time"
            said.append(f"{guessed} {self.metric.estimated}")
        said += self.notes
        if self.left_out:
            said.append(f"{counted(self.left_out, 'rows')} of fewer than {self._limits} left out")
        if self.values_left_out:
            values, least = counted(self.values_left_out, "values"), self.fewest_people
            said.append(f"{values} of fewer than {counted(least, 'people')} left out")
        return isolated(", ".join(said))

    @property
    def users(self) -> tuple[str, ...]:
        """The pseudonyms or names of the chosen people; empty for all."""
        return self._names_of("user_id")

    @property
    def channels(self) -> tuple[str, ...]:
        """The pseudonyms or names of the chosen channels; empty for all."""
        return self._names_of("channel_id")

    def _names_of(self, key: Key) -> tuple[str, ...]:
        return tuple(one.name if self.names else one.pseudonym for one in self.called.get(key, ()))

    @property
    def fewest_people(self) -> int:
        """The fewest people that a displayed row or value rests on."""
        return self.filters.min_people or self.metric.min_people

    @property
    def _limits(self) -> str:
        """The least numbers of observations and people, in words."""
        least, people = self.filters.min_cell, self.fewest_people
        limits = [counted(least, "observations")] if least > 1 else []
        limits += [counted(people, "people")] if people > 1 else []
        return " or ".join(limits)

    def __len__(self) -> int:
        return self._rows.height

    def __repr__(self) -> str:
        with pl.Config(
            tbl_rows=SHOWN, tbl_cols=-1, tbl_hide_dataframe_shape=True,
            tbl_hide_column_data_types=True, tbl_formatting="NOTHING", tbl_width_chars=200,
            fmt_str_lengths=60,
        ):  # fmt: skip
            table = str(pl.DataFrame(self._texts(), schema=self._headings(), orient="row"))
        return "\n".join([self.finding, self.caption, "", table, *self._more()])

    def _repr_html_(self) -> str:
        heads = "".join(
            f'<th style="text-align: {_side(column)};" title="{escape(column.meaning)}">'
            f"{escape(heading)}</th>"
            for column, heading in zip(self.metric.columns, self._headings(), strict=True)
        )
        rows = "".join(
            "<tr>"
            + "".join(
                f'<td style="text-align: {_side(column)};">{escape(text)}</td>'
                for column, text in zip(self.metric.columns, row, strict=True)
            )
            + "</tr>"
            for row in self._texts()
        )
        more = "".join(f"<p>{escape(line)}</p>" for line in self._more())
        return (  # the class keeps Jupyter from reading dollar signs in names as formulas
            '<div class="mathjax_ignore">'
            f"<p><strong>{escape(self.finding)}</strong><br>"
            f"<small>{escape(self.metric.question)} {escape(self.caption)}</small></p>"
            f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{more}</div>"
        )

    def _headings(self) -> list[str]:
        return [
            f"{column.name} ({column.unit})" if column.unit else column.name
            for column in self.metric.columns
        ]

    def _texts(self) -> list[list[str]]:
        return [
            [in_cell(value, written) for value in row] for row in self.pl().head(SHOWN).iter_rows()
        ]

    def _more(self) -> Sequence[str]:
        left = self._rows.height - SHOWN
        return [f"… and {left:,} more rows; .pl() gives all."] if left > 0 else []


def typed(rows: pl.DataFrame, columns: Sequence[Column]) -> pl.DataFrame:
    """Return the declared columns, in order and cast to their types, followed by hidden columns.

    Hidden columns begin with an underscore; intervals, findings and `min_people` use them.
    """
    return rows.select(
        *(pl.col(column.name).cast(TYPES[column.type]) for column in columns),
        *(name for name in rows.columns if name.startswith("_")),
    )


def without_small_cells(
    rows: pl.DataFrame, people: str, min_cell: int, min_people: int
) -> pl.DataFrame:
    """Remove rows with too few observations or people; rows with no observations stay.

    Args:
        rows: The rows of an answer.
        people: The column that counts people.
        min_cell: The fewest observations that a row may have.
        min_people: The fewest people that a row may have.
    """
    n = pl.col(N).fill_null(0)
    enough = n >= min_cell
    if min_people > 1:  # a row without named people may be about a single person
        enough &= pl.col(people).fill_null(0) >= min_people
    return rows.filter((n == 0) | enough)


def without_values_of_few(rows: pl.DataFrame, min_people: int) -> tuple[pl.DataFrame, int]:
    """Replace values that rest on too few people, and their intervals, by null.

    Args:
        rows: The rows of an answer. `_people_NAME` counts the people that the column NAME rests on.
        min_people: The fewest people that a value may rest on.

    Returns:
        The rows, and the number of values that were replaced.
    """
    if min_people <= 1:
        return rows, 0
    found = 0
    for column in rows.columns:
        name = column.removeprefix(PEOPLE_OF)
        if name == column or name not in rows.columns:
            continue
        few = pl.col(column).fill_null(0) < min_people
        found += rows.filter(few, pl.col(name).is_not_null()).height
        ends = [end for end in (name, f"{name}_low", f"{name}_high") if end in rows.columns]
        rows = rows.with_columns(pl.when(~few).then(pl.col(end)).alias(end) for end in ends)
    return rows, found


def _dominant(rows: pl.DataFrame) -> list[str]:
    """Return the note on the largest share of one unit in any row, if the share is large."""
    largest = rows.filter(pl.col(MOST) > _MUCH).sort(MOST, maintain_order=True).tail(1)
    return [
        f"one {counted(1, row[UNIT]).removeprefix('1 ')} has {row[MOST]:.0f} % of the counted "
        f"{row[COUNTED]}"
        for row in largest.iter_rows(named=True)
    ]


def _lines(text: str, width: int) -> list[str]:
    """Return a text in lines that end between words, but not within a number or a date."""
    from aico_lab.charts import unbroken

    return textwrap.wrap(unbroken(text), width, break_on_hyphens=False)


def _side(column: Column) -> str:
    return "left" if column.type in ("text", "date", "truth") else "right"
