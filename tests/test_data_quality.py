"""The notebook `data_quality`: its checks by plain Python, and the page of good and bad data."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from html import unescape
from pathlib import Path

import pytest

from aico_lab.errors import InvalidValue
from aico_lab.importing.rescoring import count_due
from aico_lab.pipeline.records import PipelineRun, StepRecord
from aico_lab.reports.quality import Quality, content, current, gaps, suspicious
from tests.executed import execute_here
from tests.messages import add, message
from tests.notebooks import html

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "data_quality.ipynb"
SECRET = "the time I felt homesick"
DAY = timedelta(days=1)
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)  # when channels of `add` are created


def at(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def faulty() -> list[dict]:
    """Messages of three people with one fault each, and of one who writes every day, with gaps."""
    rows = []

    def say(moment: datetime, text: str = "", **changes) -> None:
        number = len(rows)
        usual = {"timestamp": at(moment), "content": text or f"{SECRET} {number}"}
        rows.append(message(number, **usual | changes))

    for day in (*range(20), *range(40, 45), *range(100, 130)):
        say(NOON + day * DAY, role="user", user_id="daily", conversation_id="d", channel_id="d")
    for minute in (0, 4, 13, 30, 200):  # two repeat the one before within ten minutes
        say(NOON + timedelta(minutes=minute), f"{SECRET} again and again", role="user")
        say(NOON + timedelta(minutes=minute), "ok", role="user", conversation_id="e")
    for conversation in "fgh":  # the same message in three conversations
        say(NOON + DAY, f"{SECRET} thrice", role="user", conversation_id=conversation)
    for year in (1970, 1970, 1985, 2199):
        moment = datetime(year, 1, 1, 0, 0, len(rows) % 60, tzinfo=UTC)
        say(moment, role="user", conversation_id=f"y{year}")
    for number in range(6):
        say(NOON + 2 * DAY, role="user", conversation_id="moment", content=f"{SECRET} m{number}")
    marks = {"timestamp_estimated": True}
    say(NOON + 3 * DAY, metadata=json.dumps(marks), conversation_id="marked")
    say(NOON + 4 * DAY, metadata=json.dumps({"missing_since": "2024-05-01T00:00:00Z"}))
    say(NOON + 5 * DAY, "  ", sentiment_score=None)
    say(
        NOON + 6 * DAY,
        "привет, как дела",
        sentiment_score=None,
        user_id=None,
        role="user",
        conversation_id="nobody",
    )
    say(NOON + 7 * DAY, "日本語 und mehr \ufffd", sentiment_score=None)
    return rows


@pytest.fixture(scope="module")
def stored(homes, tmp_path_factory):
    """A lab with these messages."""
    with homes.open(tmp_path_factory.mktemp("faulty") / "home", protection="none") as lab:
        add(lab.primary, *faulty())
        lab.primary.execute("UPDATE messages SET reply_to = 'm1' WHERE message_id = 'm2'")
        lab.primary.execute("UPDATE messages SET reply_to = 'gone' WHERE message_id = 'm3'")
        lab.primary.execute(
            "UPDATE messages SET sentiment_source = 'language:ru' WHERE content LIKE 'при%'"
        )
        lab.sync()
        yield lab


def told() -> list[dict]:
    """What metrics count: without messages that are missing from a later export."""
    return [row for row in faulty() if "missing_since" not in (row["metadata"] or "")]


def time_of(row: dict) -> datetime:
    return datetime.fromisoformat(row["timestamp"])


def test_repetitions_and_copies_are_those_of_plain_python(stored):
    groups, copied = defaultdict(list), defaultdict(set)
    for row in told():
        if len(row["content"]) >= suspicious.SHORTEST:
            author = row["role"], row["user_id"], row["content"]
            groups[row["conversation_id"], author].append(time_of(row))
            copied[author, time_of(row)].add(row["conversation_id"])
    for minutes in (1, 10, 20, 1_000):
        expected = sum(
            b - a <= timedelta(minutes=minutes)
            for times in groups.values()
            for a, b in zip(sorted(times), sorted(times)[1:], strict=False)
        )
        assert suspicious.repetitions(stored, minutes=minutes) == expected
    assert suspicious.repetitions(stored, minutes=10) == 2
    assert suspicious.copies(stored) == (2, 2)
    assert sum(len(where) - 1 for where in copied.values()) == 2


def test_suspicious_times_are_those_of_plain_python(stored):
    conversations = defaultdict(list)
    for row in told():
        if not row["metadata"]:
            conversations[row["conversation_id"]].append(time_of(row))
    when = [time_of(row) for row in told()]
    assert suspicious.count_times(stored) == {
        "future": sum(moment > datetime.now(UTC) for moment in when),
        "1970": sum(moment.date() == date(1970, 1, 1) for moment in when),
        "before 1990": 1,
        "all equal": sum(
            len(times) for times in conversations.values()
            if len(times) >= suspicious.FEWEST and len(set(times)) == 1
        ),
        "before channel": sum(moment < NOON - DAY for moment in when),
        "estimated": 1,
        "all": len(when),
    }  # fmt: skip
    checks = suspicious.times(stored)
    assert {check.verdict for check in checks} == {"act", "look"}
    for check in checks[:3]:  # their commands list the messages that were counted
        *_, query = shlex.split(check.command)
        assert len(stored.sql(query).fetchall()) == check.rows


def test_the_gaps_are_those_of_people_who_write_regularly(stored):
    begin = NOON.date()
    assert gaps.gaps_of_regular_people(stored) == [
        gaps.Gap("Person 1", "Person 1", begin + 45 * DAY, begin + 99 * DAY, 55),
        gaps.Gap("Person 1", "Person 1", begin + 20 * DAY, begin + 39 * DAY, 20),
    ]
    assert gaps.gaps_of_regular_people(stored, names=True)[0].name == "daily"
    (months,) = gaps.missing_months(stored)
    written = {(moment.year, moment.month) for moment in map(time_of, told())}
    assert (2024, 5) not in written
    assert (months.rows, months.finding) == (1, "1 month of 5: May 2024")


def test_texts_scores_links_and_scripts_are_counted(stored):
    by_name = {
        check.name: (check.verdict, check.rows)
        for checks in (
            content.empty_and_unnamed(stored), content.unscored(stored),
            content.reply_links(stored), content.scripts(stored), current.missing(stored),
            current.quarantine(stored),
        )
        for check in checks
    }  # fmt: skip
    assert by_name == {
        "Messages without text": ("look", 1),
        "Messages without a person": ("look", 1),
        "Messages to be scored": ("act", 1),
        "Messages of other languages": ("look", 1),
        "Replies to messages that are not stored": ("look", 1),
        "Reply links": ("fine", len(faulty()) - 2),
        "Scripts": ("fine", None),
        "Damaged characters": ("look", 1),
        "Messages missing from a later export": ("look", 1),
        "Quarantine": ("fine", 0),
    }
    letters = Counter()
    for row in told():
        text = row["content"]
        letters["Latin"] += bool(re.search("[a-zA-Z]", text))
        letters["Cyrillic"] += text.startswith("привет")
        letters["Han"] += bool(re.search("[日本語]", text))
    assert content.count_scripts(stored) == dict(letters)


HOSTILE = 'x"$(touch pwned)`id`'


@pytest.fixture(scope="module")
def odd(homes, tmp_path_factory):
    """A lab with messages that are no fault, and of a person who stopped."""
    rows = []

    def say(day: int, text: str, **changes) -> None:
        usual = {"timestamp": at(NOON + day * DAY), "content": text, "role": "user"}
        rows.append(message(len(rows), **usual | changes))

    for day in range(20):
        say(day, "hello there", user_id=HOSTILE)
    for conversation in "xyz":  # a companion greets three people at once
        away = {"conversation_id": conversation, "user_id": None, "role": "assistant"}
        say(30, "good morning to all of you", **away)
    for blank in ("\n", "\t\n"):
        say(31, blank, sentiment_score=None)
    say(40, "გამარჯობა")
    with homes.open(tmp_path_factory.mktemp("odd") / "home", protection="none") as lab:
        add(lab.primary, *rows)
        lab.sync()
        yield lab


def test_a_silence_may_last_to_the_end_of_the_data(odd):
    last = NOON.date() + 40 * DAY
    begin = NOON.date() + 20 * DAY
    (gap,) = gaps.gaps_of_regular_people(odd)
    assert gap == gaps.Gap("Person 1", "Person 1", begin, last, 21, goes_on=True)
    assert str(gap) == "Person 1: from 21 March 2024 on"
    (check,) = gaps.silences(odd, names=True)
    assert check.verdict == "look"
    assert HOSTILE in check.finding
    assert check.command == "aico-lab metrics show calendar_days --user 'Person 1'"


def test_greetings_blank_texts_and_other_scripts_are_no_faults(odd):
    same = suspicious.duplicates(odd, minutes=1)[1]
    assert (same.verdict, same.rows) == ("look", 2)
    assert content.count_scripts(odd) == {"Latin": 23, "other scripts": 1}
    assert content.empty_and_unnamed(odd)[0].rows == 2
    assert content.unscored(odd)[0].verdict == "fine"


def test_messages_are_to_be_scored_if_rescore_would_do_it(odd):
    odd.primary.execute("UPDATE messages SET sentiment_source = 'vader-0' WHERE id = 1")
    due = content.unscored(odd)[0]
    assert (due.verdict, due.rows) == ("act", 1)
    assert count_due(odd.primary) == 1


def test_freshness_is_judged_by_the_age_that_is_called_old(stored, monkeypatch):
    message, sync, _ = current.freshness(stored, stale_days=1)
    assert (message.verdict, sync.verdict) == ("look", "fine")
    assert message.finding.startswith("8 July 2024, 12:00")
    long_ago, _, _ = current.freshness(stored, stale_days=100_000)
    assert long_ago.verdict == "fine"
    monkeypatch.setattr(current.time, "time_ns", lambda: 4_000_000_000 * 10**9)
    # A sync without changes leaves its time as it is.
    assert current.freshness(stored, stale_days=1)[1].verdict == "fine"
    with pytest.raises(InvalidValue, match="at least 1"):
        Quality(stored, stale_days=0)


def test_what_does_not_fit_or_is_not_synced_is_found(lab):
    add(lab.primary, message(0), message(1))
    lab.primary.execute("UPDATE messages SET timestamp = 'soon' WHERE id = 1")
    lab.sync()
    (misfit,) = current.quarantine(lab)
    assert (misfit.name, misfit.verdict, misfit.rows) == (
        "Quarantine: messages.timestamp", "act", 1,
    )  # fmt: skip
    same, pending = current.proof_of_sync(lab)
    assert (same.verdict, pending.verdict) == ("fine", "fine")
    add(lab.primary, message(2))
    _, pending = current.proof_of_sync(lab)
    assert (pending.verdict, pending.rows, pending.command) == ("look", 1, "aico-lab sync")


def test_data_of_the_future_alone_are_no_empty_data(lab):
    lab.sync()
    assert current.freshness(lab, stale_days=1)[0].finding == "no messages yet"
    add(lab.primary, message(0, timestamp="2199-01-01T00:00:00.000000Z"))
    lab.sync()
    last, _, snapshot = current.freshness(lab, stale_days=1)
    assert (last.verdict, last.finding) == ("look", "all are dated later than now")
    assert snapshot.finding == "this page reads snapshot 2"


def run_of(
    pipeline: str, hour: int, status: str, *imports: str, origin: str = "home"
) -> PipelineRun:
    """A run with an import of each status."""
    steps = [StepRecord(f"import-{n}", "import", one) for n, one in enumerate(imports, 1)]
    when = at(NOON + timedelta(hours=hour))
    return PipelineRun(f"run{hour}", pipeline, origin, "", status, when, when, None, steps, [], [],
                       {})  # fmt: skip


def test_imports_are_those_of_the_newest_run_of_each_pipeline(stored, monkeypatch):
    runs = [
        run_of("nightly", 0, "failed", "failed", "ok"),
        run_of("nightly", 1, "ok", "kept", "ok"),
        run_of("stopped", 2, "ok", "ok"),
        run_of("stopped", 3, "interrupted", "running"),
        run_of("gone", 4, "ok", "ok"),
        run_of("gone", 5, "failed", "waiting"),  # its file is missing
        run_of("gone", 6, "missed", "waiting"),
        *(run_of("hourly", hour, "ok") for hour in range(7, 70)),
        run_of("gone", 71, "running", "waiting"),
        run_of("broken", 72, "ok", "ok"),
        run_of("broken", 73, "failed"),  # its file is not valid
        run_of("broken", 74, "failed"),
    ]

    def newest(limit=None):
        return runs[::-1][:limit]

    monkeypatch.setattr(stored.pipelines, "runs", newest, raising=False)
    found = {check.name: (check.verdict, check.finding) for check in current.imports(stored)}
    assert found == {
        "Import of broken: import-1": ("act", "not done in the run of 4 March 2024, 14:00"),
        "Import of gone: import-1": ("act", "not done in the run of 1 March 2024, 17:00"),
        "Import of stopped: import-1": ("act", "not done in the run of 1 March 2024, 15:00"),
        "Import of nightly: import-1": ("act", "failed in the run of 1 March 2024, 12:00"),
        "Import of nightly: import-2": ("fine", "done in the run of 1 March 2024, 13:00"),
    }


def shown(path: Path) -> str:
    text = re.sub(
        r"<style>.*?</style>|<script.*?</script>", "", "\n".join(html(path)), flags=re.DOTALL
    )
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text))).replace("\xa0", " ")


@pytest.mark.slow
def test_the_page_names_what_to_do_and_shows_no_message(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("AICO_LAB_HOME", str(stored.home.path))
    execute_here(NOTEBOOK, tmp_path / "out.ipynb", timezone="Europe/Berlin", duplicate_minutes=20)
    text = shown(tmp_path / "out.ipynb")
    assert re.search(r"\d checks of \d+ to act on, \d+ to look at\.", text)
    assert "3 messages with the author's own text of at most 20 min before" in text
    assert "aico-lab rescore" in text
    assert "Person 1: 15 April to 8 June 2024" in text
    assert "homesick" not in (tmp_path / "out.ipynb").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_home_without_messages_has_a_page(lab, home, tmp_path, monkeypatch):
    monkeypatch.setenv("AICO_LAB_HOME", str(home))
    lab.sync()
    execute_here(NOTEBOOK, tmp_path / "out.ipynb", prove=False)
    assert "no messages yet" in shown(tmp_path / "out.ipynb")
