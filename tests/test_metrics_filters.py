"""What part of the conversations counts: every way to say it, and every way to say it wrongly."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.filters import Filters
from aico_lab.metrics.lab_metrics import Metrics
from tests.talks import START, said, talk, world

LAST = datetime(2024, 11, 3, 12, 30, tzinfo=UTC)  # in New York clocks fell back that night
NEW_YORK = "America/New_York"


def ms(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp() * 1000)


def bounds(**filters) -> tuple[int | None, int | None]:
    return Filters(**filters).bounds(int(LAST.timestamp() * 1000))


def test_without_a_period_everything_counts():
    assert bounds() == (None, None)


@pytest.mark.parametrize(
    ("since", "zone", "expected"),
    [
        ("2024-05-01", "UTC", ms(2024, 5, 1)),
        (" 2024-05-01 ", "UTC", ms(2024, 5, 1)),
        ("2024-05-01", NEW_YORK, ms(2024, 5, 1, 4)),
        ("2024-01-01", NEW_YORK, ms(2024, 1, 1, 5)),
        (date(2024, 5, 1), "Asia/Kolkata", ms(2024, 4, 30, 18, 30)),
        ("2024-05-01T12:30", "UTC", ms(2024, 5, 1, 12, 30)),
        ("2024-05-01 12:30:15", NEW_YORK, ms(2024, 5, 1, 16, 30, 15)),
        ("2024-05-01T12:30+02:00", NEW_YORK, ms(2024, 5, 1, 10, 30)),
        ("2024-05-01T12:30Z", NEW_YORK, ms(2024, 5, 1, 12, 30)),
        (datetime.fromisoformat("2024-05-01T12:00"), NEW_YORK, ms(2024, 5, 1, 16)),
        (datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=9))), "UTC", ms(2024, 5, 1, 3)),
        # Days and weeks end with the day of the last message, where it was written.
        ("1d", "UTC", ms(2024, 11, 3)),
        ("30d", "UTC", ms(2024, 10, 5)),
        ("30 d", "UTC", ms(2024, 10, 5)),
        ("1w", "UTC", ms(2024, 10, 28)),
        ("4w", "UTC", ms(2024, 10, 7)),
        ("1d", NEW_YORK, ms(2024, 11, 3, 4)),
        ("2d", "Pacific/Auckland", ms(2024, 11, 2, 11)),  # there it is the 4th
        # Hours are back from the last message, whatever clocks did.
        ("12h", "UTC", ms(2024, 11, 3, 0, 30)),
        ("12h", NEW_YORK, ms(2024, 11, 3, 0, 30)),
        ("1h", "UTC", ms(2024, 11, 3, 11, 30)),
    ],
)
def test_since_is_the_first_moment_that_counts(since, zone, expected):
    assert bounds(since=since, timezone=zone) == (expected, None)


@pytest.mark.parametrize(
    ("until", "zone", "expected"),
    [
        ("2024-05-01", "UTC", ms(2024, 5, 2)),  # with all of the day
        (date(2024, 5, 1), NEW_YORK, ms(2024, 5, 2, 4)),
        ("2024-11-03", NEW_YORK, ms(2024, 11, 4, 5)),  # a day of 25 hours
        ("2024-03-10", NEW_YORK, ms(2024, 3, 11, 4)),  # a day of 23
        ("2024-05-01T12:30", "UTC", ms(2024, 5, 1, 12, 30)),  # and no later
        ("2024-05-01T12:30-04:00", "UTC", ms(2024, 5, 1, 16, 30)),
        (datetime.fromisoformat("2024-05-01"), "UTC", ms(2024, 5, 1)),
    ],
)
def test_until_is_a_whole_day_or_the_first_moment_that_does_not_count(until, zone, expected):
    assert bounds(until=until, timezone=zone) == (None, expected)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2024-05-02", "2024-05-01"),
        ("2024-05-01T12:00", "2024-05-01T12:00"),
        ("2024-05-01T12:00:01", "2024-05-01T12:00"),
        ("30d", "2024-01-01"),
        ("2024-05-02T00:00", "2024-05-01"),
    ],
)
def test_a_period_that_ends_before_it_begins_is_refused(since, until):
    with pytest.raises(InvalidValue, match=r"ends before it begins: since is .*, until is "):
        bounds(since=since, until=until)


def test_a_day_may_be_the_first_and_the_last():
    day = ms(2024, 5, 1), ms(2024, 5, 2)
    assert bounds(since="2024-05-01", until="2024-05-01") == day


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize(
    "given_",
    ["yesterday", "", "2024-13-01", "2024-02-30", "01.05.2024", "30", "d", "-3d", "3m", "1.5d",
     "2024-05-01T25:00", "2024-05-01T12:00 Europe/Berlin", 20240501, 1.5, b"2024-05-01"],
)  # fmt: skip
def test_what_is_no_time_is_refused_in_a_sentence(name, given_):
    with pytest.raises(InvalidValue, match=f"{name}=.* is not a time: give a day as '2024-05-01'"):
        bounds(**{name: given_})


def test_only_since_goes_back():
    with pytest.raises(InvalidValue, match="until='30d' is not a time") as refused:
        bounds(until="30d")
    assert "how far back" not in str(refused.value)
    with pytest.raises(InvalidValue, match="how far back, as '30d'"):
        bounds(since="30x")


@pytest.mark.parametrize("since", ["0d", "0w", "00h"])
def test_to_go_back_by_nothing_is_refused(since):
    with pytest.raises(InvalidValue, match="is a span of length 0: use at least 1"):
        bounds(since=since)


@pytest.mark.parametrize("since", ["999999d", "999999w"])
def test_the_calendar_has_a_beginning(since):
    with pytest.raises(InvalidValue, match="goes back before the year 1"):
        bounds(since=since)


@pytest.mark.parametrize("zone", ["UTC", NEW_YORK, "Pacific/Kiritimati"])
def test_the_calendar_has_an_end(zone):
    with pytest.raises(InvalidValue, match="the end of the calendar: leave it out"):
        bounds(until="9999-12-31", timezone=zone)


@pytest.mark.parametrize("zone", ["UTC", NEW_YORK, "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("since", ["0001-01-01", "9999-12-31", "0001-01-01T00:00"])
def test_the_ends_of_the_calendar_are_times(zone, since):
    assert isinstance(bounds(since=since, timezone=zone)[0], int)


@given(
    st.dates(),
    st.sampled_from(["%Y-%m-%d", "%Y%m%d", "%G-W%V-%u", "%GW%V%u"]),
    st.sampled_from(["", " "]),
)
def test_every_spelling_of_a_day_is_the_day(day, spelling, space):
    """The issue's case: until 20240305 was the moment at which that day begins."""
    year = f"{day.year if '%Y' in spelling else day.isocalendar().year:04d}"
    written = day.strftime(spelling.replace("%Y", year).replace("%G", year))
    text = f"{space}{written}{space}"
    assert bounds(since=text) == bounds(since=day)
    if day < date.max:
        assert bounds(until=text) == bounds(until=day)


@given(
    st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=9))])),
    st.sampled_from(["T", " "]),
)
def test_a_time_of_a_day_is_a_moment(moment, between):
    moment = moment.replace(microsecond=0)
    text = moment.isoformat(between)
    for name in ("since", "until"):
        assert bounds(**{name: text}) == bounds(**{name: moment})
        assert bounds(**{name: text.replace("-", "", 2).replace(":", "", 2)}) == bounds(
            **{name: text}
        )


def test_a_week_is_no_day():
    """Python reads it as the week's Monday, with which nobody means to end a period."""
    with pytest.raises(InvalidValue, match="until='2024-W10' is not a time"):
        bounds(until="2024-W10")


@pytest.mark.parametrize(
    ("since", "zone", "begins"),
    [
        ("30d", "UTC", "2024-10-05"),
        ("2d", "Pacific/Auckland", "2024-11-03"),
        ("12h", NEW_YORK, "2024-11-02 20:30"),
        ("2024-05-01", "UTC", None),
        (None, "UTC", None),
    ],
)
def test_a_period_that_goes_back_says_from_when(since, zone, begins):
    filters = Filters(since=since, timezone=zone)
    assert filters.begins(filters.bounds(int(LAST.timestamp() * 1000))[0]) == begins


@pytest.mark.slow
@given(st.text(max_size=12))
def test_any_text_is_a_time_or_refused(text):
    for name in ("since", "until"):
        try:
            found = bounds(**{name: text})
        except InvalidValue:
            continue
        assert any(isinstance(bound, int) for bound in found)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "Europe", "CEST?"])
def test_a_zone_that_is_none_is_refused(zone):
    with pytest.raises(InvalidValue, match="There is no time zone"):
        Filters(timezone=zone)


@pytest.mark.parametrize("role", ["User", "system", "", 1])
def test_a_role_is_a_side(role):
    with pytest.raises(InvalidValue, match="role must be 'user' or 'assistant', not "):
        Filters(role=role)


@pytest.mark.parametrize(
    ("smallest", "says"),
    [(0, "from 1 to"), (-3, "from 1 to"), (2.5, "a whole number"), ("5", "a whole number"),
     (True, "a whole number"), (None, "a whole number")],
)  # fmt: skip
def test_a_smallest_cell_is_a_whole_number_from_one_on(smallest, says):
    with pytest.raises(InvalidValue, match=says):
        Filters(min_cell=smallest)


@pytest.mark.parametrize("name", ["user", "channel"])
@pytest.mark.parametrize("names", [[], (), ["a", 1], 7, 1.5, b"u", True])
def test_people_and_channels_are_named(name, names):
    with pytest.raises(InvalidValue, match=f"{name} must be one id or a list of ids, not "):
        Filters(**{name: names})
    with world(talk(said(0))) as made, pytest.raises(InvalidValue, match=f"{name} must be one id"):
        Metrics(made, timezone="UTC").turns(**{name: names})


def test_names_are_text():
    """Bytes of a command line that are not UTF-8 are none."""
    with pytest.raises(InvalidValue, match="encode it in UTF-8"):
        Filters(channel=["c", "\udcff"])


def test_one_name_is_a_list_of_one():
    assert Filters(user="u").users == Filters(user=["u"]).users == ("u",)
    assert Filters(channel=("c", "d")).channels == ("c", "d")
    assert Filters().users == Filters().channels == ()
    assert hash(Filters(user=["u"])) == hash(Filters(user="u"))


def asked(**filters) -> list[str]:
    """Which messages count, by when they were written."""
    hours = {0: "22:00", 1: "23:00", 2: "00:00", 26: "00:00 later"}
    messages = [
        said(hour * 3600, "user" if hour % 2 else "assistant", user="u" if hour < 2 else "v",
             conversation="c" if hour < 26 else "d")
        for hour in hours
    ]  # fmt: skip
    with world(talk(*messages)) as made:
        rows = made.ask("week_heatmap", filters=filters).pl()
    return sorted(rows.filter(rows["n"] > 0).select("weekday", "hour", "n").rows())


@pytest.mark.slow
def test_filters_choose_messages():
    """22 and 23 o'clock of Saturday, midnight of Sunday and of Monday, in UTC."""
    assert START.strftime("%a %H") == "Sat 22"
    everything = [("Mon", 0, 1), ("Sat", 22, 1), ("Sat", 23, 1), ("Sun", 0, 1)]
    assert asked() == everything
    assert asked(since="2024-03-31") == [("Mon", 0, 1), ("Sun", 0, 1)]
    assert asked(until="2024-03-30") == [("Sat", 22, 1), ("Sat", 23, 1)]
    assert asked(until="2024-03-30T23:00") == [("Sat", 22, 1)]
    assert asked(since="2024-03-30T23:00", until="2024-03-31") == [("Sat", 23, 1), ("Sun", 0, 1)]
    assert asked(since="1d") == [("Mon", 0, 1)]
    assert asked(until="20240330") == asked(until="2024-W13-6") == asked(until="2024-03-30")
    assert asked(since="24h") == [("Mon", 0, 1), ("Sun", 0, 1)]
    assert asked(role="user") == [("Sat", 23, 1)]
    # The companion's message at midnight is to the person who wrote last.
    assert asked(user=["u"]) == [("Sat", 22, 1), ("Sat", 23, 1), ("Sun", 0, 1)]
    assert asked(user=["u", "v"], channel="d") == asked(user="v") == [("Mon", 0, 1)]
    assert asked(timezone="Europe/Berlin", since="2024-03-31") == [
        ("Mon", 2, 1), ("Sun", 0, 1), ("Sun", 1, 1),
    ]  # fmt: skip
    assert asked(since="2025-01-01") == []
