"""Observation without experiments: styles and ratings, and the change of a version."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.metrics.personality import version_change_fit as segmented
from tests.talks import START, said, talk, world
from tests.test_metrics_personality import DRY, WARM, profile, rating, table
from tests.test_metrics_wording import coordination_by_hand

PEOPLE = 14
TEXTS = ("the dog is here", "is it so?", "we and you", "a very good day to you", "awful")


@pytest.fixture(scope="module")
def rated():
    """Conversations of some people, each with five exchanges and a rating."""
    rng = np.random.default_rng(3)
    messages, ratings = [], []
    for person in range(PEOPLE):
        for number in range(person % 4 + 1):
            name, begins = f"p{person}c{number}", 86_400 * number
            for turn in range(10):
                role = "user" if turn % 2 == 0 else "assistant"
                text = " ".join(rng.choice(TEXTS, rng.integers(1, 4)))
                user = f"u{person}" if role == "user" else None
                messages.append(
                    said(begins + 60 * turn, role, text, conversation=name, user=user,
                         sentiment=float(rng.normal()))
                )  # fmt: skip
            for quality in ("witty", "upbeat"):
                value = float(rng.integers(1, 11))
                ratings.append(
                    rating(quality, 24 * number + 1, value, conversation=name,
                           event=f"{name}{quality}")
                )  # fmt: skip
    with world(talk(*messages), feedback_events=table("feedback_events", ratings)) as made:
        yield made, ratings


def style_by_hand(raw, conversation):
    """Return the companion's style in a conversation, in plain Python."""
    rows = [row for row in raw.to_dicts() if row["conversation_id"] == conversation]
    by_companion = [row for row in rows if row["role"] == "assistant"]
    frame = raw.filter(conversation_id=conversation)
    classes = [
        row for row in coordination_by_hand(frame, 5)
        if row["role"] == "assistant" and row["marker"] == "all classes"
    ]  # fmt: skip
    return {
        "verbosity": np.mean([len(row["content"].split()) for row in by_companion]),
        "questions": np.mean(["?" in row["content"] for row in by_companion]),
        "positivity": np.mean([row["sentiment_score"] for row in by_companion]),
        "coordination": classes[0]["coordination"] if classes else np.nan,
    }


@pytest.mark.slow
def test_style_and_ratings_equals_pandas(rated):
    """Within and between people, for every style and rating."""
    made, ratings = rated
    frame = pd.DataFrame(
        {"person": one["conversation_id"].split("c")[0], "rating": one["name"], "y": one["value"]}
        | style_by_hand(made.messages, one["conversation_id"])
        for one in ratings
    )
    answer = made.ask("style_and_ratings")
    assert answer.pl().height == 8
    for row in answer.pl().iter_rows(named=True):
        rows = frame[frame["rating"] == row["rating"]].dropna(subset=[row["style"]])
        both = rows[["person", row["style"], "y"]]
        apart = both.drop(columns="person") - both.groupby("person").transform("mean")
        means = both.groupby("person").mean()
        assert row["n"] == len(rows)
        assert row["people"] == len(means)
        assert row["people_within"] == (both.groupby("person").size() > 1).sum()
        assert row["within"] == pytest.approx(stats.pearsonr(*apart.to_numpy().T)[0])
        assert row["between"] == pytest.approx(stats.pearsonr(*means.to_numpy().T)[0])
        assert row["within_low"] < row["within"] < row["within_high"]
    answer.plot().to_dict()
    assert answer.finding.startswith("None of 16 associations of style and ratings is clearly")
    assert answer.finding.endswith("(uncertain: 10 people)")


@pytest.mark.slow
def test_style_and_ratings_under_filters(rated):
    """A conversation counts as a whole, whenever it was rated; few people claim nothing."""
    made, _ratings = rated
    whole = made.ask("style_and_ratings").pl()
    first = made.ask("style_and_ratings", filters={"until": "2024-03-30"}).pl()
    assert set(first["n"]) == {PEOPLE}
    assert set(first["people_within"]) == {0}
    assert first["within"].null_count() == 8
    one = made.ask("style_and_ratings", filters={"user": "u3"})
    assert set(one.pl()["n"]) == {4}
    assert one.finding == "Too little data: 1 person, where 10 are needed"
    one.plot().to_dict()
    assert made.ask("style_and_ratings", min_messages=6).pl().is_empty()
    few = made.ask("style_and_ratings", filters={"min_people": 12})
    assert few.pl()["within"].null_count() == 8
    assert few.pl()["between"].equals(whole["between"])


def test_a_style_that_never_varies_has_no_correlation():
    """And no chart of it fails."""
    messages = [
        said(60 * turn, "assistant" if turn % 2 else "user", "hi", conversation=f"c{person}",
             user=None if turn % 2 else f"u{person}")
        for person in range(12) for turn in range(10)
    ]  # fmt: skip
    ratings = [
        rating("witty", 1, float(person), conversation=f"c{person}", event=str(person))
        for person in range(12)
    ]
    with world(talk(*messages), feedback_events=table("feedback_events", ratings)) as made:
        answer = made.ask("style_and_ratings")
    assert answer.pl()["between"].null_count() == answer.pl().height
    assert answer.finding.startswith("Too little data")
    answer.plot().to_dict()


def people_who_differ(rng, number):
    """Rows of the expression for people with few or many conversations, and slopes of their own."""
    rows = []
    for person in range(number):
        n = min(int(np.ceil(rng.lognormal(1, 1))), 60)
        own, general = rng.multivariate_normal([0, 0], [[1, 0.3], [0.3, 1]])
        apart = rng.normal(size=n)
        slope = 0.4 + 0.4 * rng.normal()
        y = np.clip(np.round(5.5 + 1.2 * general + slope * apart + 2 * rng.normal(size=n)), 1, 10)
        x = own + apart
        dx, dy = x - x.mean(), y - y.mean()
        rows.append(
            {"style": "verbosity", "rating": "witty", "user_id": str(person), "n": n,
             "x": x.mean(), "y": y.mean(), "within_xx": dx @ dx, "within_xy": dx @ dy,
             "within_yy": dy @ dy}
        )  # fmt: skip
    return pl.DataFrame(rows)


@pytest.mark.slow
def test_intervals_of_style_and_ratings_cover_the_truth():
    """Of 50 people; the truth is that of many."""
    rng = np.random.default_rng(0)
    metric = CATALOGUE["style_and_ratings"]
    truth = metric.finish(people_who_differ(rng, 6_000), None, min_messages=5).row(0, named=True)
    covered = {"within": 0, "between": 0}
    for _ in range(150):
        found = metric.finish(people_who_differ(rng, 50), None, min_messages=5).row(0, named=True)
        for name in covered:
            covered[name] += found[f"{name}_low"] <= truth[name] <= found[f"{name}_high"]
    assert all(136 <= times <= 149 for times in covered.values()), covered


def series(rng, periods, autocorrelation):
    """Return errors of an AR(1) process with variance 1."""
    errors = rng.normal(size=periods)
    for at in range(1, periods):
        errors[at] = autocorrelation * errors[at - 1] + errors[at] * (1 - autocorrelation**2) ** 0.5
    return errors


def test_a_segmented_fit_equals_one_with_whole_matrices():
    """The mixture over autocorrelations, with a gap in the series."""
    rng = np.random.default_rng(1)
    places = np.delete(np.arange(30.0), [7, 20, 21])
    values = 0.1 * places + 2.0 * (places >= 15) + rng.normal(size=len(places))
    found = segmented.fit(values, places, 15.0)
    after = (places >= 15) * 1.0
    design = np.column_stack([places**0, places - 15, after, after * (places - 15)])
    weights, parts = [], []
    for rho in np.arange(-6, 20) / 20:
        apart = np.abs(places[:, None] - places)
        shape = np.where(apart == 0, 1.0, np.sign(rho) ** apart * np.abs(rho) ** apart)
        inverse = np.linalg.inv(shape)
        information = design.T @ inverse @ design
        best = np.linalg.solve(information, design.T @ inverse @ values)
        rest = values - design @ best
        variance = rest @ inverse @ rest / (len(places) - 4)
        weights.append(
            np.linalg.det(shape) ** -0.5 * np.linalg.det(information) ** -0.5
            * variance ** (-(len(places) - 4) / 2)
        )  # fmt: skip
        parts.append((best[2], np.sqrt(np.linalg.inv(information)[2, 2] * variance)))
    weights = np.array(weights) / np.sum(weights)
    level, low, high = found.level
    assert level == pytest.approx(sum(w * m for w, (m, _) in zip(weights, parts, strict=True)))
    for end, share in ((low, 0.025), (high, 0.975)):
        below = sum(
            w * stats.t.cdf(end, len(places) - 4, m, s)
            for w, (m, s) in zip(weights, parts, strict=True)
        )
        assert below == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("autocorrelation", [0.0, 0.6])
def test_the_interval_of_a_change_covers_the_truth(autocorrelation):
    """In series of 24 periods, whose line goes on."""
    rng, places = np.random.default_rng(5), np.arange(24.0)
    covered = 0
    for _ in range(120):
        values = 1 + 0.05 * places + series(rng, 24, autocorrelation)
        _, low, high = segmented.fit(values, places, 12.0).level
        covered += low <= 0 <= high
    assert covered >= 108


def weeks(counts):
    return talk(
        *(
            said(week * 604_800 + 600 * number, conversation=f"c{number}", user=f"u{number % 12}")
            for week, count in enumerate(counts)
            for number in range(count)
        )
    )


def versions(*hours):
    rows = [
        profile(f"v{number}", number, DRY if number % 2 else WARM, since=since)
        for number, since in enumerate(hours, 1)
    ]
    return {"personality_profiles": table("personality_profiles", rows)}


WEEK = 24 * 7


def test_a_jump_at_the_change_of_a_version_is_found():
    """In words of association; the week of the change itself is not used."""
    rng = np.random.default_rng(0)
    counts = [*rng.poisson(6, 18), *rng.poisson(30, 18)]
    with world(weeks(counts), **versions(-1, 18 * WEEK)) as made:
        answer = made.ask("version_change")
        sentiment = made.ask("version_change", measure="sentiment")
        early = made.ask("version_change", filters={"until": "2024-09-01"})
        first = made.ask("version_change", version="1")
    row = answer.pl().row(0, named=True)
    assert (row["before"], row["after"], row["version"]) == (17, 16, 2)
    assert row["changed"] == (START + timedelta(hours=18 * WEEK)).date()
    assert 0 < row["level_low"] < row["level"] < row["level_high"]
    assert answer.pl().filter(phase="of the change")["fitted"].null_count() == 1
    assert answer.finding.startswith(
        "The level of messages changed with version 2 of 3 August 2024"
    )
    assert "an association in time, not an effect" in answer.finding
    assert "a season looks the same, in less than two years" in answer.finding
    answer.plot().to_dict()
    assert sentiment.finding.startswith("Too little data: sentiment never varied")
    sentiment.plot().to_dict()
    assert early.finding.startswith("Too little data: 4 complete weeks, where 12 are needed after")
    early.plot().to_dict()
    assert first.pl().is_empty()
    assert first.finding.startswith("No version of the personality replaced another")


def test_no_other_change_lies_in_the_series_of_a_change():
    """It begins with the version before, and ends with the next one."""
    with world(weeks([3] * 40), **versions(-1, 10 * WEEK, 25 * WEEK)) as made:
        last, second = made.ask("version_change"), made.ask("version_change", version=2)
        none = made.ask("version_change", filters={"until": "2024-05-01"})
    assert last.pl().row(0, named=True)["before"] == 14
    assert second.pl().select("before", "after").row(0) == (9, 14)
    assert none.pl().is_empty()


def test_a_version_that_did_not_reach_the_only_person_is_no_change():
    """A person with an own version does not get those for everybody until it ends."""
    shared = [profile("s1", 1, DRY, until=10 * WEEK), profile("s2", 2, WARM, since=10 * WEEK)]
    own = profile("own", 1, WARM, user="u1", since=-2)
    ended = profile("own", 1, WARM, user="u1", since=-2, until=5 * WEEK)
    for version, expected in ((own, None), (ended, 2)):
        rows = table("personality_profiles", [*shared, version])
        with world(weeks([3] * 40), personality_profiles=rows) as made:
            alone = made.ask("version_change", filters={"user": "u1"})
            everybody = made.ask("version_change")
        found = None if alone.pl().is_empty() else alone.pl()["version"][0]
        assert (found, everybody.pl()["version"][0]) == (expected, 2)


def test_no_version_no_change():
    with world(weeks([1] * 3)) as made, pytest.raises(InvalidValue, match="number of a version"):
        made.ask("version_change", version="last")
    with world(weeks([1] * 3)) as made:
        assert made.ask("version_change").pl().is_empty()
    with world(pl.DataFrame(schema=weeks([1]).schema)) as made:
        assert made.ask("version_change").finding.startswith("There are no messages yet")


def test_a_single_phase_is_drawn_on_an_axis_from_zero():
    """An axis of one value has no ticks but a wrong 0."""
    with world(weeks([3] * 14)) as made:
        answer = made.ask("change_points", measure="sentiment")
    assert answer.pl().height == 1
    assert answer.plot().to_dict()["layer"][0]["encoding"]["y"]["scale"] == {"zero": True}
