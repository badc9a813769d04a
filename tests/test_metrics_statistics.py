"""Quantiles and intervals, against numpy's own and a jackknife that is written out."""

from __future__ import annotations

import math
import subprocess
import sys

import duckdb
import ibis
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from aico_lab.metrics.engine.intervals import Statistic, estimate, mean, percent, wilson
from aico_lab.metrics.engine.quantiles import median_interval, quantiles
from tests.effort import examples
from tests.talks_by_hand import median_interval_by_hand

MEAN = {"mean": mean("total", "count")}
STATISTICS_OF_SHARES = {"share": percent("part", "count")}
STATISTICS = {**MEAN, **STATISTICS_OF_SHARES, "amount": mean("total", "count", scale="log")}
SHARES = {"p1": 1, "p50": 500, "p95": 950, "p99": 990, "p100": 1000}

values = st.lists(
    st.tuples(st.sampled_from("ab"), st.none() | st.integers(-5, 5) | st.integers(0, 2**40)),
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=examples(30))
@given(values)
def test_quantiles_are_those_of_the_inverted_distribution(drawn):
    rows = pl.DataFrame(drawn, schema={"side": pl.String, "ms": pl.Int64}, orient="row")
    table = ibis.table({"side": "string", "ms": "int64"}, name="incoming")
    query = str(
        ibis.to_sql(quantiles(table, "ms", by=["side"], per_mille=SHARES), dialect="duckdb")
    )
    with duckdb.connect() as connection:
        connection.register("incoming", rows.to_arrow())
        found = {row["side"]: row for row in connection.sql(query).pl().to_dicts()}
    for side in "ab":
        known = [ms for name, ms in drawn if name == side and ms is not None]
        if not known:
            assert side not in found
            continue
        assert found[side]["n"] == len(known)
        for name, share in SHARES.items():
            expected = np.quantile(known, share / 1000, method="inverted_cdf")
            assert found[side][name] == expected


def test_a_quantile_of_many_values_is_not_one_off():
    """0.07 times 100 is a little more than 7 for a computer."""
    table = ibis.table({"g": "int64", "v": "int64"}, name="incoming")
    query = str(ibis.to_sql(quantiles(table, "v", by=["g"], per_mille={"p": 70}), dialect="duckdb"))
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE incoming AS SELECT 0 AS g, range + 1 AS v FROM range(100)")
        assert connection.sql(query).fetchall() == [(0, 100, 7)]


def sums(seed=3, units=40):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        [
            {
                "side": side,
                "known": bool(unit % 3),
                "total": float(rng.gamma(4, 2)),
                "part": float(rng.integers(0, 4)),
                "count": float(4 + unit % 5),
            }
            for side in ("x", "y")
            for unit in range(units)
            if side == "x" or unit % 2
        ]
    )


def by_leaving_out(rows, numerator, to, back):
    """The interval of a ratio, written out: each unit is left out in turn."""
    total, count = rows[numerator].sum(), rows["count"].sum()
    n = rows.height
    without = [
        to((total - row[numerator]) / (count - row["count"])) for row in rows.iter_rows(named=True)
    ]
    apart = np.array(without) - to(total / count)
    squares = (apart**2).sum()
    # Satterthwaite: the variance of a variance of n values, by their kurtosis.
    kurtosis = n * (apart**4).sum() / squares**2
    freedom = min(n - 1, 2 * n / (kurtosis - (n - 3) / (n - 1)))
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(squares * (n - 1) / n)
    return back(to(total / count) - reach), back(to(total / count) + reach)


def test_a_ratio_is_that_of_all_sums_and_its_interval_leaves_out_each_unit_in_turn():
    rows = sums()
    found = estimate(rows, by=["side"], unit="people", statistics=STATISTICS)
    for side in ("x", "y"):
        mine, line = rows.filter(side=side), found.filter(side=side).row(0, named=True)
        assert (line["people"], line["_units"]) == (mine["known"].sum(), mine.height)
        for name, numerator, to, back in (
            ("mean", "total", float, float),
            ("amount", "total", math.log, math.exp),
            ("share", "part", special.logit, special.expit),
        ):
            whole = 100 if name == "share" else 1
            low, high = by_leaving_out(mine, numerator, to, back)
            assert line[name] == pytest.approx(whole * mine[numerator].sum() / mine["count"].sum())
            assert line[f"{name}_low"] == pytest.approx(whole * low)
            assert line[f"{name}_high"] == pytest.approx(whole * high)


def test_units_count_whole():
    """Messages of one person that are all alike are one observation and not a hundred."""
    rows = pl.DataFrame({"part": [0.0, 100.0] * 10, "count": [100.0] * 20, "known": True})
    line = estimate(rows, by=[], unit="people", statistics=STATISTICS_OF_SHARES).row(0, named=True)
    assert line["share"] == 50
    assert line["share_high"] - line["share_low"] > 40
    alone = estimate(
        pl.DataFrame({"part": [0.0, 1.0] * 1000, "count": [1.0] * 2000, "known": True}),
        by=[], unit="people", statistics=STATISTICS_OF_SHARES,
    ).row(0, named=True)  # fmt: skip
    assert alone["share_high"] - alone["share_low"] < 5


@pytest.mark.parametrize(("part", "least", "most"), [(0.0, 0, 20), (5.0, 80, 100)])
def test_a_share_of_nothing_or_everything_has_an_interval_too(part, least, most):
    rows = pl.DataFrame({"part": [part] * 20, "count": [5.0] * 20, "known": True})
    line = estimate(rows, by=[], unit="people", statistics=STATISTICS_OF_SHARES).row(0, named=True)
    assert least <= line["share_low"] < line["share_high"] <= most
    one = rows.with_columns(part=pl.Series([1.0] + [0.0] * 19))
    line = estimate(one, by=[], unit="people", statistics=STATISTICS_OF_SHARES).row(0, named=True)
    assert 0 <= line["share_low"] < 1 < line["share_high"] < 15


def test_people_who_contribute_nothing_are_not_counted():
    rows = sums(units=30).filter(side="x").drop("side").with_columns(
        count=pl.when(pl.col("count") > 4).then("count").otherwise(0),
        total=pl.when(pl.col("count") > 4).then("total").otherwise(0),
    )  # fmt: skip
    line = estimate(rows, by=[], unit="people", statistics=MEAN).row(0, named=True)
    others = estimate(rows.filter(pl.col("count") > 0), by=[], unit="people", statistics=MEAN)
    assert line["_units"] == 24
    assert line["mean_low"] == pytest.approx(others["mean_low"][0])


def test_what_compares_two_parts_rests_on_the_units_of_the_smaller_one():
    """Twelve people did one thing and five the other: that is too few for an interval."""
    rows = pl.DataFrame({"a": [2.0] * 12, "b": [1.0] * 5 + [0.0] * 7, "known": True})
    compared = Statistic(lambda sums: sums["a"] / sums["b"], ("a", "b"), "log")
    line = estimate(rows, by=[], unit="people", statistics={"x": compared}).row(0, named=True)
    assert (line["_units"], line["x_low"], line["x_high"]) == (5, None, None)


def test_silent_units_are_units_whose_sums_are_0():
    """A week in which nobody wrote changes no ratio when it is left out, but is a week."""
    rows = sums(units=30).filter(side="x").drop("side")
    found = estimate(rows, by=[], unit="weeks", statistics=MEAN, silent=8).row(0, named=True)
    ratio = rows["total"].sum() / rows["count"].sum()
    left = (rows["total"].sum() - rows["total"]) / (rows["count"].sum() - rows["count"]) - ratio
    apart = np.append(left.to_numpy(), np.zeros(8))
    kurtosis = 38 * (apart**4).sum() / (apart**2).sum() ** 2
    freedom = min(37, 2 * 38 / (kurtosis - 35 / 37))
    reach = stats.t.ppf(0.975, freedom) * math.sqrt((apart**2).sum() * 37 / 38)
    assert found["_units"] == 30
    assert found["mean_high"] == pytest.approx(ratio + reach)


def test_one_unit_with_much_of_everything_is_noticed():
    rows = pl.DataFrame({"total": [1.0] * 19 + [81.0], "count": [1.0] * 19 + [81.0]})
    line = estimate(
        rows.with_columns(known=True), by=[], unit="people", statistics=MEAN
    ).row(0, named=True)  # fmt: skip
    assert line["_most"] == 81


def test_the_same_rows_in_another_order_have_the_same_interval():
    rows = sums()
    one = estimate(rows, by=["side"], unit="people", statistics=STATISTICS)
    for seed in range(5):
        other = rows.sample(fraction=1, shuffle=True, seed=seed)
        assert estimate(other, by=["side"], unit="people", statistics=STATISTICS).equals(one)


def test_what_cannot_be_known_is_null():
    few = pl.DataFrame(
        {
            "side": ["alone", "none", "none", None],
            "known": [True, True, False, False],
            "total": [3.0, 0.0, 0.0, 1.0],
            "count": [2, 0, 0, 1],
        }
    )
    found = estimate(few, by=["side"], unit="people", statistics=MEAN)
    lines = {row["side"]: row for row in found.to_dicts()}
    assert lines["alone"]["mean"] == 1.5
    assert lines["alone"]["mean_low"] is None
    assert lines["none"]["mean"] is None
    assert lines["none"]["mean_high"] is None
    assert lines["none"]["people"] == 0
    assert lines["alone"]["people"] == 1
    assert lines[None]["mean"] == 1
    alike = pl.DataFrame({"total": [2.0] * 40, "count": [1.0] * 40, "known": True})
    same = estimate(alike, by=[], unit="people", statistics=MEAN).row(0, named=True)
    assert (same["mean"], same["mean_low"]) == (2, None)
    empty = estimate(few.head(0), by=["side"], unit="people", statistics=MEAN)
    assert empty.is_empty()
    assert set(empty.columns) >= {"side", "mean", "mean_low", "mean_high", "people", "_units"}


def median_of(rows, by=("side",)):
    schema = {"side": "string", "unit": "string", "user_id": "string", "v": "int64"}
    table = ibis.table(schema, name="incoming")
    query = str(ibis.to_sql(median_interval(table, "v", by=list(by)), dialect="duckdb"))
    with duckdb.connect() as connection:
        connection.register("incoming", rows.to_arrow())
        return connection.sql(query).pl()


def people_with_values(rng, people, side="x"):
    levels, counts = rng.normal(100, 20, people), np.ceil(rng.lognormal(1.5, 1, people)).astype(int)
    values = [rng.normal(level, 30, n) for level, n in zip(levels, counts, strict=True)]
    unit = np.repeat(np.arange(people), counts)
    return pl.DataFrame(
        {"side": side, "unit": unit, "user_id": unit, "v": np.concatenate(values).round()},
        schema={"side": pl.String, "unit": pl.String, "user_id": pl.String, "v": pl.Int64},
        strict=False,
    )


@pytest.mark.slow
def test_the_interval_of_a_median_is_woodruffs():
    for seed, people in ((1, 12), (2, 40), (3, 150)):
        rows = people_with_values(np.random.default_rng(seed), people)
        line = median_of(rows).row(0, named=True)
        expected = median_interval_by_hand(rows["v"].to_list(), rows["unit"].to_list())
        assert (line["low"], line["high"]) == expected
        assert (line["units"], line["people"]) == (people, people)
    few = median_of(people_with_values(np.random.default_rng(4), 9)).row(0, named=True)
    assert (few["low"], few["high"], few["units"]) == (None, None, 9)


@pytest.mark.slow
@pytest.mark.parametrize("people", [50, 300])
def test_the_interval_of_a_median_covers_it_about_as_often_as_it_says(people):
    rng = np.random.default_rng(people)
    drawn = [people_with_values(rng, people, side=str(at)) for at in range(400)]
    found = median_of(pl.concat(drawn))
    covered = ((found["low"] <= 100) & (found["high"] >= 100)).mean()
    assert 0.92 - 0.027 <= covered <= 0.97 + 0.02


@pytest.mark.slow
def test_five_million_units_need_little_memory():
    """Measured in a process of its own, beyond what the rows themselves need."""
    program = """
import resource, numpy as np, polars as pl
from aico_lab.metrics.engine.intervals import Statistic, estimate, mean, percent, wilson
rng = np.random.default_rng(0)
n = 5_000_000
rows = pl.DataFrame({"side": np.arange(n) % 2, "part": rng.integers(0, 4, n),
                     "count": rng.integers(4, 9, n), "known": np.ones(n, bool)})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
estimate(rows, by=["side"], unit="people", statistics={
    "share": percent("part", "count"), "mean": mean("part", "count", scale="log")})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 500


@pytest.mark.parametrize(("part", "whole"), [(1, 2), (1, 3), (7, 10), (1, 10)])
def test_a_share_that_is_the_same_in_all_people_has_no_interval(part, whole):
    """As with means: people who are all alike tell nothing of how others differ."""
    size = np.arange(1.0, 41)
    rows = pl.DataFrame({"part": part * size, "count": whole * size, "known": True})
    line = estimate(rows, by=[], unit="people", statistics=STATISTICS_OF_SHARES).row(0, named=True)
    assert line["share"] == pytest.approx(100 * part / whole)
    assert (line["share_low"], line["share_high"]) == (None, None)
    means = {name: STATISTICS[name] for name in ("mean", "amount")}
    rows = rows.rename({"part": "total"})
    line = estimate(rows, by=[], unit="people", statistics=means).row(0, named=True)
    assert [line[f"{name}{end}"] for name in means for end in ("_low", "_high")] == [None] * 4


def test_the_interval_of_a_share_of_none_begins_at_none():
    for n in range(1, 200):
        ends = wilson(np.array([0.0, 1.0]), np.array([n, n]), np.array([1.96, 1.96]))
        assert (ends[0][0], ends[1][1]) == (0, 1)
        assert ends[1][0] > 0
        assert ends[0][1] < 1


def test_people_of_a_comparison_are_those_of_the_side_of_fewer():
    rows = pl.DataFrame({"a": [2.0] * 12, "b": [1.0] * 5 + [0.0] * 7, "known": True})
    compared = Statistic(lambda sums: sums["a"] / sums["b"], ("a", "b"), "log")
    line = estimate(rows, by=[], unit="people", statistics={"x": compared}).row(0, named=True)
    assert line["_people_x"] == 5
    line = estimate(rows, by=[], unit="conversations", statistics={"x": compared})
    assert line["_people_x"][0] == 1
