"""Trends and change points: what is found where there is something, and where there is nothing."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from itertools import groupby

import numpy as np
import pytest
import ruptures
from scipy import stats

from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine import series
from aico_lab.metrics.engine.asking import NO_MESSAGES
from aico_lab.metrics.time.change_points import _cut, _segments
from aico_lab.metrics.time.trend import _theil_sen
from tests.costs import takes_about
from tests.talks import START, said, talk, world

DAY = timedelta(days=1)
MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
PENALTY = 11.5


def at(moment: datetime, **others) -> dict:
    return said((moment - START).total_seconds(), **others)


def weekly(counts: list[int], **others) -> list[dict]:
    """So many messages in each whole week, on its Tuesday, and one in the weeks around them."""
    days = [MONDAY - DAY, *(MONDAY + (7 * week + 1) * DAY for week in range(len(counts)))]
    days.append(MONDAY + 7 * len(counts) * DAY)
    return [
        at(day + timedelta(hours=12, seconds=number), **others)
        for day, count in zip(days, [1, *counts, 1], strict=True)
        for number in range(count)
    ]


def ar1(rho: float, n: int, rng: np.random.Generator, size: int, *, skew: bool = False):
    """Series of variance 1, whose neighbours correlate by `rho`."""
    noise = rng.exponential(size=(size, n + 50)) - 1 if skew else rng.normal(size=(size, n + 50))
    made = np.zeros_like(noise)
    for place in range(1, n + 50):
        made[:, place] = rho * made[:, place - 1] + noise[:, place]
    return made[:, 50:] * np.sqrt(1 - rho**2)


def inar(rho: float, n: int, rng: np.random.Generator, size: int, mean: float):
    """Poisson counts whose neighbours correlate by `rho`: so many of the one before stay."""
    now, made = rng.poisson(mean, size), []
    for _ in range(n + 50):
        now = rng.binomial(now, rho) + rng.poisson(mean * (1 - rho), size)
        made.append(now)
    return np.array(made[50:], dtype=float).T


def has_trend(values, *, whole_numbers: bool) -> bool:
    _, low, high = _theil_sen(np.arange(len(values), dtype=float), values,
                              whole_numbers=whole_numbers)  # fmt: skip
    return low > 0 or high < 0


def has_changes(values, *, whole_numbers: bool) -> bool:
    signal = np.log1p(values) if whole_numbers else values
    return len(_segments(_cut(signal), 3, PENALTY)) > 1


CELLS = [
    *((n, rho, kind) for n in (12, 52, 180) for rho in (0, 0.6) for kind in ("normal", "counts")),
    (52, 0.3, "normal"),
    (24, 0.6, "skew"),
    (104, 0.6, "skew"),
]


def simulated(n: int, rho: float, kind: str, size: int):
    rng = np.random.default_rng([n, round(10 * rho), len(kind)])
    if kind == "counts":
        return inar(rho, n, rng, size, 8)
    return ar1(rho, n, rng, size, skew=kind == "skew")


@pytest.mark.slow
@pytest.mark.parametrize(("n", "rho", "kind"), CELLS)
def test_where_there_is_no_direction_one_is_found_in_3_to_8_percent(n, rho, kind):
    """Of 400 series a share of 5 % is known to 1.1 points: 2 of these are allowed."""
    made = simulated(n, rho, kind, 400)
    found = np.mean([has_trend(values, whole_numbers=kind == "counts") for values in made])
    assert 0.01 <= found <= 0.105


@pytest.mark.slow
@pytest.mark.parametrize(("n", "rho", "kind"), CELLS)
def test_where_there_is_no_change_one_is_found_in_few(n, rho, kind):
    """2 to 9 % by long simulations, about 11 % where noise is skewed; 250 are exact to 2 points."""
    made = simulated(n, rho, kind, 250)
    found = np.mean([has_changes(values, whole_numbers=kind == "counts") for values in made])
    assert found <= (0.15 if kind == "skew" else 0.125)


@pytest.mark.slow
def test_true_directions_and_changes_are_found():
    """A rise, or a step, of 3 standard deviations of the noise in a year of weeks."""
    rng = np.random.default_rng(4)
    for rho, least in ((0, 0.95), (0.3, 0.9), (0.6, 0.55)):
        noise = ar1(rho, 52, rng, 200)
        rises = noise + np.linspace(0, 3, 52)
        steps = noise + np.repeat([0, 3], 26)
        assert np.mean([has_trend(values, whole_numbers=False) for values in rises]) > least
        assert np.mean([has_changes(values, whole_numbers=False) for values in steps]) > least


def test_the_slope_is_scipys():
    rng = np.random.default_rng(1)
    values, places = rng.normal(size=40), np.sort(rng.choice(90, 40, replace=False)) * 1.0
    slope, low, high = _theil_sen(places, values, whole_numbers=False)
    expected = stats.theilslopes(values, places)
    assert slope == pytest.approx(expected.slope)
    assert low < slope < high


@pytest.mark.slow
def test_the_interval_of_independent_values_is_about_scipys():
    rng = np.random.default_rng(2)
    widths = []
    for values in rng.normal(size=(100, 100)):
        _, low, high = _theil_sen(np.arange(100.0), values, whole_numbers=False)
        expected = stats.theilslopes(values)
        widths.append((high - low) / (expected.high_slope - expected.low_slope))
    assert np.mean(widths) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_an_autocorrelated_series_has_a_wider_interval():
    rng = np.random.default_rng(3)
    widths = []
    for values in ar1(0.6, 100, rng, 100):
        _, low, high = _theil_sen(np.arange(100.0), values, whole_numbers=False)
        expected = stats.theilslopes(values)
        widths.append((high - low) / (expected.high_slope - expected.low_slope))
    # The variance of a mean grows by (1 + 0.6) / (1 - 0.6) = 4.
    assert np.median(widths) == pytest.approx(2, abs=0.25)


def test_small_counts_are_spread_evenly_and_a_rise_of_them_is_found():
    """Every interval of scipy ends at 0: most pairs of counts are equal."""
    values = np.repeat([0.0, 1.0], 30) + np.tile([0.0, 0.0, 1.0], 20)
    assert stats.theilslopes(values).low_slope == 0
    assert has_trend(values, whole_numbers=True)
    assert not has_trend(np.tile([0.0, 0.0, 1.0], 20), whole_numbers=True)


def exhaustive(signal, shortest: int, penalty: float) -> float:
    """The best fit of all autocorrelations and segmentations, each number of segments by itself."""
    signal = (signal - signal.mean()) / signal.std()
    n = len(signal) - 1
    best = np.inf
    for rho in np.arange(-9, 10) / 10:
        z = signal[1:] - rho * signal[:-1]
        search = ruptures.Dynp(model="l2", min_size=shortest, jump=1).fit(z)
        for changes in range(4):
            ends = search.predict(changes) if changes else [n]
            squares = sum(((part - part.mean()) ** 2).sum() for part in np.split(z, ends[:-1]))
            best = min(best, n * np.log(squares) + penalty * (changes + 1))
    return best


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 2, 4])
def test_the_fast_search_finds_what_an_exhaustive_one_does(step):
    rng = np.random.default_rng(2)
    for signal in ar1(0.3, 24, rng, 6):
        signal[8:] += step
        ends = _segments(signal, 3, PENALTY)
        scaled = (signal - signal.mean()) / signal.std()
        fits = []
        for rho in np.arange(-9, 10) / 10:
            z = scaled[1:] - rho * scaled[:-1]
            parts = np.split(z, [end - 1 for end in ends[:-1]])
            squares = sum(((part - part.mean()) ** 2).sum() for part in parts)
            fits.append(23 * np.log(squares) + PENALTY * len(ends))
        assert min(fits) == pytest.approx(exhaustive(signal, 3, PENALTY), abs=0.5)


def test_of_independent_values_the_segments_are_those_of_pelt():
    rng = np.random.default_rng(2)
    signal = rng.normal(size=120) + np.repeat([0, 3, -1], 40)
    noise = np.mean(np.diff(signal) ** 2) / 2
    slow = ruptures.Pelt(model="l2", min_size=7, jump=1).fit(signal)
    expected = slow.predict(pen=PENALTY * noise)
    assert _segments(_cut(signal), 7, PENALTY) == expected == [40, 80, 120]


def test_a_change_of_a_half_is_found_in_a_year_of_weeks():
    rng = np.random.default_rng(5)
    rates = np.repeat([20, 30], 26)
    found = [_segments(_cut(np.log1p(rng.poisson(rates))), 3, PENALTY) for _ in range(100)]
    assert np.mean([len(ends) == 2 and abs(ends[0] - 26) <= 4 for ends in found]) > 0.8


def test_three_weeks_of_silence_are_found():
    rng = np.random.default_rng(6)
    counts = rng.poisson(20, 52)
    counts[30:33] = 0
    assert _segments(_cut(np.log1p(counts)), 3, PENALTY) == [30, 33, 52]


@pytest.mark.slow
def test_long_series_take_little_time():
    rng = np.random.default_rng(7)
    values = ar1(0.5, 1000, rng, 1)[0]
    with takes_about(0.3):
        has_trend(values, whole_numbers=False)
        has_changes(values, whole_numbers=False)


def test_the_moving_average_does_not_cross_a_gap():
    """Weeks without a scored message: the mean is of five weeks in a row, and its line breaks."""
    week = 7 * 86_400
    spoken = [
        said(number * week + hour * 3600, sentiment=None if 8 <= number < 12 else number / 100)
        for number in range(22)
        for hour in (1, 20)
    ]
    with world(talk(*spoken)) as made:
        answer = made.ask("trend", measure="sentiment")
        rows = answer.pl()
        values, smooth = rows["value"].to_list(), rows["smooth"].to_list()
        assert values.count(None) == 4
        for at, complete in enumerate(rows["complete"]):
            near = [at + step for step in range(-2, 3)]
            known = complete and near[0] >= 0 and near[-1] < len(values) and all(
                rows["complete"][one] and values[one] is not None for one in near
            )  # fmt: skip
            expected = sum(values[one] for one in near) / 5 if known else None
            assert smooth[at] == pytest.approx(expected)
        assert sum(value is not None for value in smooth) > 4
        drawn = answer.plot().to_dict()
    points = [row for rows in drawn["datasets"].values() for row in rows if "line" in row]
    levels = [row["level"] for row in points if row["line"] == "mean of 5 weeks"]
    first, last = (next(at for at, one in order if one is not None) for order in (
        enumerate(levels), ((len(levels) - 1 - at, one) for at, one in enumerate(levels[::-1]))
    ))  # fmt: skip
    assert None in levels[first:last]  # where charts break the line


@pytest.mark.slow
def test_weeks_that_grow_by_two_messages():
    """Whole weeks of 10, 12, ... 32; one message in the week before them, and one after."""
    with world(talk(*weekly(list(range(10, 34, 2))))) as made:
        answer = made.ask("trend")
    rows = answer.pl()
    assert rows["n"].to_list() == [1, *range(10, 34, 2), 1]
    assert rows["complete"].to_list() == [False, *[True] * 12, False]
    assert rows["smooth"].to_list()[3:6] == [14.0, 16.0, 18.0]
    assert rows["slope"][0] == pytest.approx(2, abs=0.1)
    assert rows["slope_low"][0] <= rows["slope"][0] <= rows["slope_high"][0]
    assert answer.finding.startswith("Messages go up in 12 weeks: +2")
    assert " a week (95 % interval +1." in answer.finding
    assert answer.finding.endswith(" (uncertain: 12 weeks)")


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ([], NO_MESSAGES),
        ([2], "Too little data: 1 complete week, where 12 are needed"),
        ([2, 5], "Too little data: 2 complete weeks, where 12 are needed"),
        ([2, 3, 4, 5, 6], "Too little data: 5 complete weeks, where 12 are needed"),
        (
            list(range(50, 10, -2)),
            "Messages go down in 20 weeks: \u22122 a week",
        ),
        ([5, 9] * 10, "No clear direction of messages in 20 weeks: "),
        ([3] * 20, "No clear direction of messages in 20 weeks: "),
        ([0] * 20, "Too little data: nothing was written in 20 weeks"),
        ([5, 5, 9, 9] * 5, "No clear direction of messages in 20 weeks: "),
    ],
)
def test_a_trend_claims_what_the_data_support(counts, says):
    with world(talk(*weekly(counts)) if counts else talk()) as made:
        assert made.ask("trend").finding.startswith(says)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ([], NO_MESSAGES),
        ([2], "Too little data: 1 complete week, where 12 are needed"),
        ([2, 5], "Too little data: 2 complete weeks, where 12 are needed"),
        ([2, 2, 2, 90, 90], "Too little data: 5 complete weeks, where 12 are needed"),
        ([20, 22, 19, 21] * 5, "No change of the level of messages is found in 20 weeks"),
        ([3] * 20, "No change of the level of messages is found in 20 weeks"),
        ([0] * 20, "Too little data: nothing was written in 20 weeks"),
        ([1] + [0] * 19, "No change of the level of messages is found in 20 weeks"),
        (
            [3] * 10 + [40] * 10,
            "2 phases of messages in 20 weeks, mean per week: 3 from 1 January 2024",
        ),
    ],
)
def test_change_points_claim_what_the_data_support(counts, says):
    with world(talk(*weekly(counts)) if counts else talk()) as made:
        answer = made.ask("change_points")
        assert answer.finding.startswith(says)
        json.dumps(answer.plot().to_dict())


def test_two_phases_of_seven_days_need_fifteen():
    messages = [at(MONDAY + day * DAY + timedelta(hours=12), user="u") for day in range(-1, 15)]
    with world(talk(*messages)) as made:
        few = made.ask("change_points", period="day", filters={"until": "2024-01-13"}).finding
        assert few == "Too little data: 13 complete days, where 15 are needed"


@pytest.mark.parametrize(
    ("counts", "ends"),
    [
        ([3 + 2 * week for week in range(14)], [3, 29]),
        ([29 - 2 * week for week in range(14)], [29, 3]),
        ([5] * 14, [5, 5]),
        ([20, 15, 10, 5, *[0] * 3, 5, 0, 0, 0, 0, 0, 0], None),
    ],
)
def test_the_line_of_the_trend_is_drawn_and_never_below_nothing(counts, ends):
    with world(talk(*weekly(counts))) as made:
        drawn = made.ask("trend").plot().to_dict()
    rows = [row for rows in drawn["datasets"].values() for row in rows]
    levels = [row["level"] for row in rows if row.get("line") == "median slope"]
    assert len(levels) == 2
    assert min(levels) >= -1e-9
    if ends is not None:
        assert levels == pytest.approx(ends)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trend", "change_points"])
@pytest.mark.parametrize("measure", ["messages", "users", "sentiment"])
def test_of_one_message_nothing_is_claimed(name, measure):
    with world(talk(said(0))) as made:
        answer = made.ask(name, measure=measure)
    assert answer.finding == "Too little data: 0 complete weeks, where 12 are needed"
    json.dumps(answer.plot().to_dict())


def test_weeks_without_a_scored_message_take_no_part_in_a_trend_of_sentiment():
    messages = weekly([1] * 30, sentiment=None)
    for week, message in enumerate(messages[1:-1]):
        message["sentiment_score"] = None if week % 3 == 0 else week / 30 - 0.5
    with world(talk(*messages)) as made:
        answer = made.ask("trend", measure="sentiment")
    rows = answer.pl()
    assert rows["slope"][0] == pytest.approx(1 / 30)
    assert rows["periods"][0] == 20
    assert rows["value"].to_list()[1:4] == [
        None,
        pytest.approx(1 / 30 - 0.5),
        pytest.approx(-0.433, abs=1e-3),
    ]
    assert answer.finding == (
        "Sentiment goes up in 20 weeks: +0.0333 a week (95 % interval +0.0333 to +0.0333) "
        "(uncertain: 20 weeks)"
    )


def test_a_silence_and_a_new_beginning_are_two_changes():
    weeks = [20, 22, 19, 21, 20, 22] + [0] * 6 + [5, 6, 5, 7, 5, 6]
    with world(talk(*weekly(weeks))) as made:
        answer = made.ask("change_points")
    assert answer.pl().drop("periods", "phases", "measure").rows() == [
        (date(2024, 1, 1), date(2024, 2, 11), 6, 1, pytest.approx(124 / 6), "week"),
        (date(2024, 2, 12), date(2024, 3, 24), 6, 0, 0.0, "week"),
        (date(2024, 3, 25), date(2024, 5, 5), 6, 1, pytest.approx(34 / 6), "week"),
    ]
    assert answer.finding == (
        "3 phases of messages in 18 weeks, mean per week: 20.7 from 1 January 2024, "
        "0 from 12 February 2024, 5.67 from 25 March 2024 (uncertain: 18 weeks); "
        "nothing was written for 6 weeks, from 12 February to 24 March 2024"
    )
    assert answer.pl().select("periods", "phases").unique().rows() == [(18, 3)]


def test_a_silence_that_is_no_phase_is_in_no_mean():
    """Two weeks of more messages are too few for a phase beside the silence."""
    with world(talk(*weekly([40, 45, *[0] * 9, 20, 19, 21, 18, 20, 19]))) as made:
        assert made.ask("change_points").finding == (
            "2 phases of messages in 17 weeks, mean per week (without the longest silence): 42.5 "
            "from 1 January 2024, 19.5 from 18 March 2024 (uncertain: 17 weeks); "
            "nothing was written for 9 weeks, from 15 January to 17 March 2024"
        )


@pytest.mark.parametrize("penalty", [0, -1, float("nan"), float("inf")])
def test_a_penalty_is_more_than_zero(penalty):
    with world(talk(said(0))) as made, pytest.raises(InvalidValue, match="penalty"):
        made.ask("change_points", penalty=penalty)


def scattered(first: date, last: date, step: int = 400) -> list[dict]:
    """Two people on each of some days; the second one wrote on the day after, too."""
    days = np.arange((last - first).days + 1)[::step]
    found = []
    for day in days:
        moment = datetime(first.year, first.month, first.day, 12, tzinfo=UTC) + int(day) * DAY
        found += [at(moment, user="u"), at(moment, user="v"), at(moment + DAY, user="v")]
    return found


EVER = {"since": "0001-01-01"}
"""Times of before 1990 count where they are asked for."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "asked", "unit"),
    [
        (date(2019, 6, 1), "day", "day"),
        (date(2010, 6, 1), "day", "week"),
        (date(1960, 6, 1), "day", "month"),
        (date(1960, 6, 1), "week", "month"),
        (date(1800, 6, 1), "week", "year"),
        (date(1800, 6, 1), "month", "year"),
        (date(4, 6, 1), "week", "decade"),
    ],
)
def test_of_a_long_span_longer_periods_are_taken(first, asked, unit):
    messages = scattered(first, date(2024, 6, 1), 400 if first.year > 1000 else 4000)
    with world(talk(*messages)) as made:
        for name in ("trend", "change_points"):
            if name == "change_points" and asked == "month":
                continue
            answer = made.ask(name, period=asked, measure="users", filters=EVER)
            rows = answer.pl()
            assert set(rows["unit"]) == {unit}
            assert len(rows) <= series.MOST
            assert f" {unit}s" in answer.finding
            assert f"{unit}" in json.dumps(answer.plot().to_dict()).lower()
        found = made.ask("trend", period=asked, measure="users", filters=EVER).pl()
    # People of a longer period are not the sum of those of its days.
    assert max(found["value"]) == 2
    assert found["n"].sum() == len(messages)


@pytest.mark.slow
def test_years_are_whole_where_all_their_months_are():
    messages = [at(datetime(year, 6, 15, tzinfo=UTC)) for year in (1800, 1801, 1900, 2024)]
    with world(talk(*messages)) as made:
        rows = made.ask("trend", filters=EVER).pl()
    assert rows.filter("complete")["start"].to_list() == [
        date(year, 1, 1) for year in range(1801, 2024)
    ]
    assert rows.filter(rows["n"] > 0)["start"].to_list() == [
        date(year, 1, 1) for year in (1800, 1801, 1900, 2024)
    ]
    assert rows["periods"][0] == 223


@pytest.mark.slow
def test_phases_that_are_left_out_are_not_at_the_end():
    """Twenty weeks of one person, and twenty of 999 or 1,000 messages of forty."""
    spoken = [
        said(3600 * 24 * (7 * week + 3) + number, user=f"u{number % 40}")
        for week in range(40)
        for number in range(2 if week < 20 else 1000 - week % 2)
    ]
    with world(talk(*spoken)) as made:
        assert made.ask("change_points").finding == (
            "2 phases of messages in 38 weeks, mean per week: "
            "2 from 8 April 2024, 1,000 from 19 August 2024"
        )
        assert made.ask("change_points", filters={"min_people": 5}).finding == (
            "2 phases of messages in 38 weeks; of the rows that are shown, mean per week: "
            "1,000 from 19 August 2024"
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trend", "change_points", "seasonality", "weekly_activity"])
def test_data_begin_with_a_channel_as_with_people(name):
    """One writes in a channel for forty weeks, others in another one for the last fifteen."""
    late = [f"u{number}" for number in range(5)]
    spoken = [said(3600 * 24 * 7 * week, user="early", conversation="a") for week in range(40)]
    spoken += [
        said(3600 * 24 * 7 * week + 60, user=user, conversation="b")
        for week in range(25, 40)
        for user in late
    ]
    with world(talk(*spoken)) as made:
        by_channel, by_user = (
            made.ask(name, filters=chosen) for chosen in ({"channel": "b"}, {"user": late})
        )
    assert by_channel.finding == by_user.finding
    assert by_channel.pl().equals(by_user.pl())


@pytest.mark.parametrize(
    ("weeks", "drawn"),
    [
        # Too few weeks before the silence are no phase of their own: its line breaks.
        ([30, *[0] * 17, 80, 82, 79, 81], [("2024-01-01", "2024-01-08"), ("2024-05-06", None)]),
        ([20, 22, 19, 21, 20, 22, *[0] * 6, 5, 6, 5, 7, 5, 6],
         [("2024-01-01", "2024-02-12"), ("2024-02-12", "2024-03-25"), ("2024-03-25", None)]),
        ([5, 6, 5, 7, 0, 0, 0, 5, 6, 5, 7, 5, 6], [("2024-01-01", None)]),
        # No change is found: two pieces of one level.
        ([9, 8, *[0] * 5, 9, 0, 0, 7, 0, 8, 9],
         [("2024-01-01", "2024-01-15"), ("2024-02-19", None)]),
    ],
)  # fmt: skip
def test_a_long_silence_is_named_and_is_no_level(weeks, drawn):
    with world(talk(*weekly(weeks))) as made:
        answer = made.ask("change_points")
    silent = max(len(list(run)) for count, run in groupby(weeks) if not count)
    assert (f"nothing was written for {silent} weeks, from " in answer.finding) == (silent > 3)
    plot = answer.plot().to_dict()
    (rows,) = (rows for rows in plot["datasets"].values() if rows and "after" in rows[0])
    # A level is the mean of the weeks over which it is drawn, and a dashed rule is a change.
    monday = [date(2024, 1, 1) + week * timedelta(days=7) for week in range(len(weeks))]
    for level in {row["level"] for row in rows}:
        parts = [(row["start"][:10], row["after"][:10]) for row in rows if row["level"] == level]
        over = [
            count
            for count, day in zip(weeks, monday, strict=True)
            if any(start <= str(day) < after for start, after in parts)
        ]
        assert level == pytest.approx(sum(over) / len(over))
    dashed = [layer for layer in plot["layer"] if layer["mark"].get("strokeDash")]
    assert bool(dashed) is (answer.pl()["phases"][0] > 1)
    ends = [(row["start"][:10], row["after"][:10]) for row in rows]
    assert [start for start, _ in ends] == [start for start, _ in drawn]
    assert all(end is None or end == made for (_, end), (_, made) in zip(drawn, ends, strict=True))
