"""Logged decisions and their outcomes, read from the warehouse."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from aico_lab.errors import InvalidValue, UnknownName
from aico_lab.metrics.engine.filters import Filters
from aico_lab.personality.log import read_log
from aico_lab.personality.outcomes import OUTCOMES
from tests.talks import OTHERS, START, said, talk, world

HOUR, DAY = 3600, 86_400


def decision(message, seconds, arm="warm", **changes):
    return {
        "message_id": message, "user_id": "u", "conversation_id": "c", "profile_id": None,
        "policy": "greedy", "context": None, "features": None, "arms": None, "arm": arm,
        "propensity": 0.5, "propensity_kind": "exact",
        "decided_at": START + timedelta(seconds=seconds), "simulated": False,
    } | changes  # fmt: skip


def rating(message, seconds, value, scale=None):
    return {
        "event_id": f"{message}-{seconds}", "user_id": "u", "conversation_id": "c",
        "message_id": message, "kind": "rating", "name": "good", "value": value,
        "timestamp": START + timedelta(seconds=seconds),
        "metadata": None if scale is None else json.dumps({"scale": scale}),
    }  # fmt: skip


MESSAGES = talk(
    said(0, sentiment=-0.5),
    said(10, sentiment=0.1),
    said(20, "assistant"),  # m3
    said(20 + HOUR / 4, content="one two three", sentiment=0.4),
    said(20 + HOUR / 2, content="one", sentiment=0.6),
    said(2 * DAY, "assistant"),  # m6, unanswered for days
    said(6 * DAY, conversation="d"),
    said(20 * DAY - HOUR, "assistant"),  # m8, whose windows are not over
    said(20 * DAY),
)
DECISIONS = [
    decision("m3", 20, arms='{"warm": 0.5, "a/b": 0.25, "it\'s": 0.25}', features='{"n": 2}'),
    decision("m6", 2 * DAY, "a/b", features="[7]", context="evening"),
    decision("m8", 20 * DAY - HOUR),
]


def read(outcome="satisfaction", decisions=DECISIONS, feedback=(), messages=MESSAGES, **filters):
    others = {
        "personality_decisions": pl.DataFrame(
            decisions, schema=OTHERS["personality_decisions"], orient="row"
        ),
        "feedback_events": pl.DataFrame(
            list(feedback), schema=OTHERS["feedback_events"], orient="row"
        ),
    }
    with world(messages, **others) as made:
        return read_log(made, outcome, Filters(**filters))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("sentiment_change", [0.5 - -0.2, None, None]),
        ("reply_latency", [0.25, 24, None]),
        ("session_continues", [1, 0, 1]),  # its window of half an hour is over
        ("returns_within_day", [0, 0, None]),
        ("returns_within_week", [1, 1, None]),
        ("disclosure_length", [2, None, None]),
    ],
)
def test_an_outcome_is_measured_in_its_window_and_censored_if_the_data_end_before(
    outcome, expected
):
    if outcome == "session_continues":
        expected[2] = 0  # the next message comes after an hour
    found = read(outcome)
    np.testing.assert_allclose(found.reward, np.array(expected, dtype=float), rtol=1e-12)
    assert found.outcome is OUTCOMES[outcome]
    if outcome == "reply_latency":  # known as soon as the reply is there
        after = (found.known_by - found.time_ms)[found.observed]
        np.testing.assert_array_equal(after / 3_600_000, found.reward[found.observed])


def test_feedback_is_scaled_by_its_declared_scale_and_left_out_beyond_it():
    feedback = [
        rating("m3", 30, 1), rating("m3", 40, 3, [1, 5]), rating("m3", 50, 9, [1, 5]),
        rating("m3", 60, 4, [5, 5]), rating("m3", 8 * DAY, -1), rating("m8", 20 * DAY, 1),
    ]  # fmt: skip
    found = read(feedback=feedback)
    np.testing.assert_allclose(found.reward, [0.75, np.nan, np.nan])
    rated_ms = int((START + timedelta(seconds=40)).timestamp() * 1000)
    assert found.known_by.tolist()[:2] == [rated_ms, found.time_ms[1] + 7 * DAY * 1000]


@pytest.mark.parametrize(
    ("feedback", "expected", "left_out"),
    [
        ([rating("m3", 30, 1), rating("m6", 3 * DAY, 5)], [np.nan, np.nan], 2),
        ([rating("m3", 30, 1), rating("m6", 3 * DAY, 5, [1, 5])], [1, 1], 0),
        ([rating("m3", 30, 1, [5, 1]), rating("m3", 31, 1, [None, 5])], [np.nan, np.nan], 2),
        ([rating("m3", 30, 1, {"lo": 1}), rating("m3", 31, 1, [0, 1, 2])], [np.nan, np.nan], 2),
        ([rating("m3", 19, -1), rating("m3", 30, 1)], [1, np.nan], 0),
        ([rating("m3", 30, -1) | {"user_id": "v"}, rating("m3", 31, 1)], [1, np.nan], 0),
        ([rating("m3", 30, 1) | {"user_id": None}], [1, np.nan], 0),
    ],
)
def test_feedback_counts_only_by_its_person_on_a_known_scale_after_the_message(
    feedback, expected, left_out
):
    """If some value of a name is beyond -1..1, a 1 on the unknown scale may be the worst."""
    found = read(feedback=feedback)
    np.testing.assert_allclose(found.reward[:2], expected)
    assert found.unscaled == left_out


def test_an_answer_in_the_session_that_the_companion_began_is_no_return():
    messages = talk(
        said(0), said(3 * DAY, "assistant"), said(3 * DAY + 60), said(30 * DAY), said(60 * DAY)
    )
    for outcome in ("returns_within_day", "returns_within_week"):
        found = read(outcome, [decision("m2", 3 * DAY)], messages=messages)
        assert found.reward.tolist() == [0], outcome


def test_arms_probabilities_and_features_are_read_whatever_their_names():
    found = read()
    assert found.arms == ["a/b", "it's", "warm"]
    assert found.arm.tolist() == [2, 0, 2]
    assert found.contexts == ["any", "evening"]
    assert found.names == ["0", "n"]
    np.testing.assert_array_equal(found.features[:2], [[np.nan, 2], [7, np.nan]])
    np.testing.assert_array_equal(found.probabilities[0], [0.25, 0.25, 0.5])
    assert np.isnan(found.probabilities[1:]).all()
    assert (found.policies, found.profiles, found.people) == (["greedy"], ["none"], ["u"])
    assert (found.simulated, found.generation) == (False, 7)


def test_filters_choose_decisions():
    assert len(read(since="2024-04-10")) == 1
    assert len(read(until="2024-03-31")) == 1
    assert len(read(user="u")) == 3
    assert len(read(channel="d")) == 0


def test_decisions_in_the_future_are_left_out_and_counted():
    far = decision("m3", 2000 * DAY)
    found = read(decisions=[*DECISIONS, far])
    assert (len(found), found.ahead) == (len(DECISIONS), 1)
    assert found.time_ms.max() == read().time_ms.max()


def test_simulated_decisions_are_not_mixed_with_others():
    some = [*DECISIONS[:2], DECISIONS[2] | {"simulated": True}]
    with pytest.raises(InvalidValue, match="nothing compares them"):
        read(decisions=some)
    assert read(decisions=[one | {"simulated": True} for one in DECISIONS]).simulated


def test_a_home_without_decisions_has_an_empty_log():
    found = read(decisions=[])
    assert (len(found), list(found.arms), list(found.people)) == (0, [], [])


def test_an_unknown_outcome_is_an_error():
    with pytest.raises(UnknownName, match="No outcome is called 'joy'; these are: satisfaction"):
        read("joy")
