"""The cube of a page: its sums are those of the metrics, and no cell is about too few people."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import date, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aico_lab.errors import InvalidValue, UnknownName
from aico_lab.reports import charts as page
from aico_lab.reports.cube import cube
from aico_lab.reports.explorer import tiles_of
from aico_lab.reports.packing import packed
from tests.effort import examples
from tests.explorer_cells import MEASURES, NO_HOUR, WEEK, cells, content
from tests.messages import add, message
from tests.talks import MESSAGES as COLUMNS
from tests.talks import World, said, talk, talks, world

MONDAY = 3  # 1970-01-01 was a Thursday


def lab_of(made: World) -> SimpleNamespace:
    """As a lab has a reader of a snapshot."""
    return SimpleNamespace(storage=SimpleNamespace(reader=made), timezone="UTC")


def explored(made: World, **options) -> list[dict]:
    """The cells of the page, none if it has a sentence instead."""
    html = page.explorer(lab_of(made), **options).text
    return cells(html) if "application/json" in html else []


def total(found: list[dict], measure: str, **where) -> int:
    return sum(
        cell[measure] for cell in found if all(cell[name] == one for name, one in where.items())
    )


filters = st.fixed_dictionaries(
    {"timezone": st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"])},
    optional={
        "since": st.sampled_from(["2024-03-31", "2d", "30h"]),
        "until": st.sampled_from(["2024-04-01", "2024-03-31T12:00"]),
    },
)


@settings(max_examples=examples(12))
@given(talks(), filters, st.sampled_from([None, "user", "assistant"]))
def test_sums_are_those_of_the_metrics(messages, chosen, role):
    with world(messages) as made:
        sided = chosen | ({"role": role} if role else {})
        try:
            daily = made.ask("daily_activity", filters=sided).pl()
        except InvalidValue:  # the period ends before it begins
            with pytest.raises(InvalidValue):
                explored(made, **sided)
            return
        found = explored(made, **sided)
        by_day = Counter()
        for cell in found:
            by_day[date(1970, 1, 1) + timedelta(days=cell["day"])] += cell["messages"]
        assert {day: n for day, n in by_day.items() if n} == dict(
            daily.filter(pl.col("n") > 0).select("start", "n").iter_rows()
        )
        for slot in made.ask("week_heatmap", filters=sided).pl().iter_rows(named=True):
            of_slot = sum(
                cell["messages"]
                for cell in found
                if cell["hour"] == slot["hour"]
                and (date(1970, 1, 1) + timedelta(days=cell["day"])).strftime("%a")
                == slot["weekday"]
            )
            assert of_slot == slot["n"]
        overview = made.ask("overview", filters=sided).pl()
        assert total(found, "words") == (overview["words"].sum() or 0)
        for row in made.ask("questions", filters=sided).pl().iter_rows(named=True):
            assert total(found, "questions", side=row["role"]) == row["questions"]
            assert total(found, "messages", side=row["role"]) == row["n"]
        for row in made.ask("sentiment", filters=sided).pl().iter_rows(named=True):
            scored = row["n"]
            assert (
                total(found, "messages", side=row["role"])
                - total(found, "unscored", side=row["role"])
                == scored
            )
            if scored:
                mean = total(found, "sentiment", side=row["role"]) / 10_000 / scored
                assert mean == pytest.approx(row["mean"], abs=1e-4)
        if not role:
            sessions = made.ask("sessions", filters=chosen).pl()
            assert total(found, "sessions") == sessions["n"].sum()


def ladder(day: int, hour: int, channel: str, first: int) -> list[tuple]:
    """The cells in which a message may be, the most detailed first."""
    monday = max(day - (day + MONDAY) % 7, first)
    return [
        (day, hour, channel),
        (day, NO_HOUR, channel),
        (day, NO_HOUR, "Other channels"),
        (monday, WEEK, "Other channels"),
    ]


crowds = st.lists(
    st.builds(
        lambda second, user, channel, alone, role, sentiment: said(
            second, role, user=user, sentiment=sentiment,
            conversation=f"{channel}-{user}" if alone else channel,
        ) | {"channel_id": channel},
        st.sampled_from([0, 60, 3600, 3660, 7200, 7260, 86_400, 90_000, 500_000, 700_000]),
        st.sampled_from([None, *"abcdef"]),
        st.sampled_from(["x", "x", "y", "z"]),
        st.booleans(),
        st.sampled_from(["user", "user", "assistant"]),
        st.sampled_from([None, 0.5, -0.25]),
    ),
    max_size=60,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=examples(40))
@given(crowds, st.integers(2, 4), st.sampled_from([1, 3]))
def test_no_cell_is_about_fewer_people(messages, min_people, min_cell):
    with world(talk(*messages)) as made:
        found = explored(made, min_people=min_people, min_cell=min_cell, names=True)
        stored = made.connection().execute(
            "SELECT ts_ms // 86400000, ts_ms // 3600000 % 24, channel_id, role, user_id, "
            "sentiment_score IS NOT NULL FROM mart.messages"
        ).fetchall()  # fmt: skip
    keys = {(cell["day"], cell["hour"], cell["channel"], cell["side"]): cell for cell in found}
    assert len(keys) == len(found)
    assert {cell["person"] for cell in found} <= {"Other people"}
    first = min((row[0] for row in stored), default=0)
    people, rated, messages_of = defaultdict(set), defaultdict(set), Counter()
    writers = defaultdict(set)
    for _day, _hour, channel, _role, user, _scored in stored:
        writers[channel] |= {user} - {None}
    left_out = 0
    for day, hour, channel, role, user, scored in stored:
        shown = channel if len(writers[channel]) >= min_people else "Other channels"
        for key in ladder(day, hour, shown, first):
            if (*key, role) in keys:
                messages_of[*key, role] += 1
                if user is not None:
                    people[*key, role].add(user)
                    if scored:
                        rated[*key, role].add(user)
                break
        else:
            left_out += 1
    for key, cell in keys.items():
        assert cell["messages"] == messages_of[key]
        assert cell["messages"] >= min_cell
        assert len(people[key]) >= min_people
        if cell["messages"] > cell["unscored"] or cell["sentiment"]:
            assert len(rated[key]) >= min_people
    assert total(found, "messages") == len(stored) - left_out


def test_who_writes_later_in_a_session_does_not_hide_who_began_it():
    """A session belongs to the person of its first message by a user."""
    talked = said(3000, user="zoe"), said(3900, user="ada")
    with world(talk(*talked)) as made:
        found = explored(made, min_people=2)
        begun = [one for one in explored(made, names=True) if one["sessions"]]
    assert [(one["hour"], one["messages"], one["sessions"]) for one in found] == [(NO_HOUR, 2, 1)]
    assert [(one["person"], one["messages"], one["sessions"]) for one in begun] == [("zoe", 1, 1)]


def test_the_explorer_and_people_agree_on_who_began_sessions():
    """For five days Zoe writes first, and Ada a minute later in the same conversation."""
    talked = [
        said(day * 86_400 + second, role, user=user, conversation="c")
        for day in range(5)
        for second, role, user in (
            (0, "user", "zoe"),
            (60, "user", "ada"),
            (120, "assistant", None),
        )
    ]
    with world(talk(*talked)) as made:
        answer = made.ask("people", names=True).pl()
        assert dict(answer.select("person", "sessions").iter_rows()) == {"ada": 0, "zoe": 5}
        for chosen, begun in ({}, {"zoe": 5, "ada": 0}), ({"user": "zoe"}, {"zoe": 5}):
            found = explored(made, names=True, **chosen)
            assert {who: total(found, "sessions", person=who) for who in begun} == begun
        records = made.ask("extremes", filters={"user": "zoe"}).pl()
        longest = records.filter(record="longest session")
        assert longest["value"].to_list() == [2.0]


@pytest.mark.slow
@settings(max_examples=examples(20))
@given(crowds, st.integers(1, 40))
def test_fewer_cells_have_the_same_sums(messages, most):
    with world(talk(*messages)) as made:
        whole, reduced = cube(lab_of(made)), cube(lab_of(made), most_cells=most)
    sums = [one.cells.select(MEASURES).sum().row(0) for one in (whole, reduced)]
    assert sums[0] == sums[1]
    by_side = [
        one.cells.group_by("side").agg(pl.col("messages").sum()).sort("side")
        for one in (whole, reduced)
    ]
    assert by_side[0].equals(by_side[1])
    weeks = reduced.cells["hour"].eq(-2).all()
    assert reduced.cells.height <= most or weeks


@pytest.mark.slow
@settings(max_examples=examples(12))
@given(talks(), st.integers(1, 3))
def test_the_largest_have_cells_of_their_own(messages, shown):
    with world(messages) as made:
        whole = cube(lab_of(made), names=True)
        few = cube(lab_of(made), names=True, shown=shown)
    sizes = whole.cells.group_by("channel").agg(pl.col("messages").sum())
    ranked = [whole.channels[code] for code, _ in sorted(sizes.iter_rows(), key=lambda r: -r[1])]
    assert len(ranked) == len(set(ranked))
    assert few.own_channels == min(shown, len(ranked))
    assert ("Other channels" in few.channels) == (len(ranked) > shown)
    assert few.cells["messages"].sum() == whole.cells["messages"].sum()


def test_pseudonyms_unless_names_are_asked_for():
    with world(talk(said(0, user="Ada <b>", conversation="c'\"</script>"))) as made:
        hidden = page.explorer(lab_of(made)).text
        shown = page.explorer(lab_of(made), names=True).text
    assert "Ada" not in hidden
    assert content(hidden)["people"] == ["Person 1"]
    assert content(hidden)["channels"] == ["Channel 1"]
    assert content(shown)["people"] == ["Ada <b>"]
    assert content(shown)["channels"] == ["c'\"</script>"]
    assert shown.count("</script>") == 2  # the JSON's own end and that of the script


def test_people_who_tie_stand_in_the_order_of_their_pseudonyms():
    """As in the table above, not in that of their ids: Person 2 comes before Person 10."""
    spoken = [said(n, user=f"u{n}", conversation=f"c{n}") for n in (10, 2, 11, 1, *range(12, 20))]
    with world(talk(*spoken)) as made:
        people = made.ask("people").pl()["person"].to_list()
        assert cube(lab_of(made)).people == tuple(people)
        assert people == [f"Person {n}" for n in range(1, 13)]
        one = cube(lab_of(made), shown=3).people
    assert one == ("Person 1", "Person 2", "Person 3", "Other people")


def test_no_text_is_in_the_page():
    with world(talk(*(said(n, content=f"secretword{n}") for n in range(30)))) as made:
        assert "secretword" not in page.explorer(lab_of(made)).text


@pytest.mark.parametrize(
    ("filters", "sentence"),
    [
        ({}, "There are no messages yet"),
        ({"min_people": 5}, "There are no messages yet"),
    ],
)
def test_an_empty_home_has_one_sentence(lab, filters, sentence):
    lab.sync()
    html = page.explorer(lab, **filters).text
    assert sentence in html
    assert "<script" not in html


def test_what_leaves_nothing_has_one_sentence(lab):
    add(lab.primary, *map(message, range(10)))
    lab.sync()
    assert "no message matches" in page.explorer(lab, until="2001-01-01").text
    assert "fewer than 2 people" in page.explorer(lab, min_people=2).text
    with pytest.raises(UnknownName):
        page.explorer(lab, user="nobody")
    with pytest.raises(InvalidValue):
        page.explorer(lab, gap_minutes=0)


def test_implausible_times_are_left_out_and_counted(lab):
    days = ("1960-01-02", "2099-05-06", "2024-03-01", "2024-03-02")
    add(lab.primary, *(message(n, timestamp=f"{day}T10:00:00.000000Z")
                       for n, day in enumerate(days)))  # fmt: skip
    lab.sync()
    html = page.explorer(lab).text
    assert "2 messages from before 1990 or in the future" in html
    told = content(html)
    assert date(1970, 1, 1) + timedelta(days=told["first"]) == date(2024, 3, 1)
    assert total(cells(html), "messages") == 2
    asked = page.explorer(lab, since="1950-01-01", until="2100-01-01").text
    assert total(cells(asked), "messages") == 4
    assert content(asked)["last"] - content(asked)["first"] > 139 * 365


def shown_tiles(messages, **options):
    with world(talk(*messages)) as made:
        found = tiles_of(cube(lab_of(made), **options))
    return {tile.name: (tile.value, tile.note) for tile in found}


@pytest.mark.slow
def test_the_busiest_are_named_only_if_every_message_has_its_day_and_hour():
    """Four people write at midnight, and two or one at other times."""
    monday = 26 * 3600  # 2024-04-01
    crowd = [said(monday + n, user=f"p{n}") for n in range(4)]
    # The hours of two people are merged into their day.
    evening = [said(monday + 3600 * (20 + n % 2), user=f"p{n % 2}") for n in range(16)]
    assert shown_tiles(crowd + evening)["hour"][1] == "8 messages (like 1 other hour)"
    tiles = shown_tiles(crowd + evening, min_people=2)
    assert tiles["hour"] == ("–", "unknown: 16 messages without an hour")  # noqa: RUF001
    assert tiles["day"] == ("1 April 2024", "20 messages")
    assert tiles["days"] == ("1", "of 1 day")
    # The messages of one person on another day remain of the week, and are left out.
    alone = [said(monday + 86_400 + n, user="p1") for n in range(30)]
    assert shown_tiles(crowd + alone)["day"] == ("2 April 2024", "30 messages")
    tiles = shown_tiles(crowd + alone, min_people=2)
    assert tiles["day"] == ("–", "unknown: 30 messages left out")  # noqa: RUF001
    assert tiles["hour"] == tiles["day"]
    assert tiles["days"] == ("at least 1", "30 messages left out")
    # Two days of one person each are known as a week.
    weekly = [said(monday + day * 86_400 + n, user=f"p{day}") for day in (1, 2) for n in range(5)]
    tiles = shown_tiles(weekly, min_people=2)
    assert tiles["day"] == ("–", "unknown: 10 messages known by week only")  # noqa: RUF001
    assert tiles["days"] == tiles["day"]  # no number of days, as no day is known


def test_figures_of_the_whole_selection():
    words = ["a b c?", "d e"]
    talked = [said(3600 * n, content=words[n % 2], sentiment=0.5 - n % 2) for n in range(4)]
    with world(talk(*talked)) as made:
        shown = {tile.label: (tile.value, tile.note) for tile in tiles_of(cube(lab_of(made)))}
    assert shown == {
        "Messages": ("4", ""),
        "Days with messages": ("2", "of 2 days from the first to the last"),
        "People": ("1", ""),
        "Sessions begun": ("4", ""),
        "Busiest day": ("30 March 2024", "2 messages (like 1 other day)"),
        "Busiest hour (UTC)": ("00:00–01:00", "1 message (like 3 other hours)"),  # noqa: RUF001
        "Mean mood (−1 to 1)": ("0.00", "4 scored messages"),  # noqa: RUF001
        "Words per message": ("2.5", ""),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("people", "channels", "days"), [(50_000, 5_000, 900), (300, 40, 900)])
def test_a_large_home_makes_a_small_page(people, channels, days):
    n = 300_000
    random = np.random.default_rng(1)
    who, where = random.integers(0, people, n), random.integers(0, channels, n)
    seconds = np.sort(random.integers(0, days * 86_400, n))
    messages = pl.DataFrame(
        {
            "id": np.arange(1, n + 1),
            "message_id": np.arange(n).astype(str),
            "channel_id": where.astype(str),
            "conversation_id": where.astype(str),
            "user_id": who.astype(str),
            "role": np.where(random.random(n) < 0.5, "user", "assistant"),
            "content": random.choice(["hello there", "why?", "the cat and the dog"], n),
            "timestamp": np.datetime64("2022-01-01T00:00:00", "us") + seconds * 1_000_000,
            "sentiment_score": np.round(random.uniform(-1, 1, n), 4),
        }
    ).with_columns(pl.col("timestamp").dt.replace_time_zone("UTC"))
    rest = {name: pl.lit(None, kind) for name, kind in COLUMNS.items() if name not in messages}
    stored = messages.with_columns(**rest).cast(COLUMNS).select(*COLUMNS)
    with world(stored) as made:
        for options in ({}, {"min_people": 5}):
            found = cube(lab_of(made), **options)
            assert len(json.dumps(packed(found))) < 1_000_000
            assert found.cells["messages"].sum() + found.left_out == n
