"""How often intervals cover the truth: simulated people, drawn again and again.

A large population is the truth. The rows of each metric's expression, one for each person, are
drawn from it, and `finish` makes of them what an answer says. To print the whole table:
`python -m tests.test_metrics_coverage 1000`.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from aico_lab.metrics import intervals
from aico_lab.metrics.catalogue import CATALOGUE, compile_query
from aico_lab.metrics.filters import Filters
from aico_lab.metrics.intervals import Statistic, estimate, mean, percent
from aico_lab.metrics.talk import Talk
from tests.simulated import population
from tests.talks import world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GROUPS = {
    "turns": ["role"],
    "questions": ["role"], "message_length": ["role"], "sentiment": ["role"],
    "mood_recovery": ["role"],
    "sentiment_trajectory": ["role", "step"], "sentiment_transfer": ["role"],
    "session_length": [], "initiative": [], "balance": [], "coordination": ["role"],
    "burstiness": ["role"], "stickiness": ["start"], "sessions": ["start"],
}  # fmt: skip
"""The columns that tell apart the rows of each metric's expression, besides people."""

PARAMETERS = {"sentiment_trajectory": {"steps": 2}, "burstiness": {"min_intervals": 5}}
KEYS = ("role", "step", "start", "measure", "marker", "duration")

Covered = dict[str, list[bool]]


def rows_of_the_population() -> tuple[Talk, dict[str, pl.DataFrame]]:
    """What the expression of each metric gives for everybody."""
    with world(population()) as made:
        connection = made.connection()
        ends = connection.execute("SELECT min(ts_ms), max(ts_ms) FROM mart.messages").fetchone()
        talk = Talk(Filters(), *ends)
        found = {}
        for name in GROUPS:
            chosen = tuple(sorted(CATALOGUE[name].check(PARAMETERS.get(name, {})).items()))
            query = compile_query(name, talk, chosen)
            found[name] = pl.DataFrame(connection.execute(query).to_arrow_table())
        return talk, found


def coverage(name: str, talk: Talk, rows: pl.DataFrame, people: int, times: int) -> Covered:
    """Whether the truth lay in each interval of a metric, for draws of so many people."""
    metric, by = CATALOGUE[name], GROUPS[name]
    parameters = metric.check(PARAMETERS.get(name, {}))
    if "start" in by:  # one period, of which many people are
        busiest = rows.group_by("start").len().sort("len", "start")["start"][-1]
        rows = rows.filter(pl.col("start") == busiest)
    everybody = metric.finish(rows, talk, **parameters)
    ends = [column.name[:-4] for column in metric.columns if column.name.endswith("_low")]
    keys = [key for key in KEYS if key in everybody.columns]
    truth = everybody.select(*keys, *(pl.col(end).alias(f"true {end}") for end in ends))
    groups = rows.partition_by(by, maintain_order=True) if by else [rows]
    rng = np.random.default_rng(people)
    covered: Covered = defaultdict(list)
    for _ in range(times):
        drawn = pl.concat([group[rng.integers(0, group.height, people)] for group in groups])
        answer = metric.finish(drawn, talk, **parameters)
        both = answer.join(truth, on=keys, nulls_equal=True)
        for row in both.iter_rows(named=True):
            for end in ends:
                low, value, high = row[f"{end}_low"], row[f"true {end}"], row[f"{end}_high"]
                if low is not None and value is not None:
                    covered[end].append(low - 1e-9 <= value <= high + 1e-9)
    return covered


@pytest.fixture(scope="module")
def everybody():
    return rows_of_the_population()


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS)
def test_intervals_of_the_catalogue_cover_the_truth_as_often_as_they_say(everybody, name):
    """92 to 97 %, and what a few hundred draws may miss of that by chance."""
    talk, rows = everybody
    for people, times in ((50, 150), (100, 100), (300, 50)):
        for statistic, covered in coverage(name, talk, rows[name], people, times).items():
            found, chance = 100 * np.mean(covered), 2.5 * 100 * 0.22 / times**0.5
            assert 92 - chance <= found <= 97 + chance, (name, statistic, people, found)


def skewed_means(rng: np.random.Generator, units: int) -> pl.DataFrame:
    """Amounts of people who write very differently much; their mean is 8."""
    counts = np.ceil(rng.lognormal(2, 1.5, units))
    totals = counts * rng.gamma(4, 2, units) * rng.gamma(counts, 1 / counts)
    return pl.DataFrame({"total": totals, "count": counts, "known": True})


def rare_shares(rng: np.random.Generator, units: int) -> pl.DataFrame:
    """Shares of people who differ in it; their mean is 3 %."""
    counts = np.ceil(rng.lognormal(2, 1, units)).astype(int)
    part = rng.binomial(counts, rng.beta(0.12, 3.88, units))
    return pl.DataFrame({"total": part, "count": counts, "known": True})


def moods(rng: np.random.Generator, units: int) -> pl.DataFrame:
    """Scores from -1 to 1; their mean is 0.2."""
    counts = np.ceil(rng.lognormal(2, 1.5, units))
    totals = counts * rng.normal(0.2, 0.15, units) + rng.normal(0, 0.4, units) * counts**0.5
    return pl.DataFrame({"total": totals, "count": counts, "known": True})


SIMULATED: list[tuple[Callable[..., pl.DataFrame], Statistic, float]] = [
    (skewed_means, mean("total", "count", scale="log"), 8),
    (rare_shares, percent("total", "count"), 3),
    (moods, mean("total", "count"), 0.2),
]


def simulated(units: int, times: int) -> Iterator[tuple[str, float]]:
    """How often, in percent, the interval of each kind of statistic covers the truth."""
    rng = np.random.default_rng(11)
    for make, statistic, truth in SIMULATED:
        covered = []
        for _ in range(times):
            answer = estimate(
                make(rng, units), by=[], unit="people", statistics={"value": statistic}
            )
            low, high = answer.select("value_low", "value_high").row(0)
            covered.append(low is not None and low <= truth <= high)
        yield make.__name__, 100 * float(np.mean(covered))


@pytest.mark.slow
@pytest.mark.parametrize("units", [20, 50, 100, 300])
def test_skewed_and_rare_values_are_covered_too(units):
    least = 92 if units >= 50 else 90
    for name, found in simulated(units, 600):
        assert least - 2.5 <= found <= 97 + 2, (name, units, found)


@pytest.mark.slow
@pytest.mark.parametrize("people", [100, 300])
def test_people_who_are_drawn_from_the_real_data_tell_of_all_of_them(people):
    """200 draws of people with all that they wrote; one wrote a thirteenth of everything."""
    from tests.talks_by_hand import messages_of, real_messages

    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    for message in messages_of(real_messages(258_145)):
        if message.role == "user":
            mine = sums[str(message.person)]
            for at, value in enumerate((1, len(message.words), message.asks, message.sentiment)):
                mine[at] += value or 0.0
    names = ["n", "words", "asks", "mood"]
    rows = pl.DataFrame(list(sums.values()), schema=names, orient="row").with_columns(known=True)
    statistics = {
        "words": mean("words", "n", scale="log"),
        "asks": percent("asks", "n"),
        "mood": mean("mood", "n"),
    }

    def ask(drawn: pl.DataFrame) -> dict[str, float]:
        found = estimate(drawn, by=[], unit="people", statistics=statistics)
        return found.row(0, named=True)

    truth = ask(rows)
    rng = np.random.default_rng(people)
    drawn = [ask(rows[rng.choice(rows.height, people, replace=False)]) for _ in range(200)]
    for name in statistics:
        covered = [one[f"{name}_low"] <= truth[name] <= one[f"{name}_high"] for one in drawn]
        assert np.mean(covered) >= 0.89, (name, people)


def test_few_units_have_no_interval():
    rng = np.random.default_rng(2)
    for units in (1, 2, 5, intervals.FEWEST - 1, intervals.FEWEST):
        rows = skewed_means(rng, units)
        found = estimate(
            rows, by=[], unit="people", statistics={"value": mean("total", "count")}
        ).row(0, named=True)
        assert (found["value_low"] is None) == (units < intervals.FEWEST)
        assert found["value"] == pytest.approx(rows["total"].sum() / rows["count"].sum())


if __name__ == "__main__":
    found_talk, found_rows = rows_of_the_population()
    print("| interval | " + " | ".join(f"{n} people" for n in (30, 100, 300)) + " |")  # noqa: T201
    for metric_name in GROUPS:
        table = [
            coverage(metric_name, found_talk, found_rows[metric_name], n, int(sys.argv[1]))
            for n in (30, 100, 300)
        ]
        for one in table[-1]:
            cells = [
                f"{100 * np.mean(column[one]):.1f}" if column[one] else "-" for column in table
            ]
            print(f"| {metric_name}.{one} | " + " | ".join(cells) + " |")  # noqa: T201
