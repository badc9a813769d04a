"""How often intervals cover the truth: simulated people, drawn again and again.

A large population is the truth. The rows of each metric's expression, one for each person, are
drawn from it, and `finish` makes of them what an answer says. To print the whole table:
`python -m tests.test_metrics_coverage 1000`.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import polars as pl
import pytest

from aico_lab.adapters.duckdb import execute_with
from aico_lab.mart.text import MEASURED
from aico_lab.messages.sentiment import score
from aico_lab.metrics.engine import intervals
from aico_lab.metrics.engine.asking import compile_query
from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.metrics.engine.filters import Filters
from aico_lab.metrics.engine.intervals import Statistic, estimate, mean, percent
from aico_lab.metrics.engine.talk import Talk
from aico_lab.sources import chitchat
from tests.simulated import attitudes, population
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
    "outcomes_by_profile": ["whose", "version", "outcome"],
    "outcomes_by_style": ["trait", "part", "outcome"], "feedback": ["name"],
    "preference_changes": ["preference"],
    "lexical_diversity": [], "languages": [], "retention": [], "streaks": [],
}  # fmt: skip
"""The columns that tell apart the rows of each metric's expression, besides people."""

PARAMETERS = {
    "sentiment_trajectory": {"steps": 2},
    "burstiness": {"min_intervals": 5},
    "lexical_diversity": {"min_words": 20},
}
KEYS = (
    "role", "step", "start", "measure", "marker", "duration", "whose", "version", "outcome",
    "trait", "part", "name", "preference", "code", "since", "days",
)  # fmt: skip
USUAL = 5
"""Of metrics that list what occurs, only what so many percent of people have is looked at: that
something rare occurs at all is already a choice of samples in which it is frequent."""

Covered = dict[str, list[bool]]


def as_words(people: pl.DataFrame) -> pl.DataFrame:
    """Number people and their messages again, as one who is drawn twice is two."""
    numbered = people.drop("person").with_row_index("person").explode("words").unnest("words")
    return numbered.select(
        side=2 * pl.col("person").cast(pl.Int64) + pl.col("side") % 2,
        message=pl.struct("person", "message").rank("dense").cast(pl.Int64) - 1,
        position="position",
        word="word",
    )


def as_texts(people: pl.DataFrame) -> pl.DataFrame:
    """Give each text a conversation of its own."""
    numbered = people.with_row_index("unit").explode("text").with_row_index("number")
    return numbered.select(
        "text",
        conversation_id=pl.col("number").cast(pl.String),
        role=pl.lit("user"),
        msg_idx=0,
        unit=pl.col("unit").cast(pl.String),
        known=True,
    )


def as_cohorts(people: pl.DataFrame) -> pl.DataFrame:
    """Count who of a cohort wrote in which week."""
    wrote = people.explode("start").group_by("cohort", "start").agg(active=pl.len().cast(pl.Int64))
    return wrote.with_columns(n=pl.lit(people.height, pl.Int64))


def as_longest(people: pl.DataFrame) -> pl.DataFrame:
    """Count people by the length of their longest streak."""
    return people.group_by("days").agg(n=pl.len().cast(pl.Int64))


AS_ROWS: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "lexical_diversity": as_words,
    "languages": as_texts,
    "retention": as_cohorts,
    "streaks": as_longest,
}
"""What makes the rows of an expression of a row for each person, where these are not the same."""

TEXTS = (
    "The train was late again and we waited in the rain.",
    "Der Zug kam wieder zu spät und wir standen im Regen.",
    "El tren llegó tarde otra vez y esperamos bajo la lluvia.",
    "ok",
)


def texts_of_people(rng: np.random.Generator) -> pl.DataFrame:
    """Some write two languages, and few one that is rare."""
    made = []
    for _ in range(4_000):
        habits = rng.dirichlet((1.5, 0.6, 0.06, 0.5))
        conversations = min(int(np.ceil(rng.lognormal(0.5, 1))), 80)
        made.append([TEXTS[at] for at in rng.choice(4, conversations, p=habits)])
    return pl.DataFrame({"text": made})


def longest_streak(days: pl.Series) -> int:
    """Return the most consecutive days, in plain Python."""
    longest, streak, before = 0, 0, None
    for day in sorted(set(days.to_list())):
        streak = streak + 1 if before is not None and (day - before).days == 1 else 1
        longest, before = max(longest, streak), day
    return longest


def people_of(connection: duckdb.DuckDBPyConnection) -> dict[str, pl.DataFrame]:
    """Return a row for each person, for metrics whose expression counts them already."""
    days = connection.execute(
        "SELECT DISTINCT user_id, epoch_ms(ts_ms)::DATE AS day,"
        " date_trunc('week', epoch_ms(ts_ms))::DATE AS start"
        " FROM mart.messages WHERE role = 'user'"
    ).pl()
    weeks = days.group_by("user_id").agg(
        cohort=pl.col("start").min(), start=pl.col("start").unique()
    )
    # The first of them begins with the data.
    cohort = weeks["cohort"].value_counts().sort("count", "cohort").filter(
        pl.col("cohort") > weeks["cohort"].min()
    )["cohort"][-1]  # fmt: skip
    return {
        "retention": weeks.filter(cohort=cohort),
        "streaks": days.group_by("user_id", maintain_order=True).agg(
            pl.col("day").map_batches(
                longest_streak, return_dtype=pl.Int64, returns_scalar=True
            ).alias("days")
        ),
    }  # fmt: skip


def rows_of_the_population() -> tuple[Talk, dict[str, pl.DataFrame]]:
    """What the expression of each metric gives for everybody: a row for each person."""
    with world(population(), **attitudes()) as made:
        connection = made.connection()
        ends = connection.execute("SELECT min(ts_ms), max(ts_ms) FROM mart.messages").fetchone()
        talk = Talk(Filters(), *ends)
        found = people_of(connection) | {"languages": texts_of_people(np.random.default_rng(4))}
        for name in GROUPS.keys() - found.keys():
            chosen = tuple(sorted(CATALOGUE[name].check(PARAMETERS.get(name, {})).items()))
            query = compile_query(name, talk, chosen)
            found[name] = pl.DataFrame(connection.execute(query).to_arrow_table())
    words = found["lexical_diversity"]
    found["lexical_diversity"] = words.group_by(person=pl.col("side") // 2).agg(
        words=pl.struct(pl.all())
    )
    return talk, found


def coverage(name: str, talk: Talk, rows: pl.DataFrame, people: int, times: int) -> Covered:
    """Whether the truth lay in each interval of a metric, for draws of so many people."""
    metric, by = CATALOGUE[name], GROUPS[name]
    as_rows = AS_ROWS.get(name, lambda drawn: drawn)
    parameters = metric.check(PARAMETERS.get(name, {}))
    if "start" in by:  # one period, of which many people are
        busiest = rows.group_by("start").len().sort("len", "start")["start"][-1]
        rows = rows.filter(pl.col("start") == busiest)
    everybody = metric.finish(as_rows(rows), talk, **parameters)
    if name in AS_ROWS and "share" in everybody.columns:
        everybody = everybody.filter(pl.col("share").is_between(USUAL, 100, closed="left"))
    ends = [column.name[:-4] for column in metric.columns if column.name.endswith("_low")]
    keys = [key for key in KEYS if key in everybody.columns]
    truth = everybody.select(*keys, *(pl.col(end).alias(f"true {end}") for end in ends))
    groups = rows.partition_by(by, maintain_order=True) if by else [rows]
    rng = np.random.default_rng(people)
    covered: Covered = defaultdict(list)
    for _ in range(times):
        drawn = pl.concat([group[rng.integers(0, group.height, people)] for group in groups])
        answer = metric.finish(as_rows(drawn), talk, **parameters)
        both = answer.join(truth, on=keys, nulls_equal=True)
        for row in both.iter_rows(named=True):
            for end in ends:
                low, value, high = row[f"{end}_low"], row[f"true {end}"], row[f"{end}_high"]
                # Whoever counts nothing, or everything, is right about nobody and everybody.
                if low is not None and value is not None and value not in {0, 100}:
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
    for people, times in ((50, 150), (300, 50)):
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


@pytest.fixture(scope="module")
def real_people() -> pl.DataFrame:
    """Sums over everything that each person of the real data wrote."""
    spoken = [said for batch in chitchat.read() for said in batch.messages if said.role == "user"]
    messages = pl.DataFrame(
        [(str(m.user_id), m.content, m.sentiment_score) for m in score(spoken)],
        schema={"person": pl.String, "content": pl.String, "mood": pl.Float64},
        orient="row",
    ).with_row_index("id")
    with duckdb.connect(":memory:") as connection:
        measured = execute_with(
            connection,
            f"SELECT id, n_words AS words, is_question AS asks FROM ({MEASURED})",
            rows=messages.select("id", "content").to_arrow(),
        ).pl()
    sums = pl.col("words", "asks", "mood").sum().cast(pl.Float64)
    people = messages.join(measured, on="id").group_by("person", maintain_order=True)
    found = people.agg(pl.len().cast(pl.Float64).alias("n"), sums)
    return found.drop("person").with_columns(known=True)


@pytest.mark.slow
@pytest.mark.parametrize("people", [100, 300])
def test_people_who_are_drawn_from_the_real_data_tell_of_all_of_them(real_people, people):
    """200 draws of people with all that they wrote; one wrote a thirteenth of everything."""
    rows = real_people
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
