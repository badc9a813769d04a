"""Rhythms, bursts, directions and changes: as computed by plain Python from the raw messages."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import combinations, pairwise
from math import sqrt
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.intervals import FEWEST
from aico_lab.metrics.time.change_points import _cut, _segments
from tests.effort import examples
from tests.talks import START, World, said, talk, talks, world
from tests.talks_by_hand import following, is_complete, messages_of, real_messages, start_of

BERLIN, KOLKATA, SAO_PAULO = "Europe/Berlin", "Asia/Kolkata", "America/Sao_Paulo"
ZONES = pytest.mark.parametrize("zone", [KOLKATA, SAO_PAULO])
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY = timedelta(days=1)
MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def real():
    with world(real_messages(6_000)) as made:
        yield made


def at(moment: datetime, **others) -> dict:
    """A message at a time."""
    return said((moment - START).total_seconds(), **others)


def per_day(counts: list[int], start: datetime = MONDAY) -> list[dict]:
    """So many messages on each day, around noon."""
    return [
        at(start + day * DAY + timedelta(hours=12, seconds=number))
        for day, count in enumerate(counts)
        for number in range(count)
    ]


def spoken(made: World) -> list[dict]:
    return [row for row in made.messages.iter_rows(named=True) if row["role"] != "system"]


def local(row: dict, zone: str) -> datetime:
    return row["timestamp"].astimezone(ZoneInfo(zone))


def assert_is_heatmap(made: World, zone: str) -> None:
    counts = Counter((local(r, zone).weekday(), local(r, zone).hour) for r in spoken(made))
    slots = [(day, hour) for day in range(7) for hour in range(24)]
    found = made.ask("week_heatmap", filters={"timezone": zone}).pl()
    if not counts:
        assert found.is_empty()
        return
    assert found.select("weekday", "hour", "n").rows() == [
        (WEEKDAYS[day], hour, counts[day, hour]) for day, hour in slots
    ]
    shares = [counts[slot] * 100 / counts.total() for slot in slots]
    assert found["share"].to_list() == pytest.approx(shares)


def starts(made: World, zone: str, unit: str) -> list[date]:
    days = sorted(local(row, zone).date() for row in spoken(made))
    found = [start_of(days[0], unit)] if days else []
    while found and following(found[-1], unit) <= days[-1]:
        found.append(following(found[-1], unit))
    return found


def whole(made: World, zone: str, unit: str) -> list[date]:
    """Periods in which the data neither begin nor end."""
    times = [row["timestamp"] for row in spoken(made)]
    return [
        start
        for start in starts(made, zone, unit)
        if is_complete(start, unit, zone, min(times), max(times))
    ]


def values(made: World, zone: str, unit: str, measure: str) -> dict[date, float | None]:
    rows = defaultdict(list)
    for row in spoken(made):
        rows[start_of(local(row, zone).date(), unit)].append(row)
    found: dict[date, float | None] = {}
    for start in starts(made, zone, unit):
        said_then = rows[start]
        if measure == "messages":
            found[start] = len(said_then)
        elif measure == "users":
            found[start] = len({r["user_id"] for r in said_then if r["role"] == "user"} - {None})
        else:
            scores = [r["sentiment_score"] for r in said_then]
            scores = [score for score in scores if score is not None]
            if measure == "scored":
                found[start] = len(scores)
            else:
                found[start] = sum(scores) / len(scores) if scores else None
    return found


def ranks(numbers: list[float]) -> list[float]:
    """Places in order, and the mean of their places of those that are equal."""
    return [
        sum(other < number for other in numbers) + (1 + numbers.count(number)) / 2
        for number in numbers
    ]


def sen(
    places: list[int], series: list[float], *, whole_numbers: bool
) -> tuple[float, float, float]:
    """Sen (1968): the median of all slopes, and those so many places from it as Kendall's S is.

    The variance of S is that of Hamed and Rao (1998), the distribution Student's.
    """
    n = len(series)
    pairs = list(combinations(range(n), 2))
    of_counts = [(series[b] - series[a]) / (places[b] - places[a]) for a, b in pairs]
    own = round(float(np.median(of_counts)), 9) + 0.0
    if whole_numbers:
        series = [y + i * (sqrt(5) - 1) / 2 % 1 - 0.5 for i, y in enumerate(series)]
    series = [round(y, 9) for y in series]
    slopes = sorted((series[b] - series[a]) / (places[b] - places[a]) for a, b in pairs)
    slope = float(np.median(slopes))
    ranked = ranks([round(y - slope * x, 9) for x, y in zip(places, series, strict=True)])
    apart = [rank - (n + 1) / 2 for rank in ranked]
    total = sum(value**2 for value in apart)
    found = sum(first * second for first, second in pairwise(apart)) / total if total else 0
    alike = min(max((n * found + 2) / (n - 4), -0.3), 0.9)
    more = sum((n - k) * (n - k - 1) * (n - k - 2) * alike**k for k in range(1, n - 2))
    inflation = 1 + 2 / (n * (n - 1) * (n - 2)) * more
    ties = Counter(series).values()
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    quantile = stats.t.ppf(0.975, max(n * (1 - alike) / (1 + alike) - 1, 2))
    away = quantile * sqrt(variance * inflation)
    low = max(round((len(slopes) - away) / 2) - 1, 0)
    high = min(round((len(slopes) + away) / 2), len(slopes) - 1)
    return own, min(slopes[low], own), max(slopes[high], own)


def assert_is_trend(made: World, zone: str, unit: str, measure: str) -> None:
    expected = values(made, zone, unit, measure)
    counted = values(made, zone, unit, "scored" if measure == "sentiment" else "messages")
    used = whole(made, zone, unit)
    found = made.ask("trend", measure=measure, period=unit, filters={"timezone": zone}).pl()
    assert found.select("start", "n", "complete", "unit").rows() == [
        (start, counted[start], start in used, unit) for start in expected
    ]
    assert found["value"].to_list() == [
        None if value is None else pytest.approx(value) for value in expected.values()
    ]
    known = [start for start in used if expected[start] is not None]
    places = [list(expected).index(start) for start in known]
    series = [expected[start] for start in known]
    every = list(expected)
    around = {start: every[max(at - 2, 0) : at + 3] for at, start in enumerate(every)}
    smooth = {
        start: sum(expected[one] for one in near) / 5
        for start, near in around.items()
        if len(near) == 5 and set(near) <= set(known)
    }
    for start, value in found.select("start", "smooth").rows():
        assert value == pytest.approx(smooth.get(start))
    slopes = found.select("slope", "slope_low", "slope_high").unique().rows()
    if len(series) < 12:
        assert slopes in ([], [(None, None, None)])
    else:
        by_hand = sen(places, series, whole_numbers=measure != "sentiment")
        assert slopes == [pytest.approx(by_hand, abs=1e-8)]


def longest_silence(made: World, zone: str, unit: str) -> set[date]:
    """The starts of the periods of the first longest time without messages, if it lasts 28 days."""
    numbers = values(made, zone, unit, "messages")
    longest: list[date] = []
    run: list[date] = []
    for start in whole(made, zone, unit):
        run = [*run, start] if not numbers[start] else []
        longest = max(longest, run, key=len)
    days = (following(longest[-1], unit) - longest[0]).days if longest else 0
    return set(longest) if days >= 28 else set()


def assert_is_changes(made: World, zone: str, unit: str, measure: str) -> None:
    series = values(made, zone, unit, measure)
    used = [start for start in whole(made, zone, unit) if series[start] is not None]
    found = made.ask("change_points", measure=measure, period=unit, filters={"timezone": zone})
    if not used:
        assert found.pl()["n"].to_list() == ([0] if spoken(made) else [])
        return
    levels = [series[start] for start in used]
    ends = [len(levels)]
    if len(levels) >= {"day": 15, "week": 12}[unit]:
        signal = np.array(levels if measure == "sentiment" else np.log1p(levels))
        ends = _segments(_cut(signal), {"day": 7, "week": 3}[unit], 11.5)
    phases = [list(range(a, b)) for a, b in pairwise([0, *ends])]
    silent = {at for at, start in enumerate(used) if start in longest_silence(made, zone, unit)}
    own = [phase for phase in phases if silent and silent.issuperset(phase)]
    if own:  # the silence is one phase of its own
        phases = [sorted(silent) if phase is own[0] else
                  [at for at in phase if at not in silent] for phase in phases]  # fmt: skip
    else:  # no level includes it
        phases = [[at for at in phase if at not in silent] for phase in phases]
    phases = [phase for phase in phases if phase]
    expected = [
        (
            used[phase[0]],
            following(used[phase[-1]], unit) - DAY,
            len(phase),
            pytest.approx(np.mean([levels[at] for at in phase])),
        )
        for phase in phases
    ]
    assert found.pl().select("start", "end", "n", "level").rows() == expected
    assert found.pl().select("periods", "phases").unique().rows() == [(len(levels), len(phases))]
    assert set(found.pl()["unit"]) == {unit}


def assert_is_seasonality(made: World, zone: str, cycle: str) -> None:
    counts, who = Counter(), defaultdict(set)
    whom = {message.id: message.person for message in messages_of(made.messages)}
    for row in spoken(made):
        then = local(row, zone)
        place = then.weekday() if cycle == "week" else then.hour
        counts[start_of(then.date(), cycle), place] += 1
        who[start_of(then.date(), cycle), place].add(whom[row["id"]])
    cycles = whole(made, zone, cycle)
    if cycle == "day":
        midnight = {d: datetime(d.year, d.month, d.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
                    for start in cycles for d in (start, start + DAY)}  # fmt: skip
        cycles = [start for start in cycles if midnight[start + DAY] - midnight[start] == DAY]
    names = WEEKDAYS if cycle == "week" else [f"{hour:02d}:00" for hour in range(24)]
    found = made.ask("seasonality", cycle=cycle, filters={"timezone": zone}).pl()
    if not cycles:
        assert found.is_empty()
        return
    table = np.array([[counts[c, place] for place in range(len(names))] for c in cycles], float)
    assert found["slot"].to_list() == list(names)
    assert found["n"].to_list() == list(table.sum(axis=0))
    people = [set().union(*(who[c, place] for c in cycles)) for place in range(len(names))]
    assert found["people"].to_list() == [len(those - {None}) for those in people]
    assert found["cycles"].unique().to_list() == [len(cycles)]
    if table.sum() == 0:
        assert found["index"].null_count() == len(names)
        return
    assert found["index"].to_list() == pytest.approx(table.mean(axis=0) / table.mean())
    apart = table - table.mean(axis=1, keepdims=True)
    strength = (apart.mean(axis=0) ** 2).mean() / (apart**2).mean() * 100
    assert found["strength"][0] == pytest.approx(strength)


@pytest.mark.slow
def test_mondays_of_twice_as_many_messages_as_other_days():
    """The mean of a day is (14 + 6 * 7) / 7 = 8: Monday's index is 1.75, others' 0.875."""
    days = [3, 1, *[14, 7, 7, 7, 7, 7, 7] * 3, 14, 5]
    with world(talk(*per_day(days, MONDAY - 2 * DAY))) as made:
        answer = made.ask("seasonality")
    rows = answer.pl()
    assert rows["index"].to_list() == [1.75, *[0.875] * 6]
    assert rows["index_low"].null_count() == 7  # of three weeks
    assert rows["strength"].unique().to_list() == [pytest.approx(100)]
    assert rows["cycles"].unique().to_list() == [3]
    assert answer.finding == "Too little data: messages in 3 weeks, where 10 are needed"


def test_the_interval_of_a_season_leaves_out_each_week_in_turn():
    rng = np.random.default_rng(3)
    table = rng.poisson([3, 3, 3, 3, 3, 9, 6], size=(12, 7))
    with world(talk(*per_day([1, *table.ravel(), 1], MONDAY - DAY))) as made:
        answer = made.ask("seasonality")
    rows = answer.pl()
    index = table.sum(axis=0) / table.sum() * 7
    left = table.sum(axis=0) - table
    # The index is a share of the week, seven times as large: on the logit scale.
    middle = special.logit(index / 7)
    apart = special.logit(left / left.sum(axis=1, keepdims=True)) - middle
    squares = (apart**2).sum(axis=0)
    kurtosis = 12 * (apart**4).sum(axis=0) / squares**2
    freedom = np.minimum(11, 2 * 12 / (kurtosis - 9 / 11))
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(squares * 11 / 12)
    assert rows["index_low"].to_list() == pytest.approx(7 * special.expit(middle - reach))
    assert rows["index_high"].to_list() == pytest.approx(7 * special.expit(middle + reach))
    assert answer.finding.startswith("Sat: ")
    assert answer.finding.endswith("of the variance (uncertain: 12 weeks)")


@pytest.mark.slow
@pytest.mark.parametrize("weeks", [50])
def test_the_interval_of_a_season_covers_it_though_weeks_are_alike_in_level(weeks):
    """The level of the weeks wanders (an autocorrelation of 0.6): the index is a share of each."""
    rng = np.random.default_rng(weeks)
    true = np.array([1, 1, 1, 1, 1, 1.3, 0.7])
    covered = []
    for _ in range(40):
        level = np.zeros(weeks)
        for week in range(1, weeks):
            level[week] = 0.6 * level[week - 1] + rng.normal(0, 0.3)
        table = rng.poisson(2 * np.exp(level)[:, None] * true)
        with world(talk(*per_day([1, *table.ravel(), 1], MONDAY - DAY))) as made:
            rows = made.ask("seasonality").pl()
        covered += ((rows["index_low"] <= true) & (rows["index_high"] >= true)).to_list()
    assert 0.92 - 0.03 <= np.mean(covered) <= 0.97 + 0.02


def test_no_weekday_stands_out_where_all_are_alike():
    rng = np.random.default_rng(5)
    table = rng.poisson(4, size=(30, 7))
    with world(talk(*per_day([1, *table.ravel(), 1], MONDAY - DAY))) as made:
        assert made.ask("seasonality").finding == "No weekday clearly stands out in 30 weeks"


@pytest.mark.slow
def test_a_day_of_23_hours_has_no_place_among_days_of_hours():
    """Berlin's 31 March 2024 has no hour from 2 to 3."""
    messages = [said(hour * 3600) for hour in range(-48, 72)]
    with world(talk(*messages)) as made:
        utc = made.ask("seasonality", cycle="day").pl()
        there = made.ask("seasonality", cycle="day", filters={"timezone": BERLIN}).pl()
    assert utc["index"].to_list() == [1.0] * 24
    assert there["index"].to_list() == [1.0] * 24
    assert (utc["cycles"][0], there["cycles"][0]) == (4, 3)


Gaps = list[float | None]


def gaps_of(made: World) -> dict[tuple[str, str], Gaps]:
    """Seconds between messages, by side and person; a companion's are those to a person.

    None if one of the two times is estimated.
    """
    times = defaultdict(list)
    for message in messages_of(made.messages):
        if message.person is not None:
            moment = message.ts_ms / 1000, message.id, message.is_estimated
            times[message.role, message.person].append(moment)
    return {
        who: [
            None if guessed or before_guessed else after - before
            for (before, _, before_guessed), (after, _, guessed) in pairwise(sorted(then))
        ]
        for who, then in times.items()
    }


def goh_barabasi(gaps: Gaps) -> tuple[float, float, float | None]:
    """B, B corrected, and M, by the papers' formulas."""
    tau = np.array([gap for gap in gaps if gap is not None], dtype=float)
    n, mu, sigma = len(tau), tau.mean(), tau.std()
    r = sigma / mu
    corrected = (sqrt(n + 1) * r - sqrt(n - 1)) / ((sqrt(n + 1) - 2) * r + sqrt(n - 1))
    pairs = [pair for pair in pairwise(gaps) if None not in pair]
    first, second = np.array(pairs, dtype=float).reshape(-1, 2).T
    memory = None
    if pairs and first.std() > 0 and second.std() > 0:
        products = (first - first.mean()) * (second - second.mean())
        memory = products.sum() / len(pairs) / (first.std() * second.std())
    return (sigma - mu) / (sigma + mu), corrected, memory


def mean(known: list[float | None]) -> float | None:
    there = [value for value in known if value is not None]
    return pytest.approx(sum(there) / len(there), abs=1e-9) if there else None


def assert_is_burstiness(made: World, fewest: int) -> None:
    by_side = defaultdict(list)
    for (role, _), gaps in sorted(gaps_of(made).items()):
        known = [gap for gap in gaps if gap is not None]
        if len(known) >= fewest and sum(known) > 0:
            by_side[role].append(gaps)
    found = made.ask("burstiness", min_intervals=fewest).pl()
    assert found["role"].to_list() == sorted(by_side)
    for row in found.iter_rows(named=True):
        people = by_side[row["role"]]
        each = [goh_barabasi(gaps) for gaps in people]
        intervals = sum(gap is not None for gaps in people for gap in gaps)
        assert (row["n"], row["intervals"]) == (len(people), intervals)
        assert row["burstiness"] == mean([b for b, _, _ in each])
        assert row["corrected"] == mean([c for _, c, _ in each])
        assert row["memory"] == mean([m for _, _, m in each])
        if len(people) < FEWEST:
            assert row["burstiness_low"] is None
        else:
            assert row["burstiness_low"] <= row["burstiness"] <= row["burstiness_high"]


def burst(*gaps: float, fewest: int = 2, **others) -> dict:
    times = np.cumsum([0, *gaps])
    with world(talk(*(said(float(time), **others) for time in times))) as made:
        return made.ask("burstiness", min_intervals=fewest).pl().row(0, named=True)


@pytest.mark.slow
@settings(max_examples=examples(9), deadline=None)
@given(talks(40, marked=True))
def test_no_interval_begins_or_ends_with_an_estimated_time(messages):
    with world(messages) as made:
        assert_is_burstiness(made, 2)


def test_intervals_that_are_all_equal_have_a_burstiness_of_minus_one():
    row = burst(*[10.0] * 30)
    assert (row["burstiness"], row["corrected"], row["memory"]) == (-1.0, -1.0, None)
    assert row["intervals"] == 30


@pytest.mark.slow
def test_burstiness_by_hand():
    """1, 1, 1, 5: mu 2, sigma sqrt(3). B = (sqrt(3) - 2) / (sqrt(3) + 2)."""
    row = burst(1, 1, 1, 5)
    assert row["burstiness"] == pytest.approx((sqrt(3) - 2) / (sqrt(3) + 2))
    # As far as four intervals can be from even: the correction makes it 1.
    assert burst(0, 0, 0, 5)["corrected"] == pytest.approx(1)
    assert row["memory"] is None  # the first three are equal


def test_memory_by_hand():
    """1, 2, 1, 2, 1: each interval is the other one than before."""
    assert burst(1, 2, 1, 2, 1)["memory"] == pytest.approx(-1)


@pytest.mark.slow
def test_random_times_have_a_burstiness_of_about_zero():
    gaps = np.random.default_rng(1).exponential(1000, 2000).round()
    row = burst(*gaps)
    assert row["burstiness"] == pytest.approx(0, abs=0.03)
    assert row["corrected"] == pytest.approx(0, abs=0.03)
    assert row["memory"] == pytest.approx(0, abs=0.05)


def test_equal_intervals_of_months_are_equal_to_the_last_digit():
    row = burst(*[31 * 86_400 + 1] * 40)
    assert row["burstiness"] == -1.0


@pytest.mark.slow
def test_people_of_few_intervals_are_left_out():
    gaps = np.arange(1, 21)
    assert burst(*gaps, fewest=20)["n"] == 1
    with world(talk(*(said(float(t)) for t in np.cumsum(gaps)))) as made:
        assert len(made.ask("burstiness")) == 0
        with pytest.raises(InvalidValue, match="at least 2, not 1"):
            made.ask("burstiness", min_intervals=1)


@pytest.mark.slow
@ZONES
def test_all_of_it_of_real_conversations(real, zone):
    assert_is_heatmap(real, zone)
    for cycle in ("week", "day"):
        assert_is_seasonality(real, zone, cycle)
    for unit in ("day", "week"):
        for measure in ("messages", "users", "sentiment"):
            assert_is_changes(real, zone, unit, measure)
        for measure in ("messages", "users", "sentiment"):
            assert_is_trend(real, zone, unit, measure)
    assert_is_burstiness(real, 20)


@given(messages=talks(), zone=st.sampled_from(["UTC", BERLIN, SAO_PAULO]))
@pytest.mark.slow
@settings(max_examples=examples(10))
def test_all_of_it_of_made_up_conversations(messages, zone):
    with world(messages) as made:
        assert_is_heatmap(made, zone)
        for cycle in ("week", "day"):
            assert_is_seasonality(made, zone, cycle)
        for measure in ("messages", "sentiment"):
            assert_is_changes(made, zone, "day", measure)
            assert_is_changes(made, zone, "week", measure)
        for unit in ("day", "week", "month"):
            for measure in ("users", "sentiment"):
                assert_is_trend(made, zone, unit, measure)
        assert_is_burstiness(made, 2)


def in_weeks(counts) -> list[dict]:
    """So many messages on each weekday of whole weeks, and one before and after them."""
    hours = [(7 * week + day + 1) * 24 + 4 for week in range(len(counts)) for day in range(7)]
    numbers = [number for week in counts for number in week]
    spoken = [
        said(3600 * hour + one, user=f"u{one}")
        for hour, number in zip(hours, numbers, strict=True)
        for one in range(number)
    ]
    return [said(0), *spoken, said(3600 * (hours[-1] + 48))]


@pytest.mark.slow
def test_a_weekday_is_compared_with_all_of_them_also_where_few_are_shown():
    counts = np.random.default_rng(5).integers(1, 7, (30, 7))
    with world(talk(*in_weeks(counts))) as made:
        whole = made.ask("seasonality")
        most = whole.pl()["n"].max()
        shown = made.ask("seasonality", filters={"min_cell": most})
    assert len(shown) == 1
    assert whole.finding.startswith("No weekday clearly stands out in 30 weeks")
    assert shown.finding == f"Of the rows that are shown: {whole.finding}"


def test_weekdays_that_tie_are_not_said_with_the_interval_of_one():
    counts = [[4 + week % 3, 2 + 3 * (week % 3), 1, 1, 1, 1, 1] for week in range(39)]
    with world(talk(*in_weeks(counts))) as made:
        answer = made.ask("seasonality")
    rows = answer.pl()
    assert rows["index"][0] == rows["index"][1]
    assert rows["index_low"][0] != rows["index_low"][1]
    assert answer.finding.startswith("Mon and Tue alike: 2.33 times the mean; the weekday explains")


@pytest.mark.slow
def test_a_tie_of_a_steady_and_an_unsteady_weekday_is_not_the_same_in_all_weeks():
    """Every Tuesday has 3 of 10 messages, Fridays have 2 and 4 in turn."""
    messages = [said(0)]
    for week in range(16):
        monday = 2 * 86_400 + week * 7 * 86_400
        for day, count in enumerate((1, 3, 1, 1, 2 + 2 * (week % 2), 1, 1 - week % 2)):
            messages += [
                said(
                    monday + day * 86_400 + number * 60,
                    user=f"u{number}",
                    conversation=f"c{number}",
                )
                for number in range(count)
            ]
    with world(talk(*messages, said(2 * 86_400 + 16 * 7 * 86_400))) as made:
        answer = made.ask("seasonality")
        alike = {made.ask("seasonality").pl()["strength"][0] for _ in range(5)}
    assert "the same in all" not in answer.finding
    assert len(alike) == 1


@pytest.mark.slow
def test_where_nobody_is_named_nobody_is_counted():
    with world(talk(*(said(day * 86_400, user=None) for day in range(30)))) as made:
        for name in ("overview", "daily_activity", "monthly_activity"):
            assert "people" not in made.ask(name).finding


@pytest.mark.parametrize(("days", "layers"), [([0, 1, 2], 1), ([0, 2], 2)])
def test_a_calendar_has_no_layer_without_days(days, layers):
    """Vega warns of a layer without an extent."""
    with world(talk(*(said(day * 86_400) for day in days))) as made:
        drawn = made.ask("calendar_days").plot().to_dict()
    assert len(drawn["layer"]) == layers
