"""The notebook `review`: its moments by plain Python, and the page of large, small and no data."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from html import unescape
from pathlib import Path

import duckdb
import pytest

from aico_lab.errors import InvalidValue
from aico_lab.messages.vader import is_purely_positive, scorer
from aico_lab.reports import document
from aico_lab.reports.review import events, moments, pictures, wording
from aico_lab.reports.review.page import Review
from aico_lab.reports.review.span import read_span
from tests.executed import execute_here
from tests.messages import add, message
from tests.notebooks import html
from tests.situations import talk

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "review.ipynb"
ALL = moments.OwnMessages("ada", None, None)


class Stored:
    """A stand-in of a lab with a few tables of `mart`."""

    def __init__(self, *messages: tuple[str, str, str, float | None], themes=()) -> None:
        """Each message: person, role, text, score; one a day, in one conversation."""
        self._made = duckdb.connect()
        self._made.execute("CREATE SCHEMA mart")
        columns = "id BIGINT, conversation_id TEXT, user_id TEXT, role TEXT, ts_ms BIGINT"
        self._made.execute(
            f"CREATE TABLE mart.messages ({columns}, msg_idx BIGINT, n_chars BIGINT, "
            "sentiment_score DOUBLE)"
        )
        self._made.execute("CREATE TABLE mart.texts (id BIGINT, content TEXT)")
        self._made.execute(
            "CREATE TABLE mart.message_themes (id BIGINT, name TEXT, is_outlier BOOLEAN)"
        )
        for n, (person, role, text, mood) in enumerate(messages):
            row = (n, "c", person, role, n * 86_400_000, n, len(text), mood)
            self._made.execute("INSERT INTO mart.messages VALUES (?,?,?,?,?,?,?,?)", row)
            self._made.execute("INSERT INTO mart.texts VALUES (?, ?)", (n, text))
        for theme in themes:
            self._made.execute("INSERT INTO mart.message_themes VALUES (?, ?, ?)", theme)

    def sql(self, query, parameters=None):
        return self._made.execute(query, parameters)


KIND = [
    ("ada", "user", "thank you, you are wonderful", 0.8),
    ("ada", "assistant", "you are great", 0.6),
    ("ada", "user", "thank you so much, I love you", 0.8),
    ("ada", "assistant", "thanks, you are the best", 0.7),
    ("ada", "user", "you are the most wonderful friend", 0.9),
    ("ada", "assistant", "you poor thing, I love you, I love you", 0.9),  # a negative word
    ("ada", "user", "I love sunny days", 0.9),  # speaks to nobody
    ("ada", "assistant", "you are lovely, thank you", 0.9),
    ("bob", "user", "you are wonderful, wonderful", 1.0),  # another person
    ("bob", "assistant", "you too, you are perfect", 1.0),
    ("ada", "user", "you are sweet", None),
    ("ada", "assistant", "you are sweet, too", 1.0),
]


def test_the_kindest_exchange_is_kind_on_both_sides():
    found = moments.kindest_exchange(Stored(*KIND), ALL)
    assert found == moments.Exchange(2 * 86_400_000, KIND[2][2], KIND[3][2])
    until = moments.OwnMessages("ada", None, 2 * 86_400_000)
    assert moments.kindest_exchange(Stored(*KIND), until).message == KIND[0][2]
    assert moments.kindest_exchange(Stored(*KIND[4:8]), ALL) is None


@pytest.mark.parametrize(
    ("text", "is_positive"),
    [("I love you", True), ("I don't love you", False), ("no, I love you", False),
     ("what a lovely, terrible day", False), ("the garden needs water", False), ("❤️ you", True)],
)  # fmt: skip
def test_nothing_that_is_quoted_as_kind_is_negative(text, is_positive):
    assert is_purely_positive(text) == is_positive
    assert not is_positive or scorer()(text) > 0


def test_themes_are_those_of_the_persons_own_messages():
    spoken = [("ada", "user", "x", 0.0)] * 4 + [
        ("ada", "assistant", "x", 0),
        ("bob", "user", "x", 0),
    ]
    themes = [(0, "cats", False), (1, "dogs", False), (2, "cats", False), (3, "sea", True),
              (4, "dogs", False), (5, "dogs", False)]  # fmt: skip
    lab = Stored(*spoken, themes=themes)
    day = 86_400_000
    assert moments.themes_of(lab, ALL) == [
        moments.OwnTheme("cats", 2, 0, is_new=True),
        moments.OwnTheme("dogs", 1, day, is_new=True),
    ]
    later = moments.OwnMessages("ada", day, None)
    assert moments.themes_of(lab, later) == [
        moments.OwnTheme("dogs", 1, day, is_new=True),
        moments.OwnTheme("cats", 1, 2 * day, is_new=False),
    ]
    assert moments.first_message(lab, later) == (day, "x")
    found = [*moments.themes_of(lab, ALL), moments.OwnTheme("<b>", 1, 0, is_new=True)]
    firsts = events.first_themes([*found, moments.OwnTheme("old", 1, 0, is_new=False)], "UTC")
    assert events.timeline(firsts) == (
        '<ol class="events"><li><time>1 January 1970</time><div>You first talked about '
        "<em>cats</em> and <em>&lt;b&gt;</em></div></li><li><time>2 January 1970</time><div>"
        "You first talked about <em>dogs</em></div></li></ol>"
    )


def test_a_period_is_a_year_or_a_month():
    year = read_span("2026", None, None)
    assert (year.since, year.until, year.before, year.days) == (
        "2026-01-01", "2026-12-31", ("2025-01-01", "2025-12-31"), 365,
    )  # fmt: skip
    month = read_span("2024-03", None, None)
    assert (month.name, month.until, month.before) == (
        "March 2024", "2024-03-31", ("2024-02-01", "2024-02-29"),
    )  # fmt: skip
    for wrong in ("26", "2026-13", "2026-1", "2026-01-01", ""):
        with pytest.raises(InvalidValue, match="such as 2026"):
            read_span(wrong, None, None)
    with pytest.raises(InvalidValue, match="not both"):
        read_span("2026", "2026-02-01", None)


def test_the_sentences_about_hours_and_days_are_plain_counts():
    hours = [0] * 24
    hours[23], hours[3], hours[9] = 4, 2, 5
    assert wording.when(hours, {"Monday": 7, "Sunday": 4}) == (
        "You talked most at night: 6 of 11 messages came from 23:00 to 5:00. Of all days of the "
        "week, Monday had the most: 7."
    )
    assert "6 of 11 messages with an exact time came" in wording.when(hours, {"Monday": 12})
    assert wording.when(None, {"Monday": 7}) == (
        "Too few messages have an exact time to tell the hours of the day. Of all days of the "
        "week, Monday had the most: 7."
    )
    hours[9] = 6
    assert wording.when(hours, {"Monday": 6, "Sunday": 6}) == ""
    assert sorted(h for those in wording.PARTS.values() for h in those) == list(range(24))
    assert [wording.compared(*pair) for pair in ((12, 10), (11, 10), (10, 12))] == [
        "more messages than", "about as many messages as", "fewer messages than",
    ]  # fmt: skip


def test_the_calendar_has_each_day_and_the_clock_each_hour_once():
    counts = {date(2024, 2, 29): 4, date(2024, 2, 1): 1}
    drawn = pictures.calendar_of(counts, pictures.months_between(*sorted(counts)))
    assert drawn.count("<rect") == 29
    assert re.findall(r'class="day" fill-opacity="([\d.]+)"><title>(.*?)</title>', drawn) == [
        ("0.5", "1 February 2024: 1 message"), ("1.0", "29 February 2024: 4 messages"),
    ]  # fmt: skip
    long = pictures.calendar_of(counts, pictures.months_between(date(2022, 1, 1), date(2024, 2, 9)))
    assert long.count("<rect") == 26
    assert "February 2024: 5 messages" in long
    clock = pictures.clock_of([0, 3, *[0] * 22])
    assert clock.count("<path") == 1
    assert "01:00 to 02:00: 3 messages" in clock


@pytest.fixture(scope="module")
def odd(homes, tmp_path_factory):
    """A lab with people of whom not everything can be told."""
    rows = []

    def say(person: str, moment: datetime, text: str = "four words are here", **changes) -> None:
        where = {"conversation_id": f"with {person}", "channel_id": f"with {person}"}
        when = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        what = {"user_id": person, "role": "user", "content": text, "timestamp": when}
        rows.append(message(len(rows), **where | what | changes))

    guessed = json.dumps({"timestamp_estimated": True})
    begin = datetime(2024, 5, 1, 19, tzinfo=UTC)
    for n in range(40):
        say("moments", begin.replace(hour=9, second=n))
    for day in range(30):
        evening = begin + timedelta(days=day)
        for minute in range(3):
            at = evening + timedelta(minutes=minute)
            say("dates", at.replace(hour=0 if day < 15 else 12), metadata=guessed)
            say("mixed", at, "four words are here" if day < 15 else "今天天气很好，我们去公园")  # noqa: RUF001
            say("moments", at)
    say("mixed", at + timedelta(minutes=1))
    for minute in range(10):  # a group
        person = "bob" if minute else "ada"
        say(person, begin + timedelta(minutes=minute), conversation_id="group")
    with homes.open(tmp_path_factory.mktemp("odd") / "home", protection="none") as lab:
        add(lab.primary, *rows)
        lab.sync()
        yield lab


def text_of(part) -> str:
    return "" if part is None else part.text.replace("\xa0", " ").replace("\u202f", " ")


def test_nothing_is_told_of_hours_that_are_estimated(odd):
    made = Review(odd, user="dates", period="2024")
    rhythm = text_of(made.rhythm())
    assert "Too few messages have an exact time to tell the hours of the day." in rhythm
    assert "You talked most" not in rhythm
    assert '<svg class="clock"' not in rhythm
    assert "At first you talked most" not in text_of(made.changes())


def test_nothing_is_told_of_words_that_mostly_cannot_be_counted(odd):
    made = Review(odd, user="mixed", period="2024", content=True)
    assert "words from you" not in text_of(made.numbers())
    changes = text_of(made.changes())
    assert "you exchanged about as many messages as before: 46 after 45" in changes
    assert "Your messages became" not in changes
    assert made.talked_about() is None


def test_halves_keep_the_ends_of_the_period_and_equal_records_are_one_of_several(odd):
    made = Review(odd, user="moments", since="2024-05-01T18:00", until="2024-05-30T23:00")
    assert "about as many messages as before: 45 after 45" in text_of(made.changes())
    numbers = text_of(made.numbers())
    assert "the latest you wrote, one of 30 times" in numbers
    assert "one of your longest conversations" in numbers
    assert "your longest streak" in numbers
    assert "words from you" in numbers


def test_a_conversation_with_others_is_not_the_persons_own(odd):
    for person in ("ada", "bob"):
        assert "conversation" not in text_of(Review(odd, user=person, period="2024").numbers())


def shown(path: Path) -> str:
    """The text of the page, without its style sheets."""
    text = "\n".join(html(path))
    text = re.sub(r"<style>.*?</style>|<title>.*?</title>", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text))).replace("\xa0", " ")


def test_the_rows_of_sections_are_the_data_of_the_page(odd):
    """Of the calendar, the clock and the changes; their sums are the person's messages."""
    page = Review(odd, user="moments", period="2024")
    days, hours = page.rhythm().data[document.KEY]["answer"]
    assert [one["key"] for one in (days, hours)] == ["days", "hours"]
    counts = [sum(row[1] for row in one["rows"]) for one in (days, hours)]
    assert counts == [130, 130]
    assert days["sentence"] in unescape(page.rhythm().text)
    changed = page.changes().data[document.KEY]["answer"]["rows"]
    assert changed
    assert all(one in unescape(page.changes().text).replace("\u2060", "") for (one,) in changed)


@pytest.fixture
def review(lab, home, tmp_path, monkeypatch):
    """Import messages, sync, execute the notebook; gives the text of the page."""
    monkeypatch.setenv("AICO_LAB_HOME", str(home))

    def make(lines, **parameters):
        path = tmp_path / "in.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        if lines:
            lab.import_from("jsonl", path)
        lab.sync()
        execute_here(NOTEBOOK, tmp_path / "out.ipynb", **parameters)
        return shown(tmp_path / "out.ipynb")

    return make


@pytest.mark.slow
def test_the_page_of_one_person_names_nobody_else_and_quotes_only_if_asked(review):
    lines = talk("ada", "bob", days=40)
    text = review(lines, user="ada", period="2024", companion="Otto", timezone="Europe/Berlin")
    own = [line for line in lines if line["user_id"] == "ada"]
    theirs = sum(line["role"] == "assistant" for line in own)
    assert "Your 2024 with Otto" in text
    assert f"{len(own)} messages {len(own) - theirs} by you, {theirs} by Otto" in text
    assert "40 days in a row, your longest streak 8 January to 16 February 2024" in text
    assert "11:03 the latest you wrote" in text
    begin = datetime(2024, 1, 8, tzinfo=UTC).date()
    assert f"{len(own)} messages on 40 days" in text
    assert f"{(begin + timedelta(days=16)).day} January 2024 The 100th message between you" in text
    assert "Person 1 and the companion: 8 January to 16 February 2024" in text
    assert "about one person and the companion, and about nobody else" in text
    for word in ("bob", "Person 2", "ada", "wonderful"):
        assert word not in text
    assert "A kind moment" not in text
    assert "The page quotes no message." in text

    text = review([], user="ada", period="2024-02", content=True, names=True)
    assert "Your February 2024 with your companion" in text
    assert "ada and the companion" in text
    assert "Your first message of the month: " in text
    assert "You exchanged fewer messages than in January 2024" in text
    assert "bob" not in text


@pytest.mark.slow
def test_three_messages_make_a_short_page_and_none_a_sentence(review):
    text = review([], companion="Otto")
    assert "There are no messages of a person yet." in text
    text = review(talk("ada", days=1, a_day=3))
    assert "A small beginning: 3 messages on 1 day." in text
    assert "Your rhythm" not in text
    assert "What changed" not in text
    text = review([], period="2023")
    assert "You did not write to each other in 2023." in text
    assert "In numbers" not in text


def test_without_a_choice_it_is_the_last_year_of_the_person_who_wrote_most(lab, tmp_path):
    lines = talk("ada", days=1) + talk("bob", days=3) + talk(
        "bob", days=1, start=datetime(2023, 5, 1, tzinfo=UTC)
    )  # fmt: skip
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    lab.import_from("jsonl", path)
    lab.sync()
    made = Review(lab)
    assert (made.user, made.span.name) == ("Person 2", "2024")
    assert Review(lab, period="2023").user == "Person 2"
