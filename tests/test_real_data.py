"""The whole path on all of the real conversations, checked against independent computations."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any

import chitchat_dataset
import pandas as pd
import polars as pl
import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from aico_lab.lab import Lab
from tests.conftest import plain_text_files
from tests.notebooks import charts, header, tiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.reports.runner import RunResult

pytestmark = pytest.mark.slow

MESSAGES, CONVERSATIONS, PEOPLE = 258_145, 7_168, 1_315


@pytest.fixture(scope="module")
def original() -> dict[str, Any]:
    """The data set as its own package ships it, read by nothing of ours."""
    file = Path(chitchat_dataset.__file__).with_name("dataset.json")
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with all of it, imported and synced."""
    folder = tmp_path_factory.mktemp("real")
    with Lab.create(folder / "home", key_file=folder / "key") as lab:
        lab.import_from("chitchat")
        lab.sync()
        yield lab


def messages_of(conversation: dict[str, Any]) -> list[dict[str, str]]:
    return [message for turn in conversation["messages"] for message in turn]


def test_every_message_is_in_both_databases_as_the_data_set_has_it(real, original):
    """Text, sender, time and conversation of all 258,145; 7,168 conversations, 1,315 people."""
    expected = Counter(
        (conversation_id, m["sender"], m["text"], m["timestamp"])
        for conversation_id, conversation in original.items()
        for m in messages_of(conversation)
    )
    assert expected.total() == MESSAGES
    columns = "conversation_id, user_id, content"
    there = Counter(
        real.sql(
            f"SELECT {columns}, strftime(timestamp, '%Y-%m-%dT%H:%M:%SZ') FROM conversations"
        ).fetchall()
    )
    assert there == expected
    here = Counter(
        (*row, f"{time[:19]}Z")
        for *row, time in real.primary.fetch_all(f"SELECT {columns}, timestamp FROM messages")
    )
    assert here == expected
    counts = real.sql(
        "SELECT count(DISTINCT conversation_id), count(DISTINCT user_id), "
        "(SELECT count(*) FROM raw.channels), (SELECT count(*) FROM raw.users), "
        "(SELECT count(*) FROM quarantine.misfits) "
        "FROM conversations"
    ).fetchone()
    assert counts == (CONVERSATIONS, PEOPLE, CONVERSATIONS, PEOPLE, 0)


def test_prompts_and_ratings_are_kept(real, original):
    """Prompts in the channel's name and metadata, ratings as feedback."""
    prompts = {key: c.get("prompt") for key, c in original.items()}
    stored = real.sql("SELECT channel_id, name, metadata FROM raw.channels").fetchall()
    assert {key: name for key, name, _ in stored} == prompts
    assert {key: json.loads(data).get("prompt") for key, _, data in stored} == prompts
    ratings = Counter(
        (key, name, float(value))
        for key, c in original.items()
        for name, value in c.get("ratings", {}).items()
    )
    assert (
        Counter(real.sql("SELECT conversation_id, name, value FROM raw.feedback_events").fetchall())
        == ratings
    )


def test_sentiment_is_vaders_own(real):
    """On a sample, by the library itself; blank texts have none, nor have those in Spanish."""
    vader = SentimentIntensityAnalyzer()
    rows = real.sql(
        "SELECT content, sentiment_score FROM raw.messages "
        "WHERE sentiment_source IS NULL OR sentiment_source NOT LIKE 'language:%' "
        "ORDER BY hash(message_id) LIMIT 3000"
    ).fetchall()
    for text, score in rows:
        assert score == (vader.polarity_scores(text)["compound"] if text.strip() else None)
    blank, foreign, unscored = real.sql(
        "SELECT count(*) FILTER (trim(content, E' \\t\\r\\n') = ''), "
        "count(*) FILTER (sentiment_source LIKE 'language:%'), "
        "count(*) FILTER (sentiment_score IS NULL) FROM raw.messages"
    ).fetchone()
    assert blank == 33
    assert blank + foreign == unscored
    assert 0 < foreign < 0.0005 * 258_145


def independent_response_times(original: dict[str, Any]) -> dict[str, list[float]]:
    """Seconds since the other side's last message, message by message in plain Python."""
    times: dict[str, list[float]] = defaultdict(list)
    for conversation in original.values():
        previous: dict[str, str] | None = None
        for message in messages_of(conversation):
            if previous and previous["sender"] != message["sender"]:
                now, before = (datetime.fromisoformat(m["timestamp"]) for m in (message, previous))
                times[message["timestamp"][:10]].append((now - before).total_seconds())
            previous = message
    return times


def test_the_documents_metric_equals_an_independent_computation(real, original):
    """Per day of the last 30 of the data: messages, average sentiment, p95 of the response time."""
    answer = real.sql(
        """
        SELECT
            date_trunc('day', timestamp) as day,
            count(*) as message_count,
            avg(sentiment_score) as avg_sentiment,
            approx_quantile(response_time, 0.95) as p95_response_time
        FROM conversations
        WHERE timestamp > date_sub((SELECT max(timestamp) FROM conversations), interval 30 day)
        GROUP BY 1
        ORDER BY 1 DESC
        """
    ).fetchall()
    scores = pl.DataFrame(
        real.primary.fetch_all("SELECT timestamp, sentiment_score FROM messages"),
        schema=["time", "score"],
        orient="row",
    )
    newest = datetime.fromisoformat(scores["time"].max())
    since = (newest - timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    expected = (
        scores.filter(pl.col("time") > since)
        .group_by(pl.col("time").str.slice(0, 10).alias("day"))
        .agg(pl.len().alias("count"), pl.col("score").mean())
        .sort("day", descending=True)
    )
    assert [(f"{row[0]:%Y-%m-%d}", row[1]) for row in answer] == [
        row[:2] for row in expected.iter_rows()
    ]
    assert [row[2] for row in answer] == pytest.approx(expected["score"].to_list())
    times = independent_response_times(original)
    for day, _, _, p95 in answer[:-1]:  # the first day is cut by the window
        low, high = pd.Series(times[f"{day:%Y-%m-%d}"]).quantile([0.92, 0.98])
        assert low <= p95 <= high


def test_response_times_equal_an_independent_computation(real, original):
    """All of them."""
    expected = sorted(t for day in independent_response_times(original).values() for t in day)
    found = real.sql(
        "SELECT response_time FROM conversations WHERE response_time IS NOT NULL ORDER BY 1"
    ).fetchall()
    assert [t for (t,) in found] == expected


@pytest.fixture(scope="module")
def report(real: Lab) -> RunResult:
    """The report on all of it."""
    return real.reports.run("pattern_analysis")


def test_the_report_describes_the_real_conversations_as_what_they_are(real, report):
    """Counts and times of reply by plain Python; and charts that a browser can hold."""
    messages = real.primary.fetch_all(
        "SELECT conversation_id, role, timestamp FROM messages ORDER BY conversation_id, id"
    )
    replies = [
        (datetime.fromisoformat(when) - datetime.fromisoformat(before)).total_seconds()
        for (conversation, role, when), (earlier, other, before) in pairwise(reversed(messages))
        if conversation == earlier and role == "assistant" and other == "user"
    ]
    in_time = sorted(seconds for seconds in replies if seconds <= 12 * 3600)
    shown = tiles(report.notebook)
    assert shown["messages"] == "258,145"
    assert shown["conversations"] == f"{CONVERSATIONS:,}"
    assert shown["median time until the companion replies"] == f"{median_low(in_time):,.0f} s"
    drawn = charts(report.notebook)
    assert len(drawn) > 20
    for rows in drawn.values():
        assert len(rows) < 2_000
    assert "both sides are people" in header(report.notebook)
    assert "was given a prompt" in header(report.notebook)


def test_no_file_below_the_home_holds_a_known_message(real, report):
    """After a report too; the text is in the databases, and in no file readably."""
    known = "Im alright, I just took a nap. But it was one of those naps that doesnt help anything"
    row = real.sql(f"SELECT count(*) FROM conversations WHERE content LIKE '{known}%'").fetchone()
    assert row == (1,)
    assert "258,145" in report.html.read_text(encoding="utf-8")
    assert plain_text_files(real.home.path, known) == []


def test_importing_and_syncing_again_adds_nothing(real):
    """Nor does it publish anything."""
    generation = real.generation
    assert real.import_from("chitchat").added == 0
    assert (real.sync().mode, real.generation) == ("nothing", generation)
