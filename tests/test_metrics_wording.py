"""Coordination and distinguishing words, against plain Python and against the papers' formulas."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings

from aico_lab.errors import InvalidValue
from aico_lab.messages.function_words import FUNCTION_WORDS, MARKERS
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
    """By formula, with the variance between people as a sum over people, written out."""
    times = {"user": Counter(), "assistant": Counter()}
    units = defaultdict(lambda: {"user": Counter(), "assistant": Counter()})
    people, everybody = defaultdict(set), set()
    messages = messages_of(raw)
    several = len({m.person for m in messages if m.person is not None}) > 1
    for message in messages:
        named = several and message.person is not None
        unit = ("p", message.person) if named else ("c", message.conversation)
        times[message.role].update(message.words)
        units[unit][message.role].update(message.words)
        named_here = {message.person} - {None}
        everybody |= named_here
        for word in message.words:
            people[word] |= named_here
    units = [unit for unit in units.values() if sum(c.total() for c in unit.values())]
    totals = {role: counted.total() for role, counted in times.items()}
    if not all(totals.values()):
        return []
    rows = []
    for word, known_to in people.items():
        alone = len(everybody) <= 1
        if (alone and min_people > 1) or (not alone and len(known_to) < max(min_people, 2)):
            continue
        alpha = prior * sum(counted[word] for counted in times.values()) / sum(totals.values())
        odds, slopes = {}, {}
        for role, counted in times.items():
            uses, rest = counted[word] + alpha, totals[role] + prior - counted[word] - alpha
            odds[role] = math.log(uses / rest) if rest > 0 else math.nan
            slopes[role] = 1 / uses + 1 / rest, 1 / rest
        influences = []
        for unit in units:
            one = {
                role: use * unit[role][word] - rest * unit[role].total()
                for role, (use, rest) in slopes.items()
            }
            influences.append(one["user"] - one["assistant"])
        apart = [value - mean(influences) for value in influences]
        between = sum(a * a for a in apart) * len(units) / max(len(units) - 1, 1)
        independent = sum(1 / (counted[word] + alpha) for counted in times.values())
        difference = odds["user"] - odds["assistant"]
        n = sum(counted[word] for counted in times.values())
        most = max(sum(c[word] for c in unit.values()) for unit in units)
        row = {"word": word, "n": n, "by_user": times["user"][word]}
        row |= {"by_assistant": times["assistant"][word], "people": len(known_to)}
        row |= {"top_share": 100 * most / n, "log_odds": difference}
        rows.append(row | {"z": difference / math.sqrt(max(independent, between))})
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
            clear = found[row["word"]].pop("clear")
            assert clear in (True, False)
            for name, value in row.items():
                text = isinstance(value, str)
                assert found[row["word"]][name] == (value if text else pytest.approx(value))


@pytest.mark.slow
@settings(max_examples=examples(9))
@given(talks(60))
def test_they_are_what_plain_python_finds(messages):
    with world(messages) as made:
        coordinated = made.ask("coordination", min_exchanges=2)
        assert_rows(coordinated, coordination_by_hand(messages, 2))
        words = made.ask(
            "distinguishing_words", filters={"min_people": 3}, top=4, prior=10, function_words=True
        )
        assert_words(words, words_by_hand(messages, 4, 10, 3))


@pytest.mark.slow
@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_they_are_what_plain_python_finds_in_real_conversations(count):
    with world(real_messages(count)) as made:
        assert_rows(made.ask("coordination"), coordination_by_hand(made.messages, 5))
        words = made.ask("distinguishing_words", function_words=True)
        assert_words(words, words_by_hand(made.messages, 20, 500, 5))
        without = made.ask("distinguishing_words", top=1_000_000).pl()
        everything = made.ask("distinguishing_words", top=1_000_000, function_words=True).pl()
        left_out = set(everything["word"]) - set(without["word"])
        assert {"the", "i", "you", "not"} <= left_out <= set(FUNCTION_WORDS)
        kept = everything.filter(pl.col("word").is_in(without["word"].implode()))
        assert kept.drop("clear").equals(without.drop("clear"))
        assert words.pl()["people"].min() >= 5


def exchange(number, first, reply, user="u"):
    """What somebody writes and what the companion replies."""
    return [
        said(120 * number, content=first, user=user, conversation=user),
        said(120 * number + 5, "assistant", reply, user=None, conversation=user),
    ]


@pytest.mark.slow
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


@pytest.mark.slow
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
        assert articles["coordination_low"] is None  # of two people
        one = made.ask("coordination", min_exchanges=2, filters={"user": "u"}).pl()
        assert set(one["people"]) == {1}


@pytest.mark.slow
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


ALONE = {"min_people": 1}


@pytest.mark.slow
def test_log_odds_and_z_are_the_papers():
    """By hand: 4 words of the user (hello 3), 2 of the companion (hello 1); a prior of 6 words.

    One conversation has no variance between conversations, so z is the paper's.
    """
    with world(SPOKEN) as made:
        answer = made.ask("distinguishing_words", prior=6.0, filters=ALONE, function_words=True)
        rows = answer.pl().rows_by_key("word", named=True)
        hello = rows["hello"][0]
        # Its share in all 6 words is 4/6, so that 4 of the prior's 6 words are "hello".
        expected = math.log((3 + 4) / (4 + 6 - 3 - 4)) - math.log((1 + 4) / (2 + 6 - 1 - 4))
        assert hello["log_odds"] == pytest.approx(expected)
        assert hello["z"] == pytest.approx(expected / math.sqrt(1 / 7 + 1 / 5))
        assert (hello["role"], hello["n"], hello["people"]) == ("user", 4, 1)
        assert hello["top_share"] == 100
        assert rows["there"][0]["role"] == "assistant"
        assert rows["there"][0]["z"] < 0
        assert answer.finding == "Too little data: 1 conversation, where 10 are needed"
        assert len(made.ask("distinguishing_words", top=1, filters=ALONE, function_words=True)) == 2
        users = made.ask("distinguishing_words", filters={"role": "user", **ALONE}).pl()
        assert set(users["word"]) == {"hello", "world"}


@pytest.mark.slow
def test_a_larger_prior_says_less():
    with world(SPOKEN) as made:
        z = [
            made.ask("distinguishing_words", prior=p, filters=ALONE).pl()["z"].abs().max()
            for p in (1, 10, 1e4)
        ]
    assert z == sorted(z, reverse=True)


def test_one_persons_habit_does_not_make_a_difference_of_the_sides():
    """40 people and their companions write alike, and one of them writes `a` all the time."""
    rng = random.Random(4)
    words = [f"w{n}" for n in range(20)] + ["a"]
    spoken = []
    for number in range(40):
        for turn in range(10):
            text, reply = (" ".join(rng.choices(words, k=8)) for _ in range(2))
            spoken += exchange(turn, text, reply, user=f"p{number}")
    spoken += [said(5000 + n, content="a " * 40, user="p0", conversation="p0") for n in range(40)]
    with world(talk(*spoken)) as made:
        answer = made.ask("distinguishing_words", filters={"role": "user"}, function_words=True)
        found = answer.pl().rows_by_key("word", named=True)
        assert found["a"][0]["log_odds"] > 1
        a = found["a"][0]
        # Were all words independent, it would be far beyond chance.
        assert a["log_odds"] / (1 / a["by_user"] + 1 / a["by_assistant"]) ** 0.5 > 10
        assert a["z"] < 3
        assert a["top_share"] > 80
        assert answer.finding == "No word clearly tells the sides apart"


def test_a_word_that_all_people_use_more_than_the_companion_is_found():
    spoken = []
    for number in range(40):
        spoken += exchange(0, "well cats are nice", "dogs are nice", user=f"p{number}")
    with world(talk(*spoken)) as made:
        answer = made.ask("distinguishing_words", prior=10.0, function_words=True)
        assert answer.pl().filter("clear")["word"].to_list() == ["dogs", "cats", "well"]
        assert (
            answer.finding
            == "Words that tell the sides apart: people: cats, well; the companion: dogs"
        )


@pytest.mark.slow
def test_what_few_people_say_stays_theirs_whatever_the_filters_are():
    people = [
        message
        for number, person in enumerate("abcde")
        for message in exchange(number, f"common only{person}", "fine", user=person)
    ]
    with world(talk(*people)) as made:

        def words(**filters):
            return made.ask("distinguishing_words", filters=filters).pl()["word"].to_list()

        assert words() == ["fine", "common"]
        assert made.ask("distinguishing_words").pl()["n"].to_list() == [5, 5]
        assert words(user=["a", "b", "c", "d"]) == words(user="a") == []
        finding = made.ask("distinguishing_words", filters={"user": "a"}).finding
        assert finding.startswith("No word of both sides occurs")
        # Asked for by name; a word of one person stays theirs all the same.
        assert words(user=["a", "b", "c", "d"], min_people=2) == ["fine", "common"]
        assert words(min_people=1) == ["fine", "common"]
        assert words(user="a", min_people=1) == []


@pytest.mark.slow
def test_who_is_alone_in_a_home_sees_their_own_words_when_they_ask_for_them():
    with world(talk(*exchange(0, "common onlyme", "fine", user="a"))) as made:
        assert made.ask("distinguishing_words").pl().is_empty()
        mine = made.ask("distinguishing_words", filters=ALONE).pl()
        assert set(mine["word"]) == {"fine", "common", "onlyme"}


@pytest.mark.slow
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
        ("distinguishing_words", {"prior": 0}),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(name, parameters):
    with world(SPOKEN) as made, pytest.raises(InvalidValue, match=f"{next(iter(parameters))} must"):
        made.ask(name, **parameters)
