"""Quantiles and intervals, against numpy's own and a bootstrap that is written out."""

from __future__ import annotations

import duckdb
import ibis
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aico_lab.metrics import intervals
from aico_lab.metrics.intervals import bootstrap, ratio
from aico_lab.metrics.quantiles import quantiles
from tests.effort import examples

MEAN = {"mean": ratio("total", "count")}
SHARES = {"p1": 1, "p50": 500, "p95": 950, "p99": 990, "p100": 1000}

values = st.lists(
    st.tuples(st.sampled_from("ab"), st.none() | st.integers(-5, 5) | st.integers(0, 2**40)),
    max_size=60,
)


@settings(max_examples=examples(60), deadline=None)
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
            {"side": side, "who": f"u{unit}", "total": float(rng.normal(5, 2)), "count": 1}
            for side in ("x", "y")
            for unit in range(units)
            if side == "x" or unit % 2
        ]
    )


def test_a_ratio_is_that_of_all_sums_and_its_interval_that_of_drawn_units():
    rows = sums()
    found = bootstrap(rows, by=["side"], unit="who", statistics=MEAN)
    names = sorted(rows["who"].unique())
    rng = np.random.default_rng(intervals.SEED)
    draws = [rng.integers(0, len(names), len(names)) for _ in range(intervals.REPLICATES)]
    for side in ("x", "y"):
        mine = {row["who"]: row for row in rows.filter(side=side).to_dicts()}
        total = sum(row["total"] for row in mine.values())
        line = found.filter(side=side).row(0, named=True)
        assert line["n"] == len(mine)
        assert line["mean"] == pytest.approx(total / len(mine))
        means = []
        for draw in draws:
            drawn = [mine[names[u]] for u in draw if names[u] in mine]
            means.append(sum(r["total"] for r in drawn) / len(drawn))
        low, high = np.percentile(means, intervals.LEVEL)
        assert (line["mean_low"], line["mean_high"]) == pytest.approx((low, high))


@pytest.mark.slow
def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        rows = sums(seed, units=60).filter(side="x")
        line = bootstrap(rows, by=["side"], unit="who", statistics=MEAN).row(0, named=True)
        covered += line["mean_low"] <= 5 <= line["mean_high"]
    assert 180 <= covered <= 199


def test_units_are_drawn_whole():
    """Ten messages of one person that are all alike are one observation and not ten."""
    rows = pl.DataFrame(
        {"who": ["a", "b"], "total": [0.0, 100.0], "count": [100, 100]}
    )  # a wrote only zeros, b only ones
    line = bootstrap(rows, by=[], unit="who", statistics=MEAN).row(0, named=True)
    assert (line["mean"], line["mean_low"], line["mean_high"]) == (0.5, 0.0, 1.0)


def test_the_same_rows_in_another_order_have_the_same_interval():
    rows = sums()
    one = bootstrap(rows, by=["side"], unit="who", statistics=MEAN)
    other = bootstrap(
        rows.sample(fraction=1, shuffle=True, seed=1), by=["side"], unit="who", statistics=MEAN
    )
    assert one.equals(other)


def test_what_cannot_be_known_is_null():
    rows = pl.DataFrame(
        {
            "side": ["alone", "none", "none", None],
            "who": ["a", "a", "b", None],
            "total": [3.0, 0.0, 0.0, 1.0],
            "count": [2, 0, 0, 1],
        }
    )
    found = bootstrap(rows, by=["side"], unit="who", statistics=MEAN)
    lines = {row["side"]: row for row in found.to_dicts()}
    assert lines["alone"]["mean"] == 1.5
    assert lines["alone"]["mean_low"] is None
    assert lines["none"]["mean"] is None
    assert lines["none"]["mean_high"] is None
    assert lines[None]["mean"] == 1
    empty = bootstrap(rows.head(0), by=["side"], unit="who", statistics=MEAN)
    assert empty.is_empty()
    assert empty.schema == found.schema
