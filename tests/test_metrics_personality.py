"""Outcomes by version and style, against plain Python on raw messages and made-up profiles."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.talks import OTHERS, START, said, talk, talks, world
from tests.talks_by_hand import messages_of, sessions_of, smallest_reaching

WARM, DRY = {"warmth": 0.9, "wit": 3, "note": "x"}, {"warmth": 0.1, "wit": 9, "note": None}


def profile(name, version, traits, *, user=None, since=-1, until=None, context=None):
    """A profile that is active for some hours after `START`."""
    return {
        "profile_id": name, "user_id": user, "version": version, "traits": json.dumps(traits),
        "active_from": START + timedelta(hours=since),
        "active_until": None if until is None else START + timedelta(hours=until),
        "context": context,
    }  # fmt: skip


def rating(name, hours, value, *, user=None, conversation="c", event="e"):
    return {
        "event_id": event, "user_id": user, "conversation_id": conversation, "message_id": None,
        "kind": "rating", "name": name, "value": value, "metadata": None,
        "timestamp": START + timedelta(hours=hours),
    }  # fmt: skip


def table(name, rows):
    return pl.DataFrame(rows, schema=OTHERS[name], orient="row")


def ms(moment):
    return int(moment.timestamp() * 1000 + 0.0005)


def active(profiles, user, at_ms):
    """Their own version, else that for everybody; of several the one that came last."""
    held = [
        p for p in profiles
        if p["user_id"] in (user, None) and ms(p["active_from"]) <= at_ms
        and (p["active_until"] is None or at_ms < ms(p["active_until"]))
    ]  # fmt: skip
    own = [p for p in held if p["user_id"] is not None] or held
    return min(
        own,
        key=lambda p: (-ms(p["active_from"]), -p["version"], p["profile_id"]),
        default=None,
    )


def outcomes_by_hand(raw, profiles, ratings):
    """Every outcome with its profile and its person."""
    made, people = [], defaultdict(set)
    for message in messages_of(raw):
        people[message.conversation] |= {message.person} - {None}
    for session in sessions_of(messages_of(raw)):
        by_user = [m for m in session.messages if m.role == "user"]
        scores = [m.sentiment for m in by_user if m.sentiment is not None]
        held = session.person and active(profiles, session.person, session.started_ms)
        if not held:
            continue
        made.append(("messages of the user", float(len(by_user)), held, session.person))
        minutes = (session.ended_ms - session.started_ms) / 60_000
        made.append(("minutes", minutes, held, session.person))
        if scores:
            mood = sum(scores) / len(scores)
            made.append(("sentiment of the user", mood, held, session.person))
    for rated in ratings:
        person = rated["user_id"] or only(people[rated["conversation_id"]])
        held = person and active(profiles, person, ms(rated["timestamp"]))
        if held and rated["value"] is not None:
            made.append((f"feedback: {rated['name']}", rated["value"], held, person))
    return made


def means(found, group):
    groups = defaultdict(list)
    for outcome, value, held, person in found:
        for key in group(held):
            groups[*key, outcome].append((value, person))
    return {
        key: (len(values), len({p for _, p in values}), sum(v for v, _ in values) / len(values))
        for key, values in groups.items()
    }


def by_version(held):
    return [("own" if held["user_id"] else "everybody", held["version"])]


def assert_equal(answer, expected, *keys):
    rows = answer.pl()
    found = dict(
        zip(rows.select(*keys, "outcome").rows(), rows.select("n", "people", "value").rows(),
            strict=True)
    )  # fmt: skip
    assert found.keys() == expected.keys()
    for key, (n, people, value) in expected.items():
        assert found[key] == (n, people, pytest.approx(value, rel=1e-9, abs=1e-9)), key
    ends = rows.select("value_low", "value_high").drop_nulls()
    assert (ends["value_low"] <= ends["value_high"]).all()


_profiles = st.lists(
    st.tuples(
        st.sampled_from([None, None, "u", "v", "w"]), st.integers(1, 3),
        st.sampled_from([-1, 0, 0.5, 1, 24]), st.sampled_from([None, None, 0.5, 13, 200]),
        st.sampled_from([WARM, DRY, {}, {"warmth": 1 / 3}]),
    ),
    max_size=6,
)  # fmt: skip
_ratings = st.lists(
    st.tuples(
        st.sampled_from(["witty", "upbeat"]), st.sampled_from([-1, 0, 0.5, 1, 12.5, 30]),
        st.sampled_from([None, 1.0, 2.0, 10.0]), st.sampled_from([None, "u", "v"]),
        st.sampled_from([None, "c", "d", "e", "unknown"]),
    ),
    max_size=8,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=examples(14))
@given(talks(), _profiles, _ratings)
def test_sessions_and_ratings_belong_to_the_version_of_their_time(messages, drawn, said_of_it):
    profiles = [
        profile(f"p{i}", version, traits, user=user, since=since, until=until)
        for i, (user, version, since, until, traits) in enumerate(drawn)
    ]
    ratings = [
        rating(name, hours, value, user=user, conversation=conversation, event=f"e{i}")
        for i, (name, hours, value, user, conversation) in enumerate(said_of_it)
    ]
    others = {
        "personality_profiles": table("personality_profiles", profiles),
        "feedback_events": table("feedback_events", ratings),
    }
    found = outcomes_by_hand(messages, profiles, ratings)
    with world(messages, **others) as made:
        answer = made.ask("outcomes_by_profile")
        assert_equal(answer, means(found, by_version), "whose", "version")
        levels = {json.loads(p["traits"]).get("wit") for p in profiles} - {None}

        def by_style(held):
            traits = json.loads(held["traits"])
            parts = []
            if (warmth := traits.get("warmth")) is not None:
                part = "low" if warmth < 1 / 3 else "middle" if warmth < 2 / 3 else "high"
                parts.append(("warmth", part))
            if "wit" in traits:  # 3 and 9, unless there is only one of them
                both = "low" if traits["wit"] == 3 else "high"
                parts.append(("wit", both if len(levels) > 1 else "middle"))
            return parts

        answer = made.ask("outcomes_by_style")
        assert_equal(answer, means(found, by_style), "trait", "part")
        assert_feedback(made, ratings)


def only(people):
    return next(iter(people)) if len(people) == 1 else None


def feedback_by_hand(raw, ratings):
    people = defaultdict(set)
    for message in messages_of(raw):
        people[message.conversation] |= {message.person} - {None}
    found = defaultdict(list)
    for rated in ratings:
        if rated["value"] is not None:
            found[rated["name"]].append(rated)
    rows = []
    for name, rated in sorted(found.items()):
        values = [r["value"] for r in rated]
        of = {r["user_id"] or only(people[r["conversation_id"]]) for r in rated}
        rows.append(
            (name, len(values), len({r["conversation_id"] for r in rated} - {None}),
             len(of - {None}), sum(values) / len(values),
             *(smallest_reaching(values, share) for share in (0.25, 0.5, 0.75)))
        )  # fmt: skip
    return rows


def assert_feedback(made, ratings):
    columns = ["name", "n", "conversations", "people", "mean", "q25", "median", "q75"]
    rows = made.ask("feedback").pl().select(columns).rows()
    expected = feedback_by_hand(made.messages, ratings)
    assert len(rows) == len(expected)
    for one, other in zip(rows, expected, strict=True):
        assert one[0] == other[0]
        assert one[1:] == pytest.approx(other[1:])


def two_people():
    return talk(
        said(0, user="u", sentiment=0.5),
        said(60, "assistant", user=None),
        said(120, user="u", sentiment=-0.1),
        said(90_000, user="u", sentiment=0.3),
        said(0, conversation="d", user="w", sentiment=-0.4),
        said(30, "assistant", conversation="d", user=None),
    )


@pytest.mark.slow
def test_ones_own_version_goes_before_that_for_everybody():
    """Until it ends; what is rated in no conversation is of whom it names."""
    profiles = [
        profile("all", 1, WARM), profile("us", 2, DRY, user="u", until=1),
        profile("over", 9, DRY, user="w", since=-5, until=-1),
        profile("evenings", 4, DRY, user="u", context="evening"),
    ]  # fmt: skip
    ratings = [
        rating("witty", 0.5, 8, event="1"),
        rating("witty", 2, 2, event="2"),
        rating("witty", 0.5, 5, user="w", conversation=None, event="3"),
    ]
    with world(
        two_people(),
        personality_profiles=table("personality_profiles", profiles),
        feedback_events=table("feedback_events", ratings),
    ) as made:
        answer = made.ask("outcomes_by_profile")
        rows = answer.pl().select("whose", "version", "outcome", "n", "people", "value").rows()
        expected = [
            ("everybody", 1, "feedback: witty", 2, 2, 3.5),
            ("everybody", 1, "messages of the user", 2, 2, 1.0),
            ("everybody", 1, "minutes", 2, 2, 0.25),
            ("everybody", 1, "sentiment of the user", 2, 2, -0.05),
            ("own", 2, "feedback: witty", 1, 1, 8.0),
            ("own", 2, "messages of the user", 1, 1, 2.0),
            ("own", 2, "minutes", 1, 1, 2.0),
            ("own", 2, "sentiment of the user", 1, 1, 0.2),
        ]
        assert [row[:5] for row in rows] == [row[:5] for row in expected]
        assert [row[5] for row in rows] == pytest.approx([row[5] for row in expected])
        assert "2 versions" in answer.finding
        assert answer.finding.startswith("Too little data: 2 people, where 10 are needed")
        answer.plot().to_dict()
        styles = made.ask("outcomes_by_style")
        assert set(styles.pl().select("trait", "part").rows()) == {
            ("warmth", "high"), ("warmth", "low"), ("wit", "low"), ("wit", "high"),
        }  # fmt: skip
        styles.plot().to_dict()
        # The session of the second day only; the rating of the first one is gone, too.
        later = made.ask("outcomes_by_profile", filters={"since": "2024-03-31T12:00"}).pl()
        assert later["n"].to_list() == [1, 1, 1]
        of_w = made.ask("outcomes_by_profile", filters={"user": "w"}).pl()
        assert set(of_w["people"]) == {1}


@pytest.mark.slow
def test_a_session_that_goes_on_after_the_period_counts_whole():
    """With the mood of all its messages."""
    spoken = talk(said(7000, sentiment=0.5), said(7300, sentiment=-0.5))
    with world(
        spoken, personality_profiles=table("personality_profiles", [profile("all", 1, {})])
    ) as made:
        answer = made.ask("outcomes_by_profile", filters={"until": "2024-03-30"}).pl()
    assert dict(answer.select("outcome", "value").rows()) == {
        "messages of the user": 2, "minutes": 5, "sentiment of the user": 0,
    }  # fmt: skip


def test_ratings_by_what_was_rated():
    """Means with an interval over people, and quantiles that are values."""
    ratings = [
        rating("witty", 0, value, conversation=conversation, event=str(i))
        for i, (value, conversation) in enumerate(
            [(1.0, "a"), (2.0, "a"), (10.0, "b"), (None, "b"), (3.0, None), (9.0, "c")]
        )
    ]
    spoken = talk(said(0), said(0, conversation="a"), said(0, conversation="b", user=None))
    with world(spoken, feedback_events=table("feedback_events", ratings)) as made:
        answer = made.ask("feedback")
        row = answer.pl().row(0, named=True)
        answer.plot().to_dict()
        assert made.ask("feedback", filters={"min_cell": 6}).left_out == 1
    # Of `u`, in conversations `a` and `c`; of `b`, where nobody is known; and of no conversation.
    assert (row["n"], row["conversations"], row["people"], row["mean"]) == (5, 3, 1, 5.0)
    assert (row["q25"], row["median"], row["q75"]) == (2, 3, 9)
    assert row["mean_low"] is None  # of three units


def test_a_rating_in_a_group_is_of_nobody_unless_it_names_its_person():
    """Which of the two gave it is unknown."""
    spoken = talk(*(said(at, user=user) for at, user in enumerate(["u", "w"])))
    ratings = [
        rating("witty", 2, 4, event="1"), rating("witty", 2, 8, user="w", event="2"),
    ]  # fmt: skip
    with world(
        spoken,
        personality_profiles=table("personality_profiles", [profile("all", 1, WARM)]),
        feedback_events=table("feedback_events", ratings),
    ) as made:
        rated = made.ask("feedback").pl().select("n", "people", "mean").rows()
        outcomes = made.ask("outcomes_by_profile").pl().filter(outcome="feedback: witty")
    assert rated == [(2, 1, 6.0)]
    assert outcomes.select("n", "people", "value").rows() == [(1, 1, 8.0)]
