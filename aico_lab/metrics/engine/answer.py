"""The answer of a metric: a typed table that shows itself, converts, and draws itself."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from aico_lab.metrics.engine.claims import counted, written
from aico_lab.metrics.engine.intervals import FEW, FEWEST, MOST, PEOPLE_OF, UNIT, UNITS
from aico_lab.metrics.engine.metric import N

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import pyarrow as pa

    from aico_lab.metrics.engine.filters import Filters
    from aico_lab.metrics.engine.metric import Chart, Column, Metric

_MUCH: Final = 10
"""A unit with a larger share, in percent, is named: samples without it would look different."""

SHOWN: Final = 30
"""How many rows show."""

TYPES: Final = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "truth": pl.Boolean(),
    "date": pl.Date(),
}


@dataclass(frozen=True, repr=False)
class Answer:
    """What a metric found.

    Attributes:
        metric: What was asked.
        parameters: With which values.
        filters: About which part of the conversations.
        generation: The snapshot that it was computed from.
        left_out: How many rows rested on fewer observations than `min_cell`, or on fewer people
            than `min_people`.
        begins: When the period begins, where `since` says how far back.
        far: How many of these messages are of before 1990 or of the future.
        nothing: The finding where there are no rows.
        values_left_out: How many values of the rows that stay rested on fewer people than
            `min_people`.
    """

    metric: Metric
    parameters: dict[str, Any]
    filters: Filters
    generation: int
    left_out: int
    _rows: pl.DataFrame
    begins: str | None = None
    far: int = 0
    nothing: str = ""
    values_left_out: int = 0

    def pl(self) -> pl.DataFrame:
        """Return the rows as a polars frame."""
        return self._rows.select(column.name for column in self.metric.columns)

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
        """Write all rows to a file that only its owner can read, in the place of an older one.

        Args:
            file: It ends in .csv, .parquet or .json (a list of objects).

        Raises:
            InvalidValue: It has another ending, or lies in a home.
            HomeNotWritable: It cannot be written.
        """
        from aico_lab.home import results_file

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
        """Draw it.

        An answer without rows gives a chart that says so.
        """
        import altair as alt

        from aico_lab import charts

        if alt.renderers.active != charts.NAME:
            charts.enable()
        question, caption = self.metric.question, textwrap.wrap(self.caption, 100)
        if self._rows.is_empty():
            empty = alt.Chart(pl.DataFrame({"x": []})).mark_point()
            return empty.properties(title=alt.Title(question, subtitle=caption), height=20)
        finding = textwrap.wrap(self.finding, 75)
        return self.metric.chart(self).properties(
            title=alt.Title(finding, subtitle=[question, *caption])
        )

    @property
    def finding(self) -> str:
        """What the answer is, in a sentence."""
        if self._rows.is_empty() and not self.left_out:
            return self.nothing
        if not self.left_out:
            return self.metric.finding(self._rows)
        if self._rows.filter(pl.col(N).is_null() | (pl.col(N) > 0)).is_empty():
            return f"Too little data: {self._left_out}"
        said = self.metric.finding(self._rows)
        return said if self.metric.of_all else f"Of the rows that are shown: {said}"

    @property
    def notes(self) -> list[str]:
        """What the intervals rest on, and where there is none for lack of people."""
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
            most = self._rows.filter(pl.col(UNITS) >= FEWEST)[MOST].max()
            if isinstance(most, float) and most > _MUCH:
                notes.append(f"one of them has {most:.0f} % of what is counted")
        return notes

    @property
    def caption(self) -> str:
        """What it rests on: filters, zone, parameters, snapshot."""
        said = [f"{name} {value}" for name, value in self.parameters.items()]
        filters = self.filters
        limits = {name: getattr(filters, name) for name in ("since", "until", "role")}
        if self.begins is not None:
            limits["since"] = f"{filters.since} (from {self.begins})"
        said += [f"{name} {value}" for name, value in limits.items() if value is not None]
        for name, chosen in (("user", filters.users), ("channel", filters.channels)):
            if chosen:
                said.append(chosen[0] if len(chosen) == 1 else f"{len(chosen)} {name}s")
        said += [f"days and hours of {filters.timezone}", f"snapshot {self.generation}"]
        if self.far and self.metric.far:
            far = f"{counted(self.far, 'messages')} of before 1990 or of the future"
            said.append(f"{far} {self.metric.far}")
        said += self.notes
        if self.left_out:
            said.append(self._left_out)
        if self.values_left_out:
            values, least = counted(self.values_left_out, "values"), self.fewest_people
            said.append(f"{values} of fewer than {counted(least, 'people')} left out")
        return ", ".join(said)

    @property
    def fewest_people(self) -> int:
        """The fewest people of a row or value that shows."""
        return self.filters.min_people or self.metric.min_people

    @property
    def _left_out(self) -> str:
        least, people = self.filters.min_cell, self.fewest_people
        limits = [counted(least, "observations")] if least > 1 else []
        limits += [counted(people, "people")] if people > 1 else []
        return f"{counted(self.left_out, 'rows')} of fewer than {' or '.join(limits)} left out"

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
        return (  # nothing of it is a formula, though dollar signs may stand in names and words
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
        return [[_text(value) for value in row] for row in self.pl().head(SHOWN).iter_rows()]

    def _more(self) -> Sequence[str]:
        left = self._rows.height - SHOWN
        return [f"… and {left:,} more rows; .pl() gives all."] if left > 0 else []


def typed(rows: pl.DataFrame, columns: Sequence[Column]) -> pl.DataFrame:
    """Return the declared columns in their order and with their types, and those that do not show.

    The latter begin with an underscore: what intervals, findings and `min_people` go by.
    """
    return rows.select(
        *(pl.col(column.name).cast(TYPES[column.type]) for column in columns),
        *(name for name in rows.columns if name.startswith("_")),
    )


def without_small_cells(
    rows: pl.DataFrame, people: str, min_cell: int, min_people: int
) -> pl.DataFrame:
    """Leave out rows of few observations or about few people; a row of none tells nothing.

    Args:
        rows: Of an answer.
        people: The column that counts people.
        min_cell: The fewest observations of a row that stays.
        min_people: The fewest people of a row that stays.
    """
    n = pl.col(N).fill_null(0)
    enough = n >= min_cell
    if min_people > 1:  # a row about nobody who is named is one about perhaps one person
        enough &= pl.col(people).fill_null(0) >= min_people
    return rows.filter((n == 0) | enough)


def without_values_of_few(rows: pl.DataFrame, min_people: int) -> tuple[pl.DataFrame, int]:
    """Leave out values that rest on fewer people than their row, and on too few of them.

    Args:
        rows: Of an answer. A column `_people_NAME` says how many people a column NAME rests on.
        min_people: The fewest people of a value that stays, with its interval.

    Returns:
        The rows, and how many values were left out.
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


def _side(column: Column) -> str:
    return "left" if column.type in ("text", "date", "truth") else "right"


def _text(value: object) -> str:
    match value:
        case None:
            return "–"  # noqa: RUF001 - a dash, as in tables
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return written(value)
    return str(value)
