"""The busiest day and hour, the longest silence and the longest session."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import ibis
import polars as pl
import polars.selectors as cs
from ibis import _

from aico_lab.constants import MS_PER_DAY, MS_PER_MINUTE
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.days import written_day, written_minute
from aico_lab.metrics.engine.durations import duration
from aico_lab.metrics.engine.local_time import local_ms
from aico_lab.metrics.engine.metric import PEOPLE, Column, RoleFilter, metric
from aico_lab.metrics.engine.talk import days_of, hour_of_day, hours_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk

RECORDS: Final = ("busiest day", "busiest hour", "longest silence", "longest session")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def written_local(local_ms: int | None, *, day: bool = False) -> str | None:
    """Return a local time as '2024-05-01 22:15', or its day; None beyond the calendar."""
    if local_ms is None:
        return None
    try:
        moment = _EPOCH + timedelta(milliseconds=local_ms)
    except OverflowError:  # a local time beyond the calendar
        return None
    if day:
        return moment.date().isoformat()
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="minutes")


def _finish(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    rows = rows.with_columns(cs.decimal().cast(pl.Int64)).filter(pl.col("value").is_not_null())
    found = []
    for row in rows.iter_rows(named=True):
        name = RECORDS[row["place"]]
        counts = row["place"] < 2  # noqa: PLR2004
        begins, ends = row["begin_ms"], row["end_ms"]
        first, last = (written_local(at, day=name == "busiest day") for at in (begins, ends))
        if name == "busiest hour":
            first, last = f"{begins:02d}:00", f"{begins + 1:02d}:00"
        found.append(
            {
                "record": name,
                "n": row["n"],
                "people": row["people"],
                "begins": first,
                "ends": last,
                "value": float(row["value"]) if counts else row["value"] / MS_PER_MINUTE,
                "unit": "messages" if counts else "minutes",
                "duration": None if counts else duration(row["value"] / 1000),
                "alike": row["alike"],
                "place": row["place"],
            }
        )
    schema = {
        "record": pl.String, "n": pl.Int64, "people": pl.Int64, "begins": pl.String,
        "ends": pl.String, "value": pl.Float64, "unit": pl.String,
        "duration": pl.String, "alike": pl.Int64, "place": pl.Int64,
    }  # fmt: skip
    return pl.DataFrame(found, schema=schema, orient="row").sort("place")


def alike(row: Mapping[str, Any]) -> str:
    """Return the number of others with the value of a record: ' (like 2 other days)', or ''."""
    others = row["alike"] - 1
    noun = row["record"].rpartition(" ")[2]
    return f" (like {claims.counted(others, f'other {noun}s')})" if others > 0 else ""


def _describe(rows: pl.DataFrame) -> str:
    said = []
    for row in rows.iter_rows(named=True):
        record, count = row["record"], int(row["value"])
        also = alike(row)
        if record == "busiest day":
            day = written_day(date.fromisoformat(row["begins"]))
            text = f"{day} with {claims.counted(count, 'messages')}"
        elif record == "busiest hour":
            text = f"{row['begins']} to {row['ends']} with {claims.counted(count, 'messages')}"
        else:
            begins = written_minute(datetime.fromisoformat(row["begins"]))
            text = f"{row['duration']} from {begins}"
        said.append(f"{record}: {text}{also}")
    text = "; ".join(said)
    return text[:1].upper() + text[1:]


def _draw(answer: Answer) -> Chart:
    return draw_sentences(answer, _describe, RECORDS)


def draw_sentences(
    answer: Answer, describe: Callable[[pl.DataFrame], str], records: Sequence[str]
) -> Chart:
    """Draw the records of an answer as text.

    Args:
        answer: The answer, with a row for each record.
        describe: Returns 'Busiest day: 5 April 2018' for one row.
        records: The names of the records, in their order.
    """
    import altair as alt

    rows = answer.pl()
    said = [describe(rows[at]).partition(": ")[2] for at in range(rows.height)]
    # Short lines, which a phone can show.
    broken = [text.replace(" from ", "\nfrom ", 1).replace(" (like ", "\n(like ") for text in said]
    rows = rows.with_columns(text=pl.Series(broken))
    lines = max((text.count("\n") + 1 for text in broken), default=1)
    return (
        alt.Chart(rows)
        .mark_text(align="left", baseline="middle", fontSize=13, x=6, lineBreak="\n", lineHeight=17)
        .encode(alt.Y("record:N", title=None, sort=list(records)), alt.Text("text:N"))
        .properties(width=draw.WIDTH, height=max(draw.LINE, 17 * lines + 9) * rows.height)
    )


@metric(
    domain="time",
    question="Which day and hour were busiest, and how long were the longest silence and session?",
    source="The records of chat-analytics; sessions as in sessions",
    columns=[
        Column("record", "text", "busiest day, busiest hour, longest silence or longest session"),
        Column(
            "n",
            "integer",
            "messages in the day, hour or session; of a silence, all messages of the selection",
        ),
        PEOPLE,
        Column("begins", "text", "local day, hour or time of the beginning"),
        Column("ends", "text", "local day, hour or time of the end"),
        Column("value", "number", "number of messages, or duration in minutes"),
        Column("unit", "text", "messages or minutes"),
        Column("duration", "text", "the duration in days, h, min or s; none for counts"),
        Column("alike", "integer", "number of days, hours, silences or sessions with this value"),
    ],
    finish=_finish,
    finding=_describe,
    far="left out",
    estimated="counted in the busiest day only",
    chart=_draw,
    role=RoleFilter.REFUSED,
)
def extremes(talk: Talk) -> ir.Table:
    """The local day and hour of the day with the most messages, the longest silence and session.

    An hour counts over all days: 20:00 to 21:00 is every evening's. A silence is a time in which
    nobody at all wrote, in no conversation of the selection; time before its first and after its
    last message is none. A session is a stretch of a conversation without a silence above 30
    minutes, and lasts from its first message to its last; a single message has no duration. With
    `user`, the sessions count in which the first message by a user is of one of these people. One
    that begins in the period counts as a whole, with the messages and people of its later part.
    Messages with an estimated time count in days only: no hour, no silence that begins or ends with
    one, and no session that has one is a record. Of
    records that tie, the first is shown, and `alike` counts them. Chance makes some day the busiest
    even where all days are alike.
    """
    messages = talk.plausible(talk.messages, "ts_ms")
    days = messages.group_by(at=days_of(messages.local_ms)).agg(
        n=_.count(), people=_.user_id.nunique()
    )
    timed = messages.filter(~messages.is_estimated)
    hours = timed.group_by(at=hour_of_day(hours_of(timed.local_ms))).agg(
        n=_.count(), people=_.user_id.nunique()
    )
    in_order = ibis.window(order_by="ts_ms")
    moments = messages.group_by("ts_ms", "local_ms").agg(is_estimated=_.is_estimated.any())
    after = moments.mutate(
        next_ms=moments.ts_ms.lead().over(in_order),
        next_local=moments.local_ms.lead().over(in_order),
        is_known=~(moments.is_estimated | moments.is_estimated.lead().over(in_order)),
    )
    selected = messages.aggregate(n=_.count(), people=_.user_id.nunique())
    silences = after.filter(after.next_ms.notnull() & after.is_known).cross_join(selected)
    sessions = talk.plausible(talk.sessions(), "started_ms")
    lasting = sessions.filter(sessions.ended_ms > sessions.started_ms)
    # All people of a session, which counts as a whole whatever part of it the filters select.
    everything = talk.everything
    of_session = everything.group_by("conversation_id", "session_idx").agg(
        people=everything.user_id.nunique(), has_estimated=everything.is_estimated.any()
    )
    of_session = of_session.filter(~of_session.has_estimated).drop("has_estimated")
    lasting = lasting.inner_join(of_session, ["conversation_id", "session_idx"])
    lasting = lasting.mutate(
        n=lasting.n_messages,
        begin_ms=lasting.local_ms,
        end_ms=local_ms(lasting.ended_ms, talk.shifts),
    )
    return (
        first_of_largest(
            days, 0, value=days.n, begin=days["at"] * MS_PER_DAY, end=days["at"] * MS_PER_DAY
        )
        .union(first_of_largest(hours, 1, value=hours.n, begin=hours["at"], end=hours["at"]))
        .union(
            first_of_largest(
                silences,
                2,
                value=silences.next_ms - silences.ts_ms,
                begin=silences.local_ms,
                end=silences.next_local,
            )
        )
        .union(
            first_of_largest(
                lasting,
                3,
                value=lasting.ended_ms - lasting.started_ms,
                begin=lasting.begin_ms,
                end=lasting.end_ms,
            )
        )
    )


def first_of_largest(
    table: ir.Table,
    place: int,
    *,
    value: ir.IntegerValue,
    begin: ir.IntegerValue,
    end: ir.IntegerValue,
    counts: ir.IntegerValue | int = 1,
) -> ir.Table:
    """Return the row with the largest value, the earliest of several, and how many there are.

    Args:
        table: The rows, with `n` and `people`.
        place: The place of the record in its list.
        value: The value that is compared.
        begin: The local time of the beginning.
        end: That of the end.
        counts: How many a row counts for, if there are several.
    """
    rows = table.select(
        n=table.n.cast("int64"),
        people=table.people.cast("int64"),
        value=value.cast("int64"),
        begin_ms=begin.cast("int64"),
        end_ms=end.cast("int64"),
        counts=counts if isinstance(counts, int) else counts.cast("int64"),
    )
    rows = rows.mutate(largest=rows.value.max().over(ibis.window()))
    top = rows.filter(rows.value == rows.largest)
    ranked = top.mutate(
        at=ibis.row_number().over(ibis.window(order_by=["begin_ms", "end_ms", "n", "people"])),
        alike=top["counts"].sum().over(ibis.window()).cast("int64"),
    )
    first = ranked.filter(ranked["at"] == 0)
    return first.select(
        "n", "people", "value", "begin_ms", "end_ms", "alike", place=ibis.literal(place, "int64")
    )
