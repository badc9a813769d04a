"""Who has how much of the talk, who asks, and what follows a bad moment, against plain Python."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings

from aico_lab.errors import InvalidValue
from tests.effort import examples
from tests.talks import START, said, talk, talks, world
from tests.talks_by_hand import (
    assert_rows,
    grouped,
    mean,
    messages_of,
    real_messages,
    smallest_reaching,
    turns_of,
)

MANY = 20_000


def balance_by_hand(messages):
    users, everybody = defaultdict(int), defaultdict(int)
    two_sided = one_sided = 0
    for _, turns in grouped(turns_of(messages), lambda t: t.conversation):
        if len({t.role for t in turns}) == 1:
            one_sided += 1
            continue
        two_sided += 1
        for turn in turns:
            words = sum(len(m.words) for m in turn.messages)
            for name, n in (("turns", 1), ("messages", len(turn.messages)), ("words", words)):
                everybody[name] += n
                users[name] += n * (turn.role == "user")
    return [
        {
            "measure": name,
            "n": everybody[name],
            "share": 100 * users[name] / everybody[name] if everybody[name] else None,
            "conversations": two_sided,
            "one_sided": one_sided,
        }
        for name in (("turns", "messages", "words") if two_sided or one_sided else ())
    ]


def by_role(messages):
    return sorted(grouped(messages, lambda m: m.role))


def questions_by_hand(messages):
    return [
        {
            "role": role,
            "n": len(said_by),
            "questions": sum(m.asks for m in said_by),
            "share": 100 * mean(m.asks for m in said_by),
        }
        for role, said_by in by_role(messages)
    ]


def lengths_by_hand(messages):
    rows = []
    for role, said_by in by_role(messages):
        words = [len(m.words) for m in said_by]
        median, long = (smallest_reaching(words, share) for share in (0.5, 0.95))
        rows.append({"role": role, "n": len(words), "words": mean(words), "p50": median})
        rows[-1]["p95"] = long
    return rows


def mood(turn):
    return mean(m.sentiment for m in turn.messages if m.sentiment is not None)


def recovery_by_hand(messages):
    pairs = defaultdict(list)
    for _, turns in grouped(turns_of(messages), lambda t: (t.conversation, t.session)):
        for one, between, after in zip(turns, turns[1:], turns[2:], strict=False):
            moods = mood(one), mood(after)
            if one.role == after.role != between.role and None not in moods:
                pairs[one.role].append(tuple(round(m, 9) <= -0.05 for m in moods))
    rows = []
    for role, found in sorted(pairs.items()):
        after_negative = [not then for first, then in found if first]
        recovered = mean(after_negative)
        baseline = mean(not then for first, then in found if not first)
        known = recovered is not None and bool(baseline)
        rows.append(
            {
                "role": role,
                "n": len(after_negative),
                "recovered": None if recovered is None else 100 * recovered,
                "baseline": None if baseline is None else 100 * baseline,
                "lift": recovered / baseline if known else None,
            }
        )
    return rows


BY_HAND = {
    "balance": balance_by_hand,
    "questions": questions_by_hand,
    "message_length": lengths_by_hand,
    "mood_recovery": recovery_by_hand,
}


def assert_all_as_by_hand(raw):
    messages = messages_of(raw)
    with world(raw) as made:
        for name, by_hand in BY_HAND.items():
            assert_rows(made.ask(name), by_hand(messages))


@pytest.mark.slow
@settings(max_examples=examples(9))
@given(talks(60))
def test_they_are_what_plain_python_finds(messages):
    assert_all_as_by_hand(messages)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2_000, pytest.param(MANY, marks=pytest.mark.slow)])
def test_they_are_what_plain_python_finds_in_real_conversations(count):
    assert_all_as_by_hand(real_messages(count))


@pytest.mark.slow
def test_of_two_sides_each_has_its_share_and_monologues_are_counted_apart():
    with world(
        talk(
            said(0, content="one two three"),
            said(10, content="four"),
            said(20, "assistant", "five", user=None),
            said(0, conversation="d", user="w", content="nobody there"),
            said(0, "assistant", conversation="e", user="v"),
        )
    ) as made:
        found = made.ask("balance").pl()
        assert found.select("measure", "n", "share", "conversations", "one_sided").rows() == [
            ("turns", 2, 50, 1, 2),
            ("messages", 3, pytest.approx(200 / 3), 1, 2),
            ("words", 5, 80, 1, 2),
        ]
        alone = made.ask("balance", filters={"user": "w"})
        assert alone.pl().select("n", "share", "one_sided").rows() == [(0, None, 1)] * 3
        assert alone.finding == "Too little data: 1 conversation, all one-sided"
        alone.plot().to_dict()
        with pytest.raises(InvalidValue, match="leave out the role"):
            made.ask("balance", filters={"role": "user"})


def test_an_address_asks_nothing_and_a_question_within_a_message_does():
    with world(
        talk(
            said(0, content="see http://a.b/?q=1"),
            said(1, content="Why? I do not know"),
            said(2, content="真的？"),  # noqa: RUF001
            said(3, content="no"),
            said(4, "assistant", '"Who?" she asked', user=None),
        )
    ) as made:
        found = made.ask("questions").pl()
        assert found.select("role", "n", "questions", "share").rows() == [
            ("assistant", 1, 1, 100),
            ("user", 4, 2, 50),
        ]
        later = made.ask("questions", filters={"role": "user", "since": START.replace(second=2)})
        assert later.pl().select("n", "share").rows() == [(2, 50)]


def test_messages_without_words_are_of_no_words():
    contents = ["…", "one", "one two", "don't stop", "a b c d e f g"]
    with world(talk(*(said(at, content=text) for at, text in enumerate(contents)))) as made:
        found = made.ask("message_length").pl().row(0, named=True)
    assert (found["n"], found["words"], found["p50"], found["p95"]) == (5, 12 / 5, 2, 7)


def moods(*scores, gap=60):
    """A user's and a companion's messages in turn, with these sentiments."""
    return talk(
        *(
            said(at * gap, "assistant" if at % 2 else "user", sentiment=score)
            for at, score in enumerate(scores)
        )
    )


def test_recovery_compares_what_follows_negative_turns_with_what_follows_others():
    # The user's turns: -0.5, 0.2, -0.05, -0.3, 0.0, 0.1: three are followed after being negative,
    # and two after not being so.
    with world(moods(-0.5, 0, 0.2, 0, -0.05, 0, -0.3, 0, 0.0, 0, 0.1)) as made:
        user = made.ask("mood_recovery", filters={"role": "user"}).pl().row(0, named=True)
        assert user["n"] == 3
        assert user["recovered"] == pytest.approx(200 / 3)
        assert user["baseline"] == 50
        assert user["lift"] == pytest.approx(4 / 3)
        companion = made.ask("mood_recovery", filters={"role": "assistant"}).pl().row(0, named=True)
        assert (companion["n"], companion["recovered"], companion["baseline"]) == (0, None, 100)


@pytest.mark.slow
def test_a_mean_of_exactly_the_threshold_is_negative_in_whatever_order_it_is_added():
    scores = [0.1, 0.2, 0.3, -0.8, -0.05]  # -0.05 in the mean, and by floats a little beside it
    for shift in range(len(scores)):
        turn = [said(at, sentiment=s) for at, s in enumerate(scores[shift:] + scores[:shift])]
        after = [said(10, "assistant", user=None), said(20, sentiment=0.5)]
        with world(talk(*turn, *after)) as made:
            assert made.ask("mood_recovery").pl().select("n", "recovered").rows() == [(1, 100)]


@pytest.mark.slow
def test_a_silence_a_missing_score_or_another_person_in_between_is_no_pair():
    for messages in (
        moods(-0.5, 0, 0.5, gap=1801),
        moods(-0.5, 0, None),
        moods(None, 0, 0.5),
        talk(said(0, sentiment=-0.5), said(1, user="v"), said(2, sentiment=0.5)),
    ):
        with world(messages) as made:
            answer = made.ask("mood_recovery")
            assert answer.pl().is_empty()
            assert answer.finding == "There are no data for an answer."


def test_turns_that_a_filter_leaves_out_still_lie_between():
    """Of u, companion, v and u the last one is not the next but one of the first."""
    group = talk(
        said(0, sentiment=-0.5),
        said(1, "assistant", user=None),
        said(2, user="v"),
        said(3, user="u", sentiment=0.5),
    )
    with world(group) as made:
        assert made.ask("mood_recovery", filters={"user": "u"}).pl().is_empty()
        assert made.ask("mood_recovery").pl()["n"].to_list() == [1]
