"""Coordination and distinguishing words, against plain Python and against the papers' formulas."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings

from aico_lab.errors import InvalidValue
from aico_lab.metrics.markers import MARKERS
from tests.effort import examples
from tests.talks import START, said, talk, talks, world
from tests.talks_by_hand import (
    assert_rows,
    grouped,
    mean,
    messages_of,
    real_messages,
    turns_of,
)
from tests.text_by_hand import small_words_of

ALL = 258_145


def coordination_by_hand(raw, min_exchanges):
    exchanges = defaultdict(list)
    for _, turns in grouped(turns_of(messages_of(raw)), lambda t: (t.conversation, t.session)):
        for first, reply in pairwise(turns):
            if first.role != reply.role:
                pair = [{w for m in turn.messages for w in m.words} for turn in (first, reply)]
                exchanges[reply.role, reply.person].append(pair)
    rows = []
    for role in ("assistant", "user"):
        people = {p: e for (r, p), e in exchanges.items() if r == role and len(e) >= min_exchanges}
        values, times = defaultdict(dict), Counter()
        for marker, words in MARKERS.items():
            for person, pairs in people.items():
                has = [(not f.isdisjoint(words), not r.isdisjoint(words)) for f, r in pairs]
                given = [reply for first, reply in has if first]
                if given:
                    values[marker][person] = mean(given) - mean(reply for _, reply in has)
                    times[marker] += len(given)
        overall = [
            (person, mean(v[person] for v in values.values() if person in v))
            for person in people
            if any(person in v for v in values.values())
        ]
        if overall:
            n = sum(len(people[person]) for person, _ in overall)
            rows.append((role, "all classes", n, len(overall), mean(v for _, v in overall)))
        for marker, found in values.items():
            rows.append((role, marker, times[marker], len(found), mean(found.values())))
    columns = ("role", "marker", "n", "people", "coordination")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def words_by_hand(raw, top, prior, min_people):
    times = {"user": Counter(), "assistant": Counter()}
    people, everybody = defaultdict(set), set()
    for message in messages_of(raw):
        times[message.role].update(message.words)
        everybody.add(message.person or "")
        for word in message.words:
            people[word].add(message.person or "")
    totals = {role: counted.total() for role, counted in times.items()}
    if not all(totals.values()):
        return []
    rows = []
    for word, known_to in people.items():
        if len(known_to) < min_people <= len(everybody):
            continue
        user, assistant = (times[role][word] for role in ("user", "assistant"))
        alpha = prior * (user + assistant) / sum(totals.values())
        odds = []
        for role, y in (("user", user), ("assistant", assistant)):
            rest = totals[role] + prior - y - alpha
            odds.append(math.log((y + alpha) / rest) if rest > 0 else math.nan)
        difference = odds[0] - odds[1]
        z = difference / math.sqrt(1 / (user + alpha) + 1 / (assistant + alpha))
        row = {"word": word, "n": user + assistant, "by_user": user, "by_assistant": assistant}
        rows.append(row | {"people": len(known_to), "log_odds": difference, "z": z})
    users = sorted((r for r in rows if r["z"] > 1e-9), key=lambda r: (-r["z"], r["word"]))
    others = sorted((r for r in rows if r["z"] < -1e-9), key=lambda r: (r["z"], r["word"]))
    return [{"role": "assistant"} | r for r in others[:top]] + [
        {"role": "user"} | r for r in users[:top]
    ]


def assert_words(answer, expected):
    """Words of equal z-scores may have changed places by the last digit of a float."""
    assert [(r["role"], r["z"]) for r in answer.pl().to_dicts()] == [
        (r["role"], pytest.approx(r["z"])) for r in expected
    ]
    found = {row["word"]: row for row in answer.pl().to_dicts()}
    for row in expected:
        if row["word"] in found:
            assert found[row["word"]] == pytest.approx(row)


@pytest.mark.slow
@settings(max_examples=examples(15), deadline=None)
@given(talks(60))
def test_they_are_what_plain_python_finds(messages):
    with world(messages) as made:
        coordinated = made.ask("coordination", min_exchanges=2)
        assert_rows(coordinated, coordination_by_hand(messages, 2))
        words = made.ask("distinguishing_words", top=4, prior=10, min_people=3)
        assert_words(words, words_by_hand(messages, 4, 10, 3))


@pytest.mark.parametrize("count", [2_000, pytest.param(ALL, marks=pytest.mark.slow)])
def test_they_are_what_plain_python_finds_in_real_conversations(count):
    with world(real_messages(count)) as made:
        assert_rows(made.ask("coordination"), coordination_by_hand(made.messages, 5))
        words = made.ask("distinguishing_words")
        assert_words(words, words_by_hand(made.messages, 20, 500, 5))
        assert words.pl()["people"].min() >= 5


def exchange(number, first, reply, user="u"):
    """What somebody writes and what the companion replies."""
    return [
        said(120 * number, content=first, user=user, conversation=user),
        said(120 * number + 5, "assistant", reply, user=None, conversation=user),
    ]


def test_coordination_is_the_papers_difference_of_probabilities():
    """The companion replies with an article after 2 of 2 articles, and in 3 of 4 replies."""
    spoken = [
        *exchange(0, "the cat", "a dog"),
        *exchange(1, "An owl", "THE owl"),
        *exchange(2, "cats", "the dogs"),
        *exchange(3, "dogs", "cats"),
    ]
    with world(talk(*spoken)) as made:
        found = made.ask("coordination", min_exchanges=4).pl().to_dicts()
        articles = [row for row in found if row["marker"] == "articles"]
        assert [(r["role"], r["n"], r["people"]) for r in articles] == [("assistant", 2, 1)]
        assert articles[0]["coordination"] == pytest.approx(2 / 2 - 3 / 4)
        # No other class occurs: that of all classes is the same; the user replied three times.
        assert [(r["role"], r["n"], r["marker"]) for r in found] == [
            ("assistant", 4, "all classes"),
            ("assistant", 2, "articles"),
        ]
        both = made.ask("coordination", min_exchanges=3).pl()
        user = both.filter((both["role"] == "user") & (both["marker"] == "articles"))
        # After the companion's three articles the user's replies have one, as in general.
        assert user.select("n", "coordination").rows() == [(3, pytest.approx(1 / 3 - 1 / 3))]
        assert made.ask("coordination", min_exchanges=5).pl().is_empty()


def test_every_person_weighs_the_same_however_much_they_write():
    spoken = [*exchange(0, "the", "the"), *exchange(1, "cat", "cat")]  # 1 - 1/2
    spoken += [
        message
        for number in range(8)  # 0 - 0
        for message in exchange(number, "a", "dog", user="v")
    ]
    with world(talk(*spoken)) as made:
        found = made.ask("coordination", min_exchanges=2, filters={"role": "assistant"}).pl()
        articles = found.row(1, named=True)
        assert (articles["marker"], articles["people"], articles["n"]) == ("articles", 2, 9)
        assert articles["coordination"] == pytest.approx((1 / 2 + 0) / 2)
        assert articles["coordination_low"] == 0
        assert articles["coordination_high"] == 1 / 2
        one = made.ask("coordination", min_exchanges=2, filters={"user": "u"}).pl()
        assert set(one["people"]) == {1}


def test_a_reply_after_a_long_silence_is_none():
    spoken = [said(0, content="the"), said(1801, "assistant", "the", user=None)]
    with world(talk(*spoken)) as made:
        assert made.ask("coordination", min_exchanges=1).pl().is_empty()


def test_the_classes_are_those_of_the_paper_in_words_as_messages_have_them():
    assert list(MARKERS) == [
        "articles", "auxiliary verbs", "conjunctions", "frequent adverbs", "indefinite pronouns",
        "personal pronouns", "prepositions", "quantifiers",
    ]  # fmt: skip
    for words in MARKERS.values():
        assert all(small_words_of(word) == [word] for word in words)
    for marker, word in {
        "articles": "the", "auxiliary verbs": "don't", "conjunctions": "because",
        "frequent adverbs": "really", "indefinite pronouns": "that's", "personal pronouns": "i'm",
        "prepositions": "with", "quantifiers": "many",
    }.items():  # fmt: skip
        assert word in MARKERS[marker]
    assert "i'm" in MARKERS["auxiliary verbs"]
    assert not {"it's", "cat", "ill", "well", "were"} & set(MARKERS["personal pronouns"])


SPOKEN = talk(
    said(0, content="hello hello world"),
    said(5, "assistant", "hello there", user=None),
    said(10, content="hello"),
)


def test_log_odds_and_z_are_the_papers():
    """By hand: 4 words of the user (hello 3), 2 of the companion (hello 1); a prior of 6 words."""
    with world(SPOKEN) as made:
        rows = made.ask("distinguishing_words", prior=6.0).pl().rows_by_key("word", named=True)
        hello = rows["hello"][0]
        # Its share in all 6 words is 4/6, so that 4 of the prior's 6 words are "hello".
        expected = math.log((3 + 4) / (4 + 6 - 3 - 4)) - math.log((1 + 4) / (2 + 6 - 1 - 4))
        assert hello["log_odds"] == pytest.approx(expected)
        assert hello["z"] == pytest.approx(expected / math.sqrt(1 / 7 + 1 / 5))
        assert (hello["role"], hello["n"], hello["people"]) == ("user", 4, 1)
        assert rows["there"][0]["role"] == "assistant"
        assert rows["there"][0]["z"] < 0
        assert len(made.ask("distinguishing_words", top=1)) == 2
        users = made.ask("distinguishing_words", filters={"role": "user"}).pl()
        assert set(users["word"]) == {"hello", "world"}


def test_a_larger_prior_says_less():
    with world(SPOKEN) as made:
        z = [made.ask("distinguishing_words", prior=p).pl()["z"].abs().max() for p in (1, 10, 1e4)]
    assert z == sorted(z, reverse=True)


def test_what_few_people_say_stays_theirs_unless_there_are_few():
    people = [
        message
        for number, person in enumerate("abcde")
        for message in exchange(number, f"common only{person}", "fine", user=person)
    ]
    with world(talk(*people)) as made:
        assert made.ask("distinguishing_words").pl()["word"].to_list() == ["fine", "common"]
        few = made.ask("distinguishing_words", filters={"user": ["a", "b", "c", "d"]}).pl()
        assert "onlya" in few["word"].to_list()
        assert "onlya" in made.ask("distinguishing_words", min_people=1).pl()["word"].to_list()
        counts = made.ask("distinguishing_words").pl()["n"].to_list()
        assert counts == [5, 5]


def test_one_side_alone_is_compared_with_nothing():
    with world(talk(said(0), said(10))) as made:
        assert made.ask("distinguishing_words").pl().is_empty()
    with world(SPOKEN) as made:
        late = made.ask("distinguishing_words", filters={"since": START.replace(second=10)})
        assert late.pl().is_empty()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("coordination", {"min_exchanges": 0}),
        ("distinguishing_words", {"top": 0}),
        ("distinguishing_words", {"min_people": 0}),
        ("distinguishing_words", {"prior": 0}),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(name, parameters):
    with world(SPOKEN) as made, pytest.raises(InvalidValue, match=f"{next(iter(parameters))} is"):
        made.ask(name, **parameters)
