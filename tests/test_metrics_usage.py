"""Mood, vocabulary, languages and preferences, each against plain Python on raw messages."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings

from aico_lab.errors import InvalidValue
from tests.effort import examples
from tests.talks import World, said, talk, talks, world
from tests.talks_by_hand import grouped, messages_of, real_messages, turns_of


@pytest.fixture(scope="module")
def real():
    made = World(real_messages(6_000))
    yield made
    made.close()


def mean(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def same(found, expected):
    """Whether rows of numbers are equal, but for rounding."""
    assert len(found) == len(expected), (found, expected)
    for one, other in zip(found, expected, strict=True):
        for value, wanted in zip(one, other, strict=True):
            near = isinstance(wanted, float) and value is not None
            wanted_ = pytest.approx(wanted, rel=1e-7, abs=1e-9) if near else wanted
            assert value == wanted_, (one, other)
    return True


def is_inside_its_interval(answer, *names):
    for row in answer.pl().iter_rows(named=True):
        for name in names:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert (low is None) == (high is None)
            assert low is None or low <= high
    return True


# The level


def sentiment_by_hand(raw):
    made = []
    for role, messages in sorted(grouped(messages_of(raw), lambda m: m.role)):
        scores = [m.sentiment for m in messages if m.sentiment is not None]
        n = len(scores)
        made.append((
            role, n, mean(scores),
            100 * sum(s >= 0.05 for s in scores) / n if n else None,
            100 * sum(s <= -0.05 for s in scores) / n if n else None,
            100 * n / len(messages),
        ))  # fmt: skip
    return made


def assert_sentiment(made):
    answer = made.ask("sentiment")
    columns = ["role", "n", "mean", "positive", "negative", "scored"]
    assert same(answer.pl().select(columns).rows(), sentiment_by_hand(made.messages))
    assert is_inside_its_interval(answer, "mean", "positive", "negative")


@settings(max_examples=examples(25), deadline=None)
@given(talks())
def test_the_mood_is_the_mean_of_what_is_scored(messages):
    with world(messages) as made:
        assert_sentiment(made)


def test_the_mood_of_real_people(real):
    assert_sentiment(real)


def test_scores_at_the_thresholds_are_positive_and_negative():
    """0.05 is, and 0.0499 is not; what has no score is in no share."""
    scores = [0.05, 0.0499, 0.0, -0.05, -0.0499, None, None, None]
    with world(talk(*(said(i, sentiment=score) for i, score in enumerate(scores)))) as made:
        row = made.ask("sentiment").pl().row(0, named=True)
    assert (row["n"], row["positive"], row["negative"], row["scored"]) == (5, 20, 20, 62.5)
    assert row["mean_low"] is None  # of one conversation


# The course


def trajectory_by_hand(raw, steps):
    found = defaultdict(list)
    for _, turns in grouped(turns_of(messages_of(raw)), lambda t: t.conversation):
        for place, turn in enumerate(turns):
            if len(turns) >= steps:
                step = next(s for s in range(1, steps + 1) if place < s * len(turns) / steps)
                found[turn.role, step].append(turn)
    rows = []
    for (role, step), turns in sorted(found.items()):
        scores = [m.sentiment for t in turns for m in t.messages if m.sentiment is not None]
        conversations = len({t.conversation for t in turns})
        rows.append((role, step, len(scores), conversations, mean(scores)))
    return rows


def assert_trajectory(made, steps):
    answer = made.ask("sentiment_trajectory", steps=steps)
    columns = ["role", "step", "n", "conversations", "mean"]
    assert same(answer.pl().select(columns).rows(), trajectory_by_hand(made.messages, steps))
    assert is_inside_its_interval(answer, "mean")


@settings(max_examples=examples(25), deadline=None)
@given(talks())
def test_turns_are_put_into_equal_parts(messages):
    with world(messages) as made:
        for steps in (1, 3, 4):
            assert_trajectory(made, steps)


def test_the_course_of_real_conversations(real):
    assert_trajectory(real, 10)


def test_a_conversation_of_five_turns_in_two_parts():
    """Turns 0, 1, 2 are the first part (2 * 2 // 5 = 0), 3 and 4 the second."""
    turns = [(0.1, "user"), (0.2, "assistant"), (0.3, "user"), (0.4, "assistant"), (0.5, "user")]
    spoken = [said(i, role, sentiment=score) for i, (score, role) in enumerate(turns)]
    with world(talk(*spoken, said(0, conversation="short"))) as made:
        answer = made.ask("sentiment_trajectory", steps=2).pl()
        assert same(
            answer.select("role", "step", "begins", "n", "mean").rows(),
            [
                ("assistant", 1, 0, 1, 0.2), ("assistant", 2, 50, 1, 0.4),
                ("user", 1, 0, 2, 0.2), ("user", 2, 50, 1, 0.5),
            ],
        )  # fmt: skip
        for steps in (0, -1, 1001):
            with pytest.raises(InvalidValue, match="1 to 1000"):
                made.ask("sentiment_trajectory", steps=steps)


# The transfer


def transfer_by_hand(raw):
    pairs, triples = defaultdict(list), defaultdict(list)
    for _, turns in grouped(turns_of(messages_of(raw)), lambda t: (t.conversation, t.session)):
        moods = [mean(m.sentiment for m in turn.messages) for turn in turns]
        for i in range(1, len(turns)):
            if turns[i].role == turns[i - 1].role or None in moods[i - 1 : i + 1]:
                continue
            pairs[turns[i].role].append((moods[i - 1], moods[i]))
            if i > 1 and turns[i].role == turns[i - 2].role and moods[i - 2] is not None:
                triples[turns[i].role].append((moods[i - 1], moods[i - 2], moods[i]))
    made = []
    for role, found in sorted(pairs.items()):
        x, y = np.array(found).T
        varies = np.ptp(x) > 1e-9
        given_own = None
        if triples[role]:
            first, own, answer = np.array(triples[role]).T
            design = np.column_stack([np.ones_like(first), first, own])
            if np.linalg.matrix_rank(design) == 3:
                given_own = np.linalg.lstsq(design, answer)[0][1]
        made.append((
            role, len(found), np.corrcoef(x, y)[0, 1] if varies and np.ptp(y) > 1e-9 else None,
            np.polyfit(x, y, 1)[0] if varies else None, len(triples[role]), given_own,
        ))  # fmt: skip
    return made


def assert_transfer(made):
    answer = made.ask("sentiment_transfer")
    columns = ["role", "n", "r", "slope", "triples", "slope_given_own"]
    assert same(answer.pl().select(columns).rows(), transfer_by_hand(made.messages))
    assert is_inside_its_interval(answer, "r", "slope", "slope_given_own")


@settings(max_examples=examples(40), deadline=None)
@given(talks(max_size=40))
def test_a_turn_goes_with_the_turn_before_it(messages):
    with world(messages) as made:
        assert_transfer(made)


def test_the_transfer_among_real_people(real):
    assert_transfer(real)


def test_an_answer_that_halves_what_it_heard():
    """The companion answers with half; the person says what comes to mind."""
    heard = [0.8, -0.4, 0.2, -1.0, 0.6]
    spoken = []
    for i, score in enumerate(heard):
        spoken += [said(2 * i, sentiment=score), said(2 * i + 1, "assistant", sentiment=score / 2)]
    with world(talk(*spoken)) as made:
        answers = made.ask("sentiment_transfer").pl().row(0, named=True)
    assert (answers["role"], answers["n"], answers["triples"]) == ("assistant", 5, 4)
    assert answers["r"] == pytest.approx(1)
    assert answers["slope"] == answers["slope_given_own"] == pytest.approx(0.5)


def test_equal_moods_have_no_correlation():
    """Where nothing varies, sums leave a rounding error, which is no variance."""
    spoken = [said(i, ("user", "assistant")[i % 2], sentiment=0.1) for i in range(30)]
    with world(talk(*spoken)) as made:
        answer = made.ask("sentiment_transfer").pl()
    assert answer.select("r", "slope", "slope_given_own").rows() == [(None, None, None)] * 2


def test_turns_of_other_people_are_no_neighbours_when_they_are_filtered_away():
    """What the companion says to `v` does not answer `u`."""
    spoken = talk(
        said(0, user="u", sentiment=0.5),
        said(1, user="v", sentiment=-0.5),
        said(2, "assistant", user=None, sentiment=-0.6),
        said(3, user="u", sentiment=0.4),
        said(4, "assistant", user=None, sentiment=0.3),
    )
    with world(spoken) as made:
        everybody = made.ask("sentiment_transfer").pl()
        only_u = made.ask("sentiment_transfer", filters={"user": "u"}).pl()
    assert dict(everybody.select("role", "n").rows()) == {"assistant": 2, "user": 1}
    assert dict(only_u.select("role", "n").rows()) == {"assistant": 1}
