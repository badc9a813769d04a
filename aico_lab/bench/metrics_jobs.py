"""The jobs of the benchmark of metrics."""

from __future__ import annotations

import itertools
import json
import re
import time
from typing import TYPE_CHECKING, Final

import polars as pl
from polars.testing import assert_frame_equal

from aico_lab.bench.harness import run_job
from aico_lab.constants import POSITIVE
from aico_lab.lab import Lab
from aico_lab.mart.text import ADDRESS, MAY_BE
from aico_lab.metrics.engine.asking import compile_query
from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.metrics.engine.filters import Filters
from aico_lab.metrics.engine.metric import RoleFilter
from aico_lab.metrics.engine.talk import Talk
from aico_lab.metrics.lab_metrics import Metrics
from aico_lab.sources import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pandas as pd

TIMES: Final = 5
"""How often the questions are asked: they take only milliseconds, so the mean is taken."""

_PART: Final = "(?:[A-Za-z\u00c0-\u024f]|[0-9]+(?:[.,][0-9]+)*)+"
_WORD: Final = f"{_PART}(?:['’]{_PART})*"  # noqa: RUF001

SQL: Final = {
    "overview": """
        SELECT
            count(*) AS n, count(*) FILTER (role = 'assistant') AS by_assistant,
            count(DISTINCT conversation_id) AS conversations,
            count(DISTINCT user_id) FILTER (role = 'user') AS users,
            count(DISTINCT user_id) AS people, sum(n_words)::BIGINT AS words,
            count(DISTINCT user_id) FILTER (n_words IS NOT NULL) AS _people_words,
            count(DISTINCT ts::DATE) AS days, min(ts)::DATE AS first_day, max(ts)::DATE AS last_day,
            avg(sentiment_score) AS sentiment,
            count(DISTINCT user_id) FILTER (sentiment_score IS NOT NULL) AS _people_sentiment
        FROM (SELECT *, make_timestamp(ts_ms * 1000) AS ts FROM mart.messages)""",
    "week_heatmap": """
        SELECT
            isodow(ts) - 1 AS day, hour(ts) AS hour, count(*) AS n,
            count(DISTINCT user_id) AS people
        FROM (SELECT user_id, make_timestamp(ts_ms * 1000) AS ts FROM mart.messages)
        GROUP BY ALL""",
    "weekly_activity": """
        SELECT
            date_trunc('week', DATE '1970-01-01' + day::INTEGER)::DATE AS start,
            sum(n_messages)::BIGINT AS n,
            count(DISTINCT user_id) FILTER (role = 'user') AS users,
            count(DISTINCT user_id) AS people,
            count(DISTINCT conversation_id) AS conversations
        FROM mart.daily GROUP BY ALL""",
    "turns": """
        SELECT
            role, count(user_id) > 0 AS known, count(*) AS n_turns,
            count(*) FILTER (n_unsegmented = 0) AS n_counted,
            sum(n_messages)::BIGINT AS n_messages,
            sum(n_words)::BIGINT AS n_words
        FROM mart.turns GROUP BY role, user_id""",
    "sentiment": f"""
        SELECT
            role, count(user_id) > 0 AS known, count(*) AS n_messages,
            count(sentiment_score) AS n_scored,
            coalesce(sum(sentiment_score), 0) AS total,
            count(*) FILTER (sentiment_score >= {POSITIVE}) AS n_positive,
            count(*) FILTER (sentiment_score <= -{POSITIVE}) AS n_negative
        FROM mart.messages GROUP BY role, user_id""",
}
"""The queries of a person who knows the tables and DuckDB well."""


def prepare(folder: Path, rows: int) -> float:
    """Import and sync real messages; people and conversations of each repetition are new."""
    with (folder / "input.jsonl").open("w", encoding="utf-8") as file:
        for message in itertools.islice(_messages(rows), rows):
            file.write(f"{json.dumps(message)}\n")
    with Lab.create() as lab:
        lab.import_from("jsonl", folder / "input.jsonl")
        lab.sync()
    return 0.0


def catalogue(_folder: Path, _rows: int) -> float:
    """Time every metric once, with intervals, in a process that has asked nothing before."""
    with Lab.open() as lab:
        lab.sql("SELECT 1")  # open the snapshot, as the others have theirs open
        metrics = Metrics(lab.storage.reader, timezone=lab.timezone)  # without kept answers
        started = time.perf_counter()
        for name in CATALOGUE:
            metrics[name]()
        return time.perf_counter() - started


def metrics(_folder: Path, _rows: int) -> float:
    """Time the questions after their compilation, as in a notebook that is run again."""
    with Lab.open() as lab:
        _check(lab, _ours)
        return _clock(lab, _ours, TIMES)


def first_metrics(_folder: Path, _rows: int) -> float:
    """Time each question once, as the first work of a process, with its compilation."""
    with Lab.open() as lab:
        lab.sql("SELECT 1")  # open the snapshot, as the others have theirs open
        return _clock(lab, _ours, 1)


def sql(_folder: Path, _rows: int) -> float:
    """Time the same answers by SQL written by hand."""
    with Lab.open() as lab:
        _check(lab, _by_hand)
        return _clock(lab, _by_hand, TIMES)


def pandas(_folder: Path, rows: int) -> float:
    """Time the same answers by pandas, from a data frame of the messages."""
    with Lab.open() as lab:
        frame = _rows(
            lab,
            "SELECT id, conversation_id, user_id, role, content, timezone('UTC', timestamp) AS ts, "
            "sentiment_score FROM raw.messages WHERE role <> 'system'",
        ).to_pandas()
        if len(frame) != rows:
            raise RuntimeError(f"{len(frame)} messages were loaded instead of {rows}")
        started = time.perf_counter()
        answers = _by_pandas(frame)
        seconds = time.perf_counter() - started
        for name, answer in answers.items():
            found = pl.from_pandas(answer.reset_index())
            if name in {"turns", "sentiment"}:  # a row for each person, without the id
                found = found.drop("user_id").with_columns(known=True)
            _compare(name, found, _ours(lab, name))
    return seconds


SETUP: dict[str, Callable[[Path, int], float]] = {"prepare": prepare}
JOBS: dict[str, Callable[[Path, int], float]] = {
    "metrics": metrics,
    "sql": sql,
    "pandas": pandas,
    "first-metrics": first_metrics,
    "catalogue": catalogue,
}


def _messages(rows: int) -> Iterator[dict[str, object]]:
    names = ("message_id", "conversation_id", "channel_id", "user_id")
    for copy in itertools.count():
        for batch in read("chitchat", None, limit=rows):
            for message in batch.messages:
                renamed = {name: f"{copy}-{getattr(message, name)}" for name in names}
                said = {name: getattr(message, name) for name in ("role", "content", "timestamp")}
                yield renamed | said


def _ours(lab: Lab, name: str) -> pl.DataFrame:
    metric = CATALOGUE[name]
    talk = Talk(Filters(), 0, 0, by_side=metric.role is RoleFilter.RESTRICTS_MESSAGES)
    return _rows(lab, compile_query(name, talk, tuple(sorted(metric.check({}).items()))))


def _by_hand(lab: Lab, name: str) -> pl.DataFrame:
    return _rows(lab, SQL[name])


def _rows(lab: Lab, query: str) -> pl.DataFrame:
    answer = lab.sql(query)
    return pl.DataFrame() if answer is None else answer.pl()


def _clock(
    lab: Lab,
    answer: Callable[[Lab, str], pl.DataFrame],
    times: int,
) -> float:
    started = time.perf_counter()
    for _ in range(times):
        for name in SQL:
            answer(lab, name)
    return (time.perf_counter() - started) / times


def _check(
    lab: Lab,
    answer: Callable[[Lab, str], pl.DataFrame],
) -> None:
    """Compare every answer with that of the SQL, once before the clock starts."""
    for name in SQL:
        _compare(name, answer(lab, name), _by_hand(lab, name))


def _compare(name: str, one: pl.DataFrame, other: pl.DataFrame) -> None:
    """Raise RuntimeError if two answers are not the same."""
    columns = sorted(other.columns)
    same = [frame.select(columns).sort(columns) for frame in (one, other)]
    try:
        assert_frame_equal(*same, check_dtypes=False, rel_tol=1e-6, abs_tol=1e-9)
    except AssertionError as differs:
        what = str(differs).splitlines()[0]
        raise RuntimeError(f"The answers to {name} differ: {what}") from differs


def _by_pandas(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the answers as a person who knows pandas well would compute them."""
    import pandas as pd

    frame = frame.sort_values(["conversation_id", "ts", "id"])
    text = frame["content"].str.lower()
    addressed = text.str.contains(MAY_BE)
    text[addressed] = text[addressed].str.replace(ADDRESS, " ", regex=True, flags=re.ASCII)
    frame["n_words"] = text.str.count(_WORD)
    by_user = frame["role"] == "user"
    # The last person who wrote; each of these conversations begins with the user's side.
    frame["user_id"] = frame["user_id"].where(by_user).groupby(frame["conversation_id"]).ffill()
    day = frame["ts"].dt.normalize()
    overview = pd.DataFrame(
        {
            "n": [len(frame)],
            "by_assistant": [(~by_user).sum()],
            "conversations": [frame["conversation_id"].nunique()],
            "users": [frame.loc[by_user, "user_id"].nunique()],
            "people": [frame["user_id"].nunique()],
            "words": [frame["n_words"].sum()],
            "_people_words": [frame["user_id"].nunique()],
            "days": [day.nunique()],
            "first_day": [day.min().date()],
            "last_day": [day.max().date()],
            "sentiment": [frame["sentiment_score"].mean()],
            "_people_sentiment": [frame.loc[frame["sentiment_score"].notna(), "user_id"].nunique()],
        }
    )
    slots = [frame["ts"].dt.weekday.rename("day"), frame["ts"].dt.hour.rename("hour")]
    hours = frame.groupby(slots)
    heatmap = pd.DataFrame({"n": hours.size(), "people": hours["user_id"].nunique()})
    week = (day - pd.to_timedelta(day.dt.weekday, unit="D")).dt.date.rename("start")
    weekly = pd.DataFrame(
        {
            "n": frame.groupby(week).size(),
            "users": frame[by_user].groupby(week[by_user])["user_id"].nunique(),
            "people": frame.groupby(week)["user_id"].nunique(),
            "conversations": frame.groupby(week)["conversation_id"].nunique(),
        }
    )
    weekly["users"] = weekly["users"].fillna(0).astype("int64")
    same = frame["conversation_id"] == frame["conversation_id"].shift()
    gap = frame["ts"] - frame["ts"].shift()
    begins = ~same | (gap > pd.Timedelta(minutes=30)) | (frame["role"] != frame["role"].shift())
    sides = frame.assign(n_turns=begins).groupby(["role", "user_id"])
    turns = pd.DataFrame(
        {
            "n_turns": sides["n_turns"].sum(),
            "n_counted": sides["n_turns"].sum(),  # all of these messages have spaces between words
            "n_messages": sides.size(),
            "n_words": sides["n_words"].sum(),
        }
    )
    score = frame["sentiment_score"]
    moods = frame.assign(positive=score >= POSITIVE, negative=score <= -POSITIVE)
    moods = moods.groupby(["role", "user_id"])
    sentiment = pd.DataFrame(
        {
            "n_messages": moods.size(),
            "n_scored": moods["sentiment_score"].count(),
            "total": moods["sentiment_score"].sum(),
            "n_positive": moods["positive"].sum(),
            "n_negative": moods["negative"].sum(),
        }
    )
    return {
        "overview": overview,
        "week_heatmap": heatmap,
        "weekly_activity": weekly,
        "turns": turns,
        "sentiment": sentiment,
    }


if __name__ == "__main__":
    run_job(SETUP | JOBS)
