"""Frequent words and their course, against plain Python; and whose words are never shown."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings

from aico_lab.errors import InvalidValue
from aico_lab.messages.function_words import FUNCTION_WORDS
from tests.effort import examples
from tests.talks import said, talk, talks, world
from tests.talks_by_hand import assert_rows, messages_of, real_messages
from tests.test_metrics_wording import exchange

if TYPE_CHECKING:
    import polars as pl

BERLIN = "Europe/Berlin"
MONTH = 31 * 86_400


@pytest.fixture(scope="module")
def real():
    with world(real_messages(6_000)) as made:
        yield made


def frequent_by_hand(raw: pl.DataFrame, top: int, least: int, *, function_words: bool) -> list:
    counts, by_user, people = Counter(), Counter(), defaultdict(set)
    messages = messages_of(raw)
    everybody = {m.person for m in messages} - {None}
    for m in messages:
        counts.update(m.words)
        by_user.update(m.words if m.role == "user" else ())
        for word in m.words:
            people[word] |= {m.person} - {None}

    def is_shown(word):
        if len(everybody) <= 1:
            return least == 1
        return len(people[word]) >= max(least, 2)

    total = sum(counts.values())
    shown = [w for w in counts if is_shown(w) and (function_words or w not in FUNCTION_WORDS)]
    return [
        {
            "word": word,
            "n": counts[word],
            "people": len(people[word]),
            "by_user": by_user[word],
            "by_assistant": counts[word] - by_user[word],
            "rate": 1000 * counts[word] / total,
        }
        for word in sorted(shown, key=lambda word: (-counts[word], word))[:top]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("function_words", [False, True])
def test_the_most_frequent_words_of_real_conversations(real, function_words):
    answer = real.ask("frequent_words", function_words=function_words)
    expected = frequent_by_hand(real.messages, 30, 5, function_words=function_words)
    assert_rows(answer, expected)
    assert len(expected) == 30
    assert ("the" in answer.pl()["word"]) is function_words


@pytest.mark.slow
@settings(max_examples=examples(9))
@given(talks(60))
def test_the_most_frequent_words_of_any_talk(messages):
    with world(messages) as made:
        for least in (1, 2):
            answer = made.ask("frequent_words", top=4, filters={"min_people": least})
            expected = frequent_by_hand(messages, 4, least, function_words=False)
            assert_rows(answer, expected)


def course_by_hand(raw: pl.DataFrame, words: list[str], by: str, zone: str, least: int) -> dict:
    times = dict(raw.select("id", "timestamp").iter_rows())
    uses, every, people = Counter(), Counter(), defaultdict(set)
    for m in messages_of(raw):
        group = {
            "month": times[m.id].astimezone(ZoneInfo(zone)).strftime("%Y-%m"),
            "side": m.role,
        }[by]
        every[group] += len(m.words)
        for word in m.words:
            uses[word, group] += 1
            people[word, group] |= {m.person} - {None}
    return {
        (word, group): (uses[word, group], len(people[word, group]), total,
                        pytest.approx(1000 * uses[word, group] / total))
        for word in words
        for group, total in every.items()
        if total and (not uses[word, group] or len(people[word, group]) >= least)
    }  # fmt: skip


@pytest.mark.parametrize("by", ["month", "side"])
def test_the_course_of_words_in_real_conversations(real, by):
    words = ["like", "the", "don't", "unicorns", "pizza"]
    answer = real.ask(
        "word_course",
        words="Like,the, don\u2019t unicorns  pizza",
        by=by,
        filters={"timezone": BERLIN},
    )
    rows = answer.pl()
    shown = rows["word"].unique(maintain_order=True).to_list()
    assert shown == [word for word in words if word in shown]
    assert {"like", "the", "don't"} <= set(shown)
    found = {(row[0], row[1]): row[2:] for row in
             rows.select("word", "group", "n", "people", "words", "rate").iter_rows()}  # fmt: skip
    assert found == course_by_hand(real.messages, shown, by, BERLIN, 5)


def test_by_default_the_words_are_the_most_frequent_ones(real):
    frequent = real.ask("frequent_words", top=3).pl()["word"].to_list()
    course = real.ask("word_course", by="side").pl()
    assert course["word"].unique(maintain_order=True).to_list() == frequent
    assert set(course["by"]) == {"side"}


def people_in_channels() -> pl.DataFrame:
    """Twelve people in four channels, who say `cats` in January and `dogs` in March."""
    return talk(*(
        said(2 * month * MONTH + 60 * user + month, content=f"{word} are nice animals here",
             user=f"u{user}", conversation=f"c{user % 4}")
        for user in range(12)
        for month, word in enumerate(("cats", "dogs"))
    ))  # fmt: skip


def test_the_course_by_channel_has_pseudonyms_and_a_row_of_all_others():
    with world(people_in_channels()) as made:
        some = {"filters": {"min_people": 2}}
        rows = made.ask("word_course", words="cats", by="channel", **some).pl()
        assert rows.select("group", "n", "people", "words").rows() == [
            (f"Channel {number}", 3, 3, 30) for number in range(1, 5)
        ]
        assert rows["rate"].to_list() == [100.0] * 4
        named = made.ask("word_course", words="cats", by="channel", names=True, **some).pl()
        assert named["group"].to_list() == ["c0", "c1", "c2", "c3"]


def test_a_group_without_the_word_has_0_uses_and_a_month_without_words_no_row():
    with world(people_in_channels()) as made:
        answer = made.ask("word_course", words="dogs cats", by="month")
        assert answer.pl().select("word", "group", "n", "people", "rate").rows() == [
            ("dogs", "2024-03", 0, 0, 0.0), ("dogs", "2024-05", 12, 12, 200.0),
            ("cats", "2024-03", 12, 12, 200.0), ("cats", "2024-05", 0, 0, 0.0),
        ]  # fmt: skip
        assert answer.finding.startswith(
            "dogs: least in March 2024 (0 per 1,000 words), most in May 2024 (200), no clear "
        )
        answer.plot().to_dict()


@pytest.mark.slow
def test_what_few_people_say_is_shown_in_no_group():
    """Nor a word of one person, unless that person is named."""
    spoken = [
        message
        for number, person in enumerate("abcde")
        for message in exchange(number, f"common only{person}", "fine", user=person)
    ]
    with world(talk(*spoken)) as made:

        def words(metric="frequent_words", user=None, least=None, **parameters):
            filters = {"user": user, "min_people": least}
            return set(made.ask(metric, filters=filters, **parameters).pl()["word"])

        assert words() == {"fine", "common"}
        assert words(least=1) == {"fine", "common"}
        assert (
            words(user=["a", "b", "c", "d"])
            == words(user="a")
            == words(user="a", least=2)
            == (set())
        )
        assert words(user=["a", "b"], least=1) == {"fine", "common"}
        assert words(user="a", least=1) == {"fine", "common", "onlya"}
        for by in ("month", "side", "channel"):
            asked = {"metric": "word_course", "by": by, "words": "common onlya"}
            assert words(**asked) <= {"common"}
            assert words(**asked, least=1) <= {"common"}
            assert "onlya" in words(**asked, user="a", least=1)
        assert (
            words("word_course", by="channel", words="common", least=2) == set()
        )  # of one person each
        answer = made.ask("word_course", words="onlya")
        assert answer.finding.startswith("No word is used by enough people")
    with world(talk(*exchange(0, "common onlyme", "fine", user="a"))) as made:
        assert made.ask("frequent_words").pl().is_empty()
        mine = made.ask("frequent_words", filters={"min_people": 1}).pl()
        assert set(mine["word"]) == {"fine", "common", "onlyme"}


def test_findings_of_words():
    with world(people_in_channels()) as made:
        assert made.ask("frequent_words").finding == (
            "The most frequent words: animals (24), nice (24), cats (12) (like 1 other word), "
            "of 120 words"
        )
        assert made.ask("frequent_words", top=1).finding == (
            "The most frequent word: animals (24) (like 1 other word), of 120 words"
        )


def test_the_most_frequent_words_are_told_among_what():
    """One person uses a word 200 times that nobody else uses."""
    spoken = [said(n, content="banana", user=f"p{n}", conversation=f"c{n}") for n in range(6)]
    spoken.append(said(10, content="zebra " * 200 + "yak", user="p0", conversation="c0"))
    with world(talk(*spoken)) as made:
        answer = made.ask("frequent_words")
        assert answer.finding == (
            "The most frequent word among those of 5 or more people: banana (6), of 207 words"
        )
        assert answer.caption.endswith("2 words of fewer than 5 people left out")
        least = made.ask("frequent_words", filters={"min_people": 1})
        assert "among those of 2 or more people: banana" in least.finding
        own = made.ask("frequent_words", filters={"min_people": 1, "user": "p0"})
        assert own.finding.startswith("The most frequent words: zebra (200)")
        assert "left out" not in own.caption
        everybody = made.ask("frequent_words", filters={"min_people": 7})
        assert everybody.finding.startswith("No word is used by enough people")


def test_the_course_says_if_its_sentence_is_about_some_months():
    """In the third month six people write, in others twelve."""
    spoken = [
        said(month * MONTH + user, content=f"cat {dogs}", user=f"u{user}", conversation=f"c{user}")
        for month, people, dogs in ((0, 12, "dog dog"), (1, 12, "dog dog"), (2, 6, "cat cat"))
        for user in range(people)
    ]
    with world(talk(*spoken)) as made:
        answer = made.ask("word_course", words="cat")
        assert answer.pl()["rate"].to_list() == [pytest.approx(1000 / 3)] * 2 + [1000.0]
        assert answer.finding.startswith("cat: 333 per 1,000 words in each of 2 months")
        assert answer.caption.endswith("the sentence is about the months with 10 or more")
        some = made.ask("word_course", words="cat", filters={"until": "2024-05-15"})
        assert "the sentence is about" not in some.caption


def rare_and_usual() -> pl.DataFrame:
    """In two months 30 people write, and in the one between six, who all say zebra."""
    return talk(*(
        said(
            month * MONTH + user, ("user", "assistant")[user % 2], user=f"u{user}",
            content=f"apple garden{' zebra' if user < zebras else ''}{' yak' if not user else ''}",
            conversation=f"c{user}",
        )
        for month, (people, zebras) in enumerate([(30, 3), (6, 6), (30, 2)])
        for user in range(people)
    ))  # fmt: skip


def test_a_rare_word_does_not_hide_what_is_found_of_others():
    with world(rare_and_usual()) as made:
        alone = made.ask("word_course", words="apple").finding
        assert alone.startswith("apple: least in ")
        for words in ("apple,zebra", "zebra,apple"):
            finding = made.ask("word_course", words=words).finding
            assert finding == f"{alone}; zebra: too little data (6 people)"
        rare = made.ask("word_course", words="zebra").finding
        assert rare == "Too little data: 6 people, where 10 are needed"


def test_words_that_are_not_shown_are_counted():
    with world(rare_and_usual()) as made:
        course = made.ask("word_course", words="apple,yak,zebra").caption
        assert "1 word of fewer than 5 people left out, 2 values of fewer than 5 people" in course
        assert "fewer than" not in made.ask("word_course", words="apple").caption
        for name in ("frequent_words", "distinguishing_words"):
            assert made.ask(name).caption.endswith("1 word of fewer than 5 people left out")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("frequent_words", {"top": 0}), ("word_course", {"words": "a b c d e f g h i j k"})],
)
def test_parameters_that_cannot_be_meant_are_refused(name, parameters):
    with world(talk(said(0))) as made, pytest.raises(InvalidValue, match=next(iter(parameters))):
        made.ask(name, **parameters)


def test_one_person_makes_no_headline_unnoticed():
    """Thirty people use a word once, and one of them 970 times more."""
    spoken = [said(n, content="banana", user=f"p{n}", conversation=f"c{n}") for n in range(30)]
    spoken += [
        said(100 + n, content="banana " * 97, user="p0", conversation="c0") for n in range(10)
    ]
    with world(talk(*spoken)) as made:
        answer = made.ask("frequent_words")
        assert answer.pl()["top_share"].to_list() == [pytest.approx(97.1)]
        assert answer.finding.endswith("; one person has 97 % of the uses of banana")


def test_the_words_of_one_selection_do_not_answer_for_another():
    """The words of the last selection are kept, and questions about others come between."""
    rows = [
        said(
            at, "assistant" if at % 4 == 3 else "user", f"word{at % 3}",
            user="bob" if at % 2 else "ada",
        )
        for at in range(12)
    ]  # fmt: skip
    selections = ({}, {"user": "ada"}, {"role": "assistant"}, {})

    def answer(made, chosen):
        return made.ask("frequent_words", filters={"min_people": 1, **chosen}).pl()

    with world(talk(*rows)) as made:
        kept = [answer(made, one) for one in selections]
    for one, found in zip(selections, kept, strict=True):
        with world(talk(*rows)) as fresh:
            assert found.equals(answer(fresh, one))
    assert kept[0]["n"].sum() == 12
    assert kept[1]["n"].sum() == 6
