"""The first screen: the period before, the figures of it, and the sentences about durations."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aico_lab.cli.demo import HEADLINES
from aico_lab.errors import UnknownName
from aico_lab.metrics.engine.claims import isolated
from aico_lab.metrics.engine.days import written_days, written_moment
from aico_lab.metrics.engine.filters import Filters
from aico_lab.reports.first_screen import Tile, tiles
from aico_lab.reports.page import NotAsked, Page
from aico_lab.reports.period_before import Times, period_before

if TYPE_CHECKING:
    from aico_lab.lab import Lab

ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "Africa/Cairo")
DASH = "\N{EN DASH}"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


RECENT = ms(datetime(2024, 6, 10, 15, tzinfo=UTC))
LONG_AGO = Times(first_ms=ms(datetime(2000, 1, 1, tzinfo=UTC)), recent_ms=RECENT, synced_ms=None)


@given(
    first=st.dates(date(2010, 1, 1), date(2024, 6, 1)),
    days=st.integers(1, 400),
    zone=st.sampled_from(ZONES),
)
def test_the_period_before_has_as_many_days_and_ends_where_the_period_begins(first, days, zone):
    """Also across changes of the clocks, where days have 23 or 25 hours."""
    last = first + timedelta(days=days - 1)
    filters = Filters(since=first, until=last, timezone=zone)
    since, until = period_before(filters, LONG_AGO)
    now = datetime(2024, 6, 10, 15, tzinfo=UTC).astimezone(ZoneInfo(zone))
    unfinished = last >= now.date()
    last = min(last, now.date())
    ends = datetime.fromisoformat(until)
    assert ("T" in until) is unfinished
    assert ends.date() == first - timedelta(days=1)
    assert ends.date() - date.fromisoformat(since) == last - first
    if unfinished:  # up to the time of day of the last message, which is included
        assert ends.replace(tzinfo=None).time() == time(now.hour, now.minute, 0, 1000)


@given(hours=st.integers(1, 5000), zone=st.sampled_from(ZONES))
def test_a_period_of_hours_has_the_same_hours_before_it(hours, zone):
    filters = Filters(since=f"{hours}h", timezone=zone)
    since, until = period_before(filters, LONG_AGO)
    if "T" not in since:  # it begins at midnight, so days are compared
        return
    begins, ends = filters.bounds(RECENT)[0], RECENT + 1
    assert ms(datetime.fromisoformat(until)) == begins
    assert begins - ms(datetime.fromisoformat(since)) == pytest.approx(ends - begins, abs=1)


@pytest.mark.parametrize(
    ("filters", "first"),
    [
        ({}, datetime(2000, 1, 1, tzinfo=UTC)),  # everything
        ({"until": "2024-05-01"}, datetime(2000, 1, 1, tzinfo=UTC)),  # from the beginning
        ({"since": "30d"}, datetime(2024, 5, 12, tzinfo=UTC)),  # begins with the period
        ({"since": "0001-01-02"}, datetime(2000, 1, 1, tzinfo=UTC)),  # before the calendar
        ({"since": "2030-01-01"}, datetime(2000, 1, 1, tzinfo=UTC)),  # after the last message
        ({"since": "30d"}, None),  # no messages
    ],
)
def test_without_a_whole_period_before_there_is_none(filters, first):
    times = Times(first_ms=first and ms(first), recent_ms=first and RECENT, synced_ms=None)
    why = period_before(Filters(**filters), times)
    assert why == (
        "Nothing to compare with: no period of the same length before this one has messages."
    )


@pytest.mark.parametrize(
    ("since", "first"),
    [
        ("30d", datetime(2024, 5, 1, tzinfo=UTC)),  # some days are not known
        ("1d", datetime(2024, 6, 9, 17, tzinfo=UTC)),  # of yesterday, only later hours are known
        ("12h", datetime(2024, 6, 9, 17, tzinfo=UTC)),
    ],
)
def test_a_period_before_in_which_the_data_begin_is_called_so(since, first):
    times = Times(first_ms=ms(first), recent_ms=RECENT, synced_ms=None)
    assert period_before(Filters(since=since), times) == (
        f"Nothing to compare with: the first message of all, of "
        f"{first.day} {first:%B %Y}, lies within the period before."
    )


@pytest.mark.parametrize(
    ("filters", "of"),
    [
        ({"user": "a"}, "of the chosen people"),
        ({"user": "a", "channel": "c"}, "of the chosen people in the chosen channels"),
        ({"role": "assistant"}, "by the companion"),
    ],
)
def test_a_first_message_before_the_selection_is_not_called_one_of_it(filters, of):
    times = Times(first_ms=ms(datetime(2024, 5, 1, tzinfo=UTC)), recent_ms=RECENT, synced_ms=None)
    assert period_before(Filters(since="30d", **filters), times) == (
        f"Nothing to compare with: the first message {of}, of 1 May 2024, lies within the period "
        "before."
    )


def test_days_are_written_as_people_write_them():
    assert written_days(date(2024, 4, 5), date(2024, 4, 5)) == "5 April 2024"
    assert written_days(date(2024, 4, 5), date(2024, 4, 9)) == "5 to 9 April 2024"
    assert written_days(date(2024, 4, 5), date(2024, 5, 9)) == "5 April to 9 May 2024"
    assert written_days(date(2023, 4, 5), date(2024, 5, 9)) == "5 April 2023 to 9 May 2024"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("30d", "30d"),
        ("2024-04-05", "5 April 2024"),
        (date(2024, 4, 5), "5 April 2024"),
        (" 2024-04-05T06:30 ", "5 April 2024, 06:30"),
        ("2024-04-05T06:30:00+00:00", "5 April 2024, 08:30"),
        (datetime(2024, 4, 5, 21, 59, 59, 999_000, tzinfo=UTC), "6 April 2024, 00:00"),
    ],
)
def test_bounds_are_written_as_local_time_in_words(given, text):
    assert written_moment(given, "Europe/Berlin") == text


@pytest.fixture(scope="module")
def made(tmp_path_factory, homes):
    """A home with two messages a day in April, and three in May, by people in two channels."""
    folder = tmp_path_factory.mktemp("first_screen")
    lines = [
        {
            "content": "a wonderful day" if day % 2 else "is it raining?",
            "timestamp": f"{start + timedelta(days=day, seconds=30 * number):%Y-%m-%dT%H:%M:%SZ}",
            "role": role,
            "user_id": ("ada", "bob")[day % 2],
            "channel_id": ("garden", "kitchen")[day % 2],
            "conversation_id": ("garden", "kitchen")[day % 2],
        }
        for start, roles in (
            (datetime(2024, 4, 1, 9, tzinfo=UTC), ("user", "assistant")),
            (datetime(2024, 5, 1, 9, tzinfo=UTC), ("user", "assistant", "user")),
        )
        for day in range(30)
        for number, role in enumerate(roles)
    ]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with homes.open(folder / "home", protection="none") as lab:
        lab.import_from("jsonl", folder / "in.jsonl")
        lab.sync()
        yield lab


def lines_of(fragment) -> dict[str, list[str]]:
    """The lines of each tile by its label."""
    found = {}
    for tile in re.findall(r"<div><dt>(.*?)</dt>(.*?)</div>", fragment.text):
        lines = re.findall(r"<dd[^>]*>(.*?)</dd>", tile[1])
        found[tile[0]] = [line.replace("\u00a0", " ").replace("<wbr>", "") for line in lines]
    return found


def test_a_line_of_a_tile_is_broken_inside_a_zone_and_not_before_a_unit():
    tile = Tile(
        "busiest hour",
        "22:00",
        "of America/New_York, 3 messages",
        number=860,
        is_count=True,
        key="n",
    )
    html = tiles([tile], [Tile("then", "790", number=790, key="n")]).text
    assert "of America/<wbr>New_York, 3 messages" in html
    assert "before: 790 (+9\u00a0%)" in html
    assert "anywhere" not in html.split(".aico-lab-tiles", 1)[1]


def test_each_figure_is_compared_with_the_period_before(made):
    page = Page(made, "R", since="2024-05-01", until="2024-05-30")
    shown = lines_of(page.tiles())
    assert shown["messages"] == ["90", "33 % by the companion", "before: 60 (+50 %)"]
    assert shown["people who wrote"] == ["2", "before: 2 (+0 %)"]
    assert shown["days with messages"] == ["30", "before: 30 (+0 %)"]
    assert shown["median time until the companion replies"] == [
        "30 s", "of 30 replies", "before: 30 s",
    ]  # fmt: skip
    assert shown["median time until people reply"][-1].startswith("before: ")
    assert len(shown) == 11
    assert all("before: " in lines[-1] for lines in shown.values())
    assert (
        "Before: as many days, the last day only up to this time, from 1 April 2024 to "
        "30 April 2024, 09:01." in page.tiles().text
    )


def test_without_a_period_before_one_sentence_says_so(made):
    text = Page(made, "R").tiles().text
    assert "before: " not in text
    assert text.count("Nothing to compare with") == 1


def test_a_side_and_a_channel_are_said_and_questions_about_both_sides_are_named(made):
    page = Page(made, "R", role="user", channel="garden")
    header = page.header()
    assert "One person and the companion in Channel 1" in header.title
    assert "messages by people" in header.text
    assert "Last message of all" in header.text  # which may be that of somebody else
    assert "Last message of all" not in Page(made, "R", since="30d").header().text
    assert "Last message" not in Page(made, "R", user="bob").header().text  # of somebody else
    assert set(lines_of(page.tiles())) & {"median time until the companion replies"} == set()
    asked = page.ask("extremes")
    assert isinstance(asked, NotAsked)
    page.section("Records", asked)
    assert asked.question in page.left_out().text


def test_names_are_text_wherever_they_stand(made):
    header = Page(made, "<b>R</b>", user="ada", names=True).header()
    assert "<b>" not in header.text
    assert header.title.startswith("<b>R</b> · ada")  # the page escapes its title


@pytest.mark.slow
def test_a_count_of_one_is_compared_too(made):
    """In May one person wrote in the garden on 15 days, on the 31st nobody did."""
    one_day = lines_of(Page(made, "R", since="2024-05-02", until="2024-05-02").tiles())
    assert one_day["person who wrote"] == ["1", "before: 1 (+0 %)"]
    two_days = lines_of(Page(made, "R", since="2024-05-03", until="2024-05-04").tiles())
    assert two_days["people who wrote"] == ["2", "before: 2 (+0 %)"]
    few = Page(made, "R", since="2024-05-02", until="2024-05-02", user="bob")
    shown = lines_of(few.tiles())  # Bob wrote on the 2nd, but not on the 1st
    assert shown["messages"][-1] == "before: 0"
    assert shown["person who wrote"] == ["1", "before: 0"]


@pytest.mark.slow
def test_the_period_before_is_limited_by_the_selection(made):
    """Bob's first message is of 2 April, and the home's of 1 April."""
    dates = {"since": "2024-04-03", "until": "2024-04-04"}
    assert "before: " in Page(made, "R", **dates).tiles().text
    assert "before: " not in Page(made, "R", user="bob", **dates).tiles().text


@pytest.mark.slow
def test_a_period_of_hours_is_told_in_local_minutes(made):
    page = Page(made, "R", since="72h", timezone="Europe/Berlin")
    found = re.search(r"Before: as many hours, from (.*?) to (.*?)\.", page.tiles().text)
    assert found.groups() == ("24 May 2024, 11:01", "27 May 2024, 11:01")


@pytest.mark.slow
def test_figures_leave_out_wrong_times_as_calendars_do(homes, tmp_path):
    """Two messages of 2024, one of 1960 and one of 2099."""
    lines = [
        {"content": "hello", "role": "user", "user_id": "ada", "timestamp": f"{day}T12:00:00Z"}
        for day in ("1960-01-01", "2024-05-01", "2024-05-02", "2099-01-01")
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with homes.open(tmp_path / "home", protection="none") as lab:
        lab.import_from("jsonl", tmp_path / "in.jsonl")
        lab.sync()
        fragment = Page(lab, "R").tiles()
        header = Page(lab, "R").header()
        wide = Page(lab, "R", since="1950-01-01", until="2100-01-01").tiles()
        all_times = Page(lab, "R", since="1950-01-01", until="2100-01-01").header()
    shown = lines_of(fragment)
    assert (shown["messages"][0], shown["days with messages"][0]) == ("2", "2")
    assert "Without 2 messages from before 1990 or in the future." in fragment.text
    whose = "One person: 1 to 2 May 2024, and 2 messages from before 1990 or in the future"
    assert whose in header.text
    assert whose in header.title
    assert "One person: 1 January 1960 to 1 January 2099<" in all_times.text
    assert lines_of(wide)["messages"][0] == "4"
    assert "Without" not in wide.text


def test_a_chosen_person_is_called_by_pseudonym_unless_names_are_shown(made):
    """In the header, the title and the captions; and chosen by either."""
    for user, channel in (("ada", "garden"), ("Person 1", "channel 1")):
        page = Page(made, "R", user=user, channel=channel)
        header, caption = page.header(), page.ask("sentiment").caption
        assert page.ask("overview").pl()["n"][0] == 75
        for said in (header.text, header.title, caption, page.explorer().text):
            assert "ada" not in said.replace("Loading", "")
            assert "garden" not in said
        assert "Person 1" in caption
        assert "Channel 1" in caption
    named = Page(made, "R", user="Person 1", channel="garden", names=True)
    assert "ada and the companion in garden" in named.header().title
    assert "ada, garden" in named.ask("sentiment").caption  # a metric without names of its own
    assert named.ask("people").pl()["person"][0] == "ada"
    assert '"ada"' in named.explorer().text
    assert '"ada"' in Page(made, "R").explorer(names=True).text


@pytest.mark.slow
def test_an_id_that_looks_like_a_pseudonym_is_that_id(homes, tmp_path):
    lines = [
        {"content": "hi", "timestamp": f"2024-05-0{day}T09:00:00Z", "role": "user", "user_id": one}
        for day, one in enumerate(("ada", "Person 1", "Person 1"), 1)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with homes.open(tmp_path / "home", protection="none") as lab:
        lab.import_from("jsonl", tmp_path / "in.jsonl")
        lab.sync()
        assert lab.metrics.overview(user="Person 1").pl()["n"][0] == 2
        assert lab.metrics.overview(user=["Person 1", "person 2"]).pl()["n"][0] == 2
        assert "Person 2" in lab.metrics.overview(user="Person 1").caption
        with pytest.raises(UnknownName):
            lab.metrics.overview(user="Person 3")


def test_names_from_right_to_left_are_isolated_from_the_numbers_around_them():
    assert isolated("most by שרה כהן: 65 of 353") == "most by \u2068שרה כהן\u2069: 65 of 353"
    assert isolated("ليلى 3, דנה 4") == "\u2068ليلى\u2069 3, \u2068דנה\u2069 4"
    assert isolated("most by \u202eevil: 65") == "most by evil: 65"
    assert isolated("most by ada: 65 - 3") == "most by ada: 65 - 3"


@pytest.fixture
def opened(homes, tmp_path):
    """Return a function that makes a home of messages, and opens it."""
    with ExitStack() as labs:

        def make(lines: list[dict], name: str = "home") -> Lab:
            file = tmp_path / f"{name}.jsonl"
            file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
            lab = labs.enter_context(homes.open(tmp_path / name, protection="none"))
            lab.import_from("jsonl", file)
            lab.sync()
            return lab

        yield make


def hourly(hours: int, **others: object) -> list[dict]:
    """A message of each of three people in turn at every full hour, from 1 March on."""
    start = datetime(2024, 3, 1, tzinfo=UTC)
    return [
        {
            "content": "hello", "role": "user", "user_id": f"u{hour % 3}",
            "conversation_id": f"c{hour % 3}", "sentiment_score": -0.001,
            "timestamp": f"{start + timedelta(hours=hour):%Y-%m-%dT%H:%M:%SZ}", **others,
        }
        for hour in range(hours)
    ]  # fmt: skip


def test_at_a_constant_rate_an_unfinished_day_is_no_decline(opened):
    """The last message is of 05:00 on the tenth day."""
    lab = opened(hourly(9 * 24 + 6))
    for since, messages in (("1d", 6), ("4d", 78), ("2024-03-10", 6)):
        shown = lines_of(Page(lab, "R", since=since).tiles())
        assert shown["messages"] == [
            f"{messages}", "0 % by the companion", f"before: {messages} (+0 %)",
        ]  # fmt: skip
    berlin = Page(lab, "R", since="1d", timezone="Europe/Berlin").tiles()
    assert lines_of(berlin)["messages"][-1] == "before: 7 (+0 %)"
    assert "from 9 March 2024 to 9 March 2024, 06:00." in berlin.text


def test_what_is_withheld_is_no_0(opened):
    """On the first day two people write, on the second four."""
    lines = [
        {
            "content": "hi", "role": "user", "user_id": f"u{n}",
            "timestamp": f"2024-03-0{day}T0{n}:00Z",
        }
        for day, people in ((1, 2), (2, 2), (3, 4), (4, 4))
        for n in range(people)
    ]  # fmt: skip
    lab = opened(lines)
    days = {"since": "2024-03-03", "until": "2024-03-04"}
    for limits, few in (
        ({"min_people": 3}, "3 people"),
        ({"min_cell": 5}, "5 observations"),
        ({"min_people": 3, "min_cell": 5}, "3 people or 5 observations"),
    ):
        fragment = Page(lab, "R", **days, **limits).tiles()
        shown = lines_of(fragment)
        assert shown["messages"][::2] == ["8", f"before: {DASH}"]
        assert shown["people who wrote"] == ["4", f"before: {DASH}"]
        assert f"{DASH} also stands for what is of fewer than {few}." in fragment.text
    plain = Page(lab, "R", **days).tiles()
    assert lines_of(plain)["messages"][-1] == "before: 4 (+100 %)"
    assert "also stands" not in plain.text


def test_a_median_of_few_replies_is_left_out(opened):
    """As in the tables of people and channels."""
    start = datetime(2024, 3, 1, tzinfo=UTC)
    for replies, value, more in (
        (1, DASH, "of only 1 reply"),
        (4, DASH, "of only 4 replies"),
        (5, "30 s", "of 5 replies"),
    ):
        lines = [
            {
                "content": "hi", "role": ("user", "assistant")[number % 2], "user_id": "u",
                "timestamp": str(start + timedelta(days=number // 2, seconds=number % 2 * 30)),
            }
            for number in range(2 * replies)
        ]  # fmt: skip
        shown = lines_of(Page(opened(lines, f"home{replies}"), "R").tiles())
        assert shown["median time until the companion replies"] == [value, more]
        if replies == 1:
            assert shown["median time until people reply"] == [DASH, "no replies"]
    alone = lines_of(Page(opened(hourly(3), "alone"), "R").tiles())
    for side in ("people reply", "the companion replies"):
        assert alone[f"median time until {side}"] == [DASH, "no replies"]


def test_the_demo_counts_people_as_its_page_does(opened):
    """A companion's message may name somebody who never writes."""
    lines = hourly(5) + hourly(1, role="assistant", user_id="u9", conversation_id="c9")
    lab = opened(lines)
    relation = lab.sql(HEADLINES)
    told = dict(zip(relation.columns, relation.fetchone(), strict=True))
    assert told["people"] == 3
    assert lines_of(Page(lab, "R").tiles())["people who wrote"][0] == "3"


def test_hours_are_not_compared_by_their_days(opened):
    """Twelve hours until 05:00 touch two days, the twelve hours before them one."""
    lab = opened(hourly(9 * 24 + 6))
    shown = lines_of(Page(lab, "R", since="12h").tiles())
    assert shown["messages"][-1].startswith("before: 1")
    assert shown["days with messages"] == ["2"]
    assert lines_of(Page(lab, "R", since="2d").tiles())["days with messages"][-1] == (
        "before: 2 (+0 %)"
    )


def test_a_header_without_messages_speaks_of_none(opened):
    lab = opened(hourly(2))
    assert "these are all messages" in Page(lab, "R").header().text
    few = Page(lab, "R", min_people=5).header().text
    assert "nothing about fewer than 5 people is shown" in few


def test_small_figures_of_the_tiles(opened):
    """A mean that rounds to 0 has no sign, ties of the period before are told, and sides are."""
    lab = opened(hourly(9 * 24))
    shown = lines_of(Page(lab, "R", since="2024-03-08", until="2024-03-09").tiles())
    assert shown["mean sentiment"][0] == "0.00"
    assert shown["busiest day"] == [
        "8 March 2024", "Friday, 24 messages (like 1 other day)",
        "before: 6 March 2024 (like 1 other day)",
    ]  # fmt: skip
    by_companion = opened(hourly(20, role="assistant") + hourly(1), "companion")
    shown = lines_of(Page(by_companion, "R", role="assistant").tiles())
    assert "messages" in shown
    assert not [label for label in shown if "who wrote" in label]
