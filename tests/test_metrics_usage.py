"""Mood, vocabulary, languages and preferences, each against plain Python on raw messages."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aico_lab.errors import InvalidValue
from aico_lab.metrics.usage.languages import language_of
from tests.effort import examples
from tests.talks import OTHERS, START, World, said, talk, talks, world
from tests.talks_by_hand import (
    grouped,
    messages_of,
    real_messages,
    smallest_reaching,
    turns_of,
)


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


@pytest.mark.slow
@settings(max_examples=examples(9))
@given(talks())
def test_the_mood_is_the_mean_of_what_is_scored(messages):
    with world(messages) as made:
        assert_sentiment(made)


@pytest.mark.slow
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
        rows.append((role, step, len(scores), mean(scores)))
    return rows


def assert_trajectory(made, steps):
    answer = made.ask("sentiment_trajectory", steps=steps)
    columns = ["role", "step", "n", "mean"]
    assert same(answer.pl().select(columns).rows(), trajectory_by_hand(made.messages, steps))
    assert is_inside_its_interval(answer, "mean")


@pytest.mark.slow
@settings(max_examples=examples(9))
@given(talks())
def test_turns_are_put_into_equal_parts(messages):
    with world(messages) as made:
        for steps in (1, 3, 4):
            assert_trajectory(made, steps)


@pytest.mark.slow
def test_the_course_of_real_conversations(real):
    assert_trajectory(real, 10)


@pytest.mark.slow
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
            pairs[turns[i].role].append((moods[i - 1], moods[i], turns[i].conversation))
            if i > 1 and turns[i].role == turns[i - 2].role and moods[i - 2] is not None:
                triples[turns[i].role].append((moods[i - 1], moods[i - 2], moods[i]))
    made = []
    for role, found in sorted(pairs.items()):
        x, y = np.array([pair[:2] for pair in found]).T
        varies = np.ptp(x) > 1e-9
        given_own = None
        if triples[role]:
            first, own, answer = np.array(triples[role]).T
            design = np.column_stack([np.ones_like(first), first, own])
            if np.linalg.matrix_rank(design) == 3:
                given_own = np.linalg.lstsq(design, answer)[0][1]
        made.append((
            role, len(found), np.corrcoef(x, y)[0, 1] if varies and np.ptp(y) > 1e-9 else None,
            np.polyfit(x, y, 1)[0] if varies else None, slope_with_dummies(x, y, found),
            len(triples[role]), given_own,
        ))  # fmt: skip
    return made


def slope_with_dummies(x, y, pairs):
    """Least squares of y on x and an indicator of each conversation."""
    names = sorted({conversation for *_, conversation in pairs})
    indicators = [[conversation == name for name in names] for *_, conversation in pairs]
    design = np.column_stack([x, np.array(indicators, dtype=float)])
    if np.linalg.matrix_rank(design, tol=1e-6) < design.shape[1]:
        return None
    return np.linalg.lstsq(design, y)[0][0]


def assert_transfer(made):
    answer = made.ask("sentiment_transfer")
    columns = ["role", "n", "r", "slope", "slope_within", "triples", "slope_given_own"]
    assert same(answer.pl().select(columns).rows(), transfer_by_hand(made.messages))
    assert is_inside_its_interval(answer, "r", "slope", "slope_within", "slope_given_own")


@pytest.mark.slow
@settings(max_examples=examples(14))
@given(talks(max_size=40))
def test_a_turn_goes_with_the_turn_before_it(messages):
    with world(messages) as made:
        assert_transfer(made)


@pytest.mark.slow
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
    columns = ["r", "slope", "slope_within", "slope_given_own"]
    assert answer.select(columns).rows() == [(None,) * 4] * 2


@pytest.mark.slow
def test_conversations_that_are_merry_as_a_whole_have_a_slope_only_when_pooled():
    """In each, the companion's mood goes against the person's."""
    spoken = [
        said(at, role, conversation=name, sentiment=base + step)
        for name, base in (("sad", -0.6), ("merry", 0.6))
        for at, (role, step) in enumerate(
            [("user", 0.1), ("assistant", -0.1), ("user", -0.1), ("assistant", 0.1)]
        )
    ]
    with world(talk(*spoken)) as made:
        companion = made.ask("sentiment_transfer", filters={"role": "assistant"}).pl()
    assert companion["slope"].item() > 0.9
    assert companion["slope_within"].item() == pytest.approx(-1)


@pytest.mark.slow
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


def test_each_pair_of_a_group_belongs_to_its_person():
    """Three people talk with the companion in one channel; it answers each of them."""
    spoken = talk(
        *(
            one
            for at, (user, heard, answer) in enumerate(
                [("u", 0.5, 0.4), ("v", -0.5, -0.2), ("w", 0.1, 0.3), ("u", -0.2, -0.4)]
            )
            for one in (
                said(20 * at, user=user, sentiment=heard),
                said(20 * at + 10, "assistant", user=user, sentiment=answer),
            )
        )
    )
    with world(spoken) as made:
        answer = made.ask("sentiment_transfer").pl()
        assert same(
            answer.select("role", "n", "r", "slope").rows(),
            [row[:4] for row in transfer_by_hand(spoken)],
        )
        assert dict(answer.select("role", "people").rows()) == {"assistant": 3, "user": 3}
        within = dict(answer.select("role", "slope_within").rows())
        assert within == pytest.approx({row[0]: row[4] for row in transfer_by_hand(spoken)})


# Vocabulary


def factors_by_hand(words):
    """McCarthy and Jarvis (2010), section "Calculating MTLD", read word by word."""
    factors, seen, so_far = 0.0, set(), 0
    for word in words:
        so_far += 1
        seen.add(word)
        if len(seen) / so_far <= 0.72:
            factors, seen, so_far = factors + 1, set(), 0
    if so_far:
        factors += (1 - len(seen) / so_far) / (1 - 0.72)
    return factors


def mtld_by_hand(words):
    forward, backward = factors_by_hand(words), factors_by_hand(words[::-1])
    if not (forward and backward):
        return None
    return (len(words) / forward + len(words) / backward) / 2


def diversity_by_hand(raw, min_words):
    texts = defaultdict(list)
    for m in sorted(messages_of(raw), key=lambda m: (m.ts_ms, m.conversation)):
        if m.person is not None:
            texts[m.role, m.person] += m.words
    found = defaultdict(list)
    for (role, _), words in sorted(texts.items()):
        value = mtld_by_hand(words) if len(words) >= min_words else None
        if value is not None:
            found[role].append((len(words), value))
    return [
        (role, len(people), sum(n for n, _ in people), mean(value for _, value in people))
        for role, people in sorted(found.items())
    ]


def assert_diversity(made, min_words):
    answer = made.ask("lexical_diversity", min_words=min_words)
    found = answer.pl().select("role", "n", "words", "mean").rows()
    assert same(found, diversity_by_hand(made.messages, min_words))
    assert is_inside_its_interval(answer, "mean")


@pytest.mark.slow
@settings(max_examples=examples(9))
@given(talks())
def test_words_are_read_in_the_order_in_which_they_were_written(messages):
    with world(messages) as made:
        for min_words in (1, 10):
            assert_diversity(made, min_words)


def test_the_vocabulary_of_real_people(real):
    assert_diversity(real, 100)


@pytest.mark.slow
def test_a_factor_ends_where_the_paper_ends_it():
    """Its example: of the people by the people | for the people; the share falls to 4 of 6.

    Forward: one factor of six words, and "for the people", all different, is no part of another:
    9 / 1. Backward: "people the for people the" has 3 of 5, a factor; "by people the of" has 4
    different ones, nothing: 9 / 1.
    """
    with world(talk(said(0, content="Of the people by the"), said(0, content="people"),
                    said(1, content="for the people"))) as made:  # fmt: skip
        answer = made.ask("lexical_diversity", min_words=9).pl()
        assert answer.select("role", "n", "words", "mean").rows() == [("user", 1, 9, 9.0)]
        assert made.ask("lexical_diversity", min_words=10).pl().is_empty()


@pytest.mark.slow
def test_what_is_left_at_the_end_is_part_of_a_factor():
    """Of a b c d a 4 of 5 are different, (1 - 0.8) / 0.28 = 0.714 factors, so 7 words a factor."""
    with world(
        talk(said(0, content="a b c d a"), said(1, "assistant", "a b c", user=None))
    ) as made:
        answer = made.ask("lexical_diversity", min_words=1).pl()
        assert same(answer.select("role", "n", "mean").rows(), [("user", 1, 7.0)])
        for few in (0, -1):
            with pytest.raises(InvalidValue, match="min_words must be at least 1"):
                made.ask("lexical_diversity", min_words=few)


def test_a_share_of_exactly_the_threshold_ends_a_factor():
    """18 different words among 25."""
    words = [f"w{i}" for i in range(18)] + ["w0"] * 7
    assert factors_by_hand(words[:24]) < 1
    with world(talk(said(0, content=" ".join(words)))) as made:
        found = made.ask("lexical_diversity", min_words=1).pl()["mean"][0]
    assert found == pytest.approx(mtld_by_hand(words))
    assert factors_by_hand(words) == 1


# Languages

ENGLISH = "I have been waiting for you all day long, where were you?"
GERMAN = "Ich habe den ganzen Tag auf dich gewartet, wo bist du gewesen?"
RUSSIAN = "Я ждал тебя весь день, где ты был?"
CHINESE = "我等了你一整天，你去哪里了呢？"  # noqa: RUF001


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"), (GERMAN, "de"), (RUSSIAN, "ru"), (CHINESE, "zh"),
        ("Te he estado esperando todo el día, ¿dónde estabas?", "es"),
        ("hello", "unknown"), ("", "unknown"), ("12345 67890 :-) !!! 1234567890", "unknown"),
    ],
)  # fmt: skip
def test_a_language_is_guessed_from_enough_letters(text, language):
    assert language_of(text) == language


@pytest.mark.slow
def test_each_side_of_a_conversation_has_one_language():
    """What it wrote first counts: a second language after a thousand characters changes nothing."""
    spoken = [said(0, content="Ich habe den ganzen"), said(1, content=GERMAN)]
    spoken += [said(2 + i, content="noch ein deutscher Satz über das Wetter") for i in range(30)]
    spoken += [said(90, content=ENGLISH * 50), said(91, "assistant", ENGLISH, user=None)]
    spoken += [said(0, conversation=f"e{i}", user="v", content=ENGLISH) for i in range(2)]
    with world(talk(*spoken, said(0, conversation="s", content="hi"))) as made:
        answer = made.ask("languages")
        rows = answer.pl().select("role", "language", "code", "n", "share").rows()
        assert rows == [
            ("assistant", "English", "en", 1, 100),
            ("user", "English", "en", 2, pytest.approx(200 / 3)),
            ("user", "German", "de", 1, pytest.approx(100 / 3)),
            ("user", "unknown", "unknown", 1, None),
        ]
        assert answer.finding.startswith("Too little data (")
        assert "people: English in 66.7 % of 3 conversations; 1 too short to tell" in answer.finding
        assert made.ask("languages", filters={"user": "v"}).pl()["code"].to_list() == ["en"]
        for few in (0, -1):
            with pytest.raises(InvalidValue, match="sample must be at least 1"):
                made.ask("languages", sample=few)


def test_a_text_of_several_people_is_not_an_observation_of_the_first_of_them():
    room = [
        said(60 * n, conversation=f"r{n % 2}", user=f"u{n // 2}", content=ENGLISH)
        for n in range(24)
    ]
    with world(talk(*room)) as made:
        answer = made.ask("languages")
        assert answer.pl().select("n", "people").rows() == [(2, 12)]
        assert answer.finding == (
            "Too little data (2 conversations) for more than a description: people: English in "
            "100.0 % of 2 conversations"
        )
    alone = [said(9_000, conversation="a", user="u1", content=ENGLISH)]
    with world(talk(*room, *alone)) as made:
        assert "(3 people and conversations)" in made.ask("languages").finding


def languages_by_hand(raw, sample):
    contents = dict(raw.select("id", "content").rows())
    texts = defaultdict(str)
    for m in messages_of(raw):
        texts[m.conversation, m.role] += " " + contents[m.id]
    conversations = sorted({c for c, _ in texts}, key=lambda c: hashlib.md5(c.encode()).hexdigest())  # noqa: S324
    counted = Counter(
        (role, language_of(text[1:1001]))
        for (conversation, role), text in texts.items()
        if conversation in conversations[:sample]
    )
    sides = Counter(role for role, name in counted.elements() if name != "unknown")
    rows = [
        (role, name, n, None if name == "unknown" else 100 * n / sides[role])
        for (role, name), n in counted.items()
    ]
    return sorted(rows, key=lambda row: (row[0], row[1] == "unknown", -row[2], row[1]))


@pytest.mark.slow
def test_the_languages_of_real_people(real):
    """Of all, and of a sample; which is the same every time."""
    raw = real.messages
    for sample in (40, 2000):
        answer = real.ask("languages", sample=sample)
        found = answer.pl().select("role", "code", "n", "share").rows()
        assert same(found, languages_by_hand(raw, sample))
        assert is_inside_its_interval(answer, "share")
    told = [row for row in found if row[1] != "unknown"]
    assert sum(n for _, name, n, _ in told if name == "en") > 0.98 * sum(row[2] for row in told)


@pytest.mark.slow
@settings(max_examples=examples(9))
@given(talks())
def test_every_side_of_a_conversation_counts_once(messages):
    with world(messages) as made:
        for sample in (1, 10):
            found = made.ask("languages", sample=sample).pl()
            rows = found.select("role", "code", "n", "share").rows()
            assert same(rows, languages_by_hand(messages, sample))


# Preferences

_DAY = 86_400


def preference(seconds, value, *, key="tone", user="u"):
    return {"user_id": user, "preference_key": key, "value": value,
            "changed_at": START + timedelta(seconds=seconds)}  # fmt: skip


def changes(*rows):
    made = [{"change_id": i, "old_value": None, **row} for i, row in enumerate(rows, 1)]
    return pl.DataFrame(made, schema=OTHERS["preference_changes"], orient="row")


def preferences_by_hand(rows, since=None):
    first, changed, lasted = defaultdict(set), defaultdict(Counter), defaultdict(list)
    held = {}
    for row in rows.filter(pl.col("value").is_not_null()).iter_rows(named=True):
        key, user, at = row["preference_key"], row["user_id"], row["changed_at"]
        before = held.get((key, user))
        if before and before[0] == row["value"]:
            continue
        held[key, user] = (row["value"], at)
        if since is None or at >= since:
            first[key].add(user)
            if before:
                changed[key][user] += 1
                lasted[key].append((at - before[1]) // timedelta(milliseconds=1))
    return [
        (
            key, len(people), changed[key].total(), len(changed[key]),
            100 * len(changed[key]) / len(people),
            smallest_reaching(lasted[key], 0.5) / 86_400_000 if lasted[key] else None,
        )
        for key, people in sorted(first.items())
    ]  # fmt: skip


PREFERENCES = ["preference", "n", "changes", "changed", "share", "median_days"]

_settings = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 60, _DAY, 3 * _DAY]),
        st.sampled_from(["1", '"x"', "2", None]),
        st.sampled_from(["tone", "language"]),
        st.sampled_from(["u", "v", "w"]),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=examples(9))
@given(_settings)
def test_another_value_than_before_is_a_change(drawn):
    second, rows = 0, []
    for gap, value, key, user in drawn:
        second += gap
        rows.append(preference(second, value, key=key, user=user))
    noon = datetime(2024, 4, 1, 12, tzinfo=UTC)
    with world(talk(), preference_changes=changes(*rows)) as made:
        answer = made.ask("preference_changes")
        assert same(answer.pl().select(PREFERENCES).rows(), preferences_by_hand(changes(*rows)))
        assert is_inside_its_interval(answer, "share")
        later = made.ask("preference_changes", filters={"since": noon}).pl()
        assert same(later.select(PREFERENCES).rows(), preferences_by_hand(changes(*rows), noon))


@pytest.mark.slow
def test_who_thinks_again_and_after_how_long():
    """A removal is no change; what is set after it is compared with what was there before it."""
    rows = changes(
        preference(0, '"warm"'), preference(_DAY, '"dry"'), preference(2 * _DAY, None),
        preference(3 * _DAY, '"dry"'), preference(5 * _DAY, '"warm"'),
        preference(0, '"warm"', user="v"), preference(0, '"de"', key="language", user="v"),
    )  # fmt: skip
    with world(talk(said(0), said(0, user="v")), preference_changes=rows) as made:
        answer = made.ask("preference_changes")
        assert answer.pl().select(PREFERENCES).rows() == [
            ("language", 1, 0, 0, 0, None), ("tone", 2, 2, 1, 50, 1),
        ]  # fmt: skip
        assert answer.finding == "Too little data: 2 people, where 10 are needed"
        answer.plot().to_dict()
        of_v = made.ask("preference_changes", filters={"user": "v"}).pl()
        assert of_v["changes"].to_list() == [0, 0]
        assert made.ask("preference_changes", filters={"min_cell": 2}).left_out == 1
