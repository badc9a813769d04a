"""What findings claim: of 0, 1, 2, 5, 20 and 40 people, of one week, of ties, with every filter."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from aico_lab.metrics.engine import claims
from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.metrics.engine.intervals import FEW, FEWEST, MIXED, MOST, UNIT, UNITS
from aico_lab.metrics.engine.metric import RoleFilter
from tests.talks import OTHERS, World, said, talk

EVERY = list(CATALOGUE)
WEEK = 7 * 86_400
FIRST = datetime(2024, 3, 30, 22, tzinfo=UTC)

FACTS = {
    "overview",
    "daily_activity",
    "weekly_activity",
    "monthly_activity",
    "sessions",
    "retention",
}
"""Metrics that count, which is true of any number, or add up rows."""

WRONG = re.compile(
    r"\b1 (people|conversations|messages|sessions|days|weeks|months|hours|periods|rows|versions|"
    r"traits|texts|phases|turns)\b|\bnan\b|\bNone\b|\binf\b|  "
)


def people(number: int, weeks: int = 13) -> World:
    """So many people, each with a conversation every week, a rating, a preference, a profile."""
    spoken, ratings, settings = [], [], []
    for person in range(number):
        user = f"u{person}"
        settings.append(
            (person, user, "tone", None, f'"{person % 3}"', FIRST),
        )
        for week in range(weeks):
            start = week * WEEK + 3600 * person
            name = f"{user}-{week}"
            lines = ["I am so happy today, are you?", "No, that is a bad and sad day.", "Why not"]
            for turn in range(6):
                role = ("user", "assistant")[turn % 2]
                mood = (person + 2 * turn + week) % 7 / 3 - 1
                content = " ".join([lines[(turn + person) % 3]] * (1 + (person + week) % 3))
                spoken.append(
                    said(start + 50 * turn, role, content, conversation=name, user=user,
                         sentiment=mood)
                )  # fmt: skip
            ratings.append(
                (f"r{name}", user, name, None, "rating", "witty", float((person + week) % 5),
                 FIRST + timedelta(seconds=start), None)
            )  # fmt: skip
    rows = {
        "feedback_events": ratings,
        "preference_changes": settings,
        "personality_profiles": [("p", None, 1, '{"warmth": 0.9}', FIRST, None, None)],
    }
    tables = {
        name: pl.DataFrame(values, schema=OTHERS[name], orient="row")
        for name, values in rows.items()
    }
    return World(talk(*spoken), **tables)


@pytest.fixture(scope="module")
def worlds():
    made = {number: people(number) for number in (0, 1, 2, 5, 20, 40)}
    made["one week"] = people(20, weeks=1)
    yield made
    for world in made.values():
        world.close()


def assert_is_plain(finding: str) -> None:
    assert finding
    assert not WRONG.search(finding), finding


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_finding_claims_what_its_amount_of_data_supports(worlds, name):
    for number, world in worlds.items():
        answer = world.ask(name)
        assert_is_plain(answer.finding)
        assert_is_plain(answer.caption)
        rows = answer._rows
        ends = [c.name for c in answer.metric.columns if c.name.endswith("_low")]
        if UNITS not in rows.columns or name in FACTS:
            continue
        few = rows.filter(pl.col(UNITS) < FEWEST)
        assert all(few[end].null_count() == few.height for end in ends if end != "slope_low")
        most = rows[UNITS].max() or 0
        if 0 < most < FEWEST:
            assert answer.finding.startswith("Too little data"), (number, answer.finding)
            assert f"none below {FEWEST} {rows[UNIT][0]}" in answer.caption
        elif FEWEST <= most < FEW:
            sure = not answer.finding.startswith(("Too little data", "No "))
            assert not sure or "uncertain" in answer.finding, (number, answer.finding)
            assert f"rough below {FEW}" in answer.caption


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_finding_is_true_with_every_filter(worlds, name):
    """No filter makes it fail, and rows that are left out are not spoken of."""
    some = {
        2: [{"min_cell": 10}, {"user": "u1"}],
        20: [
            {"min_cell": 2, "since": "2024-05-01"}, {"min_cell": 100_000}, {"min_people": 30},
            {"since": "1d"}, {"channel": "u1-0"},
        ],
        "one week": [{"min_people": 2, "until": "2024-04-02"}],
    }  # fmt: skip
    if CATALOGUE[name].role is not RoleFilter.REFUSED:
        some[20].append({"role": "assistant", "min_people": 5})
        some["one week"].append({"role": "user"})
    for number, asked in some.items():
        for chosen in asked:
            answer = worlds[number].ask(name, filters=chosen)
            assert_is_plain(answer.finding)
            n, kept = answer.pl()["n"].fill_null(0), answer.pl()[answer.metric.people].fill_null(0)
            assert ((n == 0) | (n >= chosen.get("min_cell", 1))).all()
            least = chosen.get("min_people", 1)
            assert ((n == 0) | (kept >= least) | (least == 1)).all()
            if answer.left_out and not answer.metric.of_all:
                assert answer.finding.startswith(("Of the rows that are shown", "Too little data"))


def test_a_value_of_few_people_is_uncertain_and_of_fewer_is_no_finding():
    def rows(*units: int) -> pl.DataFrame:
        return pl.DataFrame({"value": range(len(units)), UNITS: units, UNIT: "people"})

    def say(row: claims.Row) -> str:
        return f"value {row['value']}"

    assert claims.each(rows(30), say) == "value 0"
    assert claims.each(rows(29), say) == "value 0 (uncertain: 29 people)"
    assert claims.each(rows(1), say) == (
        "Too little data (1 person) for more than a description: value 0"
    )
    assert claims.each(rows(5, 2), say).startswith("Too little data (2 people)")
    assert claims.each(rows(50, 3), say) == "value 0; value 1 (too little data: 3 people)"
    assert claims.each(rows(), say) == ""


def test_a_value_that_is_mainly_one_persons_is_uncertain():
    rows = pl.DataFrame({"v": [1], UNITS: [50], UNIT: ["people"], MOST: [98.0]})
    assert claims.each(rows, lambda _row: "value") == (
        "value (uncertain: one of 50 people has 98 % of the observations)"
    )
    loud = [said(n, content="good", sentiment=0.9) for n in range(400)]
    others = [said(n, user=f"v{n}", conversation=f"v{n}", sentiment=-0.5) for n in range(40)]
    world = World(talk(*loud, *others))
    answer = world.ask("sentiment")
    row = answer.pl().row(0, named=True)
    assert answer.finding.endswith("(uncertain: one of 41 people has 91 % of the scored messages)")
    assert "one person has 91 % of the counted scored messages" in answer.caption
    assert -1 <= row["mean_low"] < row["mean_high"] <= 1
    world.close()


@pytest.mark.slow
def test_people_who_are_all_alike_make_no_finding_fail():
    world = people(12, weeks=3)
    flat = World(world.messages.with_columns(sentiment_score=pl.lit(0.0), content=pl.lit("same")))
    for name in EVERY:
        assert_is_plain(flat.ask(name).finding)
    assert "no clear change" in flat.ask("sentiment_trajectory", steps=2).finding
    world.close()
    flat.close()


@pytest.mark.slow
def test_the_share_and_its_total_are_of_the_same_rows(worlds):
    for name in ("week_heatmap", "session_length", "languages", "streaks"):
        everything = worlds[40].ask(name)
        for least in (2, 20, 200):
            answer = worlds[40].ask(name, filters={"min_cell": least})
            if not answer.left_out or answer.finding.startswith("Too little data"):
                continue
            total = re.findall(r" of ([\d,]+)", everything.finding)
            assert set(re.findall(r" of ([\d,]+)", answer.finding)) <= set(total), answer.finding


IRREGULAR = {
    "people": "person",
    "people who wrote": "person who wrote",
    "days with messages": "day with messages",
    "replies": "reply",
    MIXED: "person or unnamed conversation",
}
WORDED = {"counted", "too_little", "doubt", "described", "note", "_count", "estimate"}
"""The functions that take the noun of a number, in the plural."""


def plurals() -> set[str]:
    """Return each plural that the package passes to a function that counts, as it is written."""
    found = set()
    for file in Path(claims.__file__).parents[2].rglob("*.py"):
        if not {"metrics", "reports"} & set(file.parts):
            continue
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            called = getattr(call.func, "attr", getattr(call.func, "id", ""))
            given = [*call.args[1:], *(k.value for k in call.keywords if k.arg in {"unit", "of"})]
            for noun in given if called in WORDED else ():
                if isinstance(noun, ast.Constant) and isinstance(noun.value, str):
                    found.add(noun.value)
    return found


def test_each_noun_that_is_counted_has_its_singular():
    """The plural of a noun that is not made by an s must be known by hand."""
    assert {"replies", "messages", "people", "words"} <= plurals()
    for plural in plurals() | set(IRREGULAR):
        singular = claims.counted(1, plural).removeprefix("1 ")
        if plural in IRREGULAR:
            assert singular == IRREGULAR[plural]
        else:
            assert plural == f"{singular}s", plural
            assert not plural.endswith(("ies", "ches", "shes", "xes", "sses")), plural
            assert claims.counted(1_000, plural) == f"1,000 {plural}"


def test_ties_are_named_and_numbers_have_their_nouns():
    rows = pl.DataFrame({"day": ["Mon", "Tue", "Wed", "Thu", "Fri"], "n": [3, 3, 1, 3, 3]})
    assert claims.leading(rows, "n", "day") == "Mon and 3 others alike"
    assert claims.leading(rows.head(3), "n", "day") == "Mon and Tue alike"
    assert claims.leading(rows.tail(3).head(2), "n", "day") == "Thu"
    assert [claims.counted(n, "people") for n in (0, 1, 2000)] == [
        "0 people", "1 person", "2,000 people",
    ]  # fmt: skip
    assert claims.counted(1, "conversations") == "1 conversation"
    assert claims.counted(1, MIXED) == "1 person or unnamed conversation"
    assert claims.counted(2, MIXED) == "2 people and unnamed conversations"


@pytest.mark.parametrize(
    ("value", "text", "signed"),
    [
        (999.7, "1,000", "+1,000"),
        (1e-5, "0.00001", "+0.00001"),
        (-0.0, "0", "+0"),
        (-3e-16, "0", "+0"),
        (0.123456, "0.123", "+0.123"),
        (-12.0, "-12", "-12"),
        (123_456.7, "123,457", "+123,457"),
    ],
)
def test_numbers_are_written_without_powers_of_ten(value, text, signed):
    assert claims.written(value) == text
    assert claims.written(value, signed=True) == signed


@pytest.fixture(scope="module")
def dominated():
    """Forty people, one of whom wrote 95 % of everything."""
    spoken = [
        said(300 * person + at // 2 * 13 * WEEK / number + at % 2 * (5 if person else 400),
             ("user", "assistant")[at % 2], "I am so happy today, my friend, and what a day it was",
             conversation=f"c{person}-{at // 2 % 50}", user=f"u{person}")
        for person in range(40)
        for number in [2 if person else 1500]
        for at in range(2 * number)
    ]  # fmt: skip
    made = World(talk(*spoken))
    yield made
    made.close()


@pytest.mark.parametrize(
    "name", ["balance", "reply_latency", "trend", "change_points", "seasonality", "languages"]
)
def test_who_dominates_is_named_where_a_claim_is_made(dominated, name):
    said_of_one = re.search(
        r"(one of 40 people|one person) has (\d+) %", dominated.ask(name).finding
    )
    assert said_of_one, dominated.ask(name).finding
    assert int(said_of_one[2]) > claims.DOMINANT
    assert "has 1" not in dominated.ask("trend", measure="users").finding


@pytest.mark.slow
def test_a_home_of_one_person_is_not_told_that_it_is_one(worlds):
    for name in ("trend", "change_points", "seasonality"):
        assert "one person" not in worlds[1].ask(name).finding


def preferences(**settings: tuple[int, int]) -> World:
    """So many people who set each preference, and so many of them who changed it."""
    rows = []
    for key, (people, changed) in settings.items():
        for person in range(people):
            values = ["a", "b"] if person < changed else ["a"]
            rows += [(0, f"u{person}", key, None, f'"{value}"', FIRST) for value in values]
    rows = [(number, *row[1:]) for number, row in enumerate(rows)]
    schema = OTHERS["preference_changes"]
    return World(talk(said(0)), preference_changes=pl.DataFrame(rows, schema=schema, orient="row"))


TEN = " (uncertain: 10 people)"


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        (
            {"tone": (12, 0), "voice": (8, 8)},
            "Nobody changed a preference that 10 people or more set (uncertain: 12 people)",
        ),
        ({"tone": (12, 0), "voice": (8, 0)}, "Nobody changed a preference (uncertain: 12 people)"),
        (
            {"b": (10, 5), "a": (40, 20)},
            "Most often changed: a and b alike, by 50 % of the people who set each" + TEN,
        ),
        ({"b": (10, 4), "a": (40, 20)}, "Most often changed: a, by 20 of 40 people (50 %)"),
    ],
)
def test_who_changed_a_preference_is_said_of_all_and_ties_of_each(settings, finding):
    made = preferences(**settings)
    assert made.ask("preference_changes").finding == finding
    made.close()


def test_a_comparison_is_as_sure_as_the_side_of_fewer_people():
    """Sixty people with negative turns, of whom four have others to compare with."""
    spoken = [
        said(5000 * person + 60 * turn, ("user", "assistant")[turn % 2], user=f"u{person}",
             conversation=f"c{person}", sentiment=0.5 if person < 4 and turn % 6 > 1 else -0.5)
        for person in range(60)
        for turn in range(12)
    ]  # fmt: skip
    world = World(talk(*spoken))
    finding = world.ask("mood_recovery").finding
    assert finding.startswith("Too little data (4 people) for more than a description")
    assert finding.count("(no clear difference)") == 2
    world.close()


@pytest.mark.slow
def test_hours_that_tie_are_not_said_to_be_of_the_people_of_one():
    spoken = [said(at * 3600, user=f"u{at % 5 if at % 2 else 0}") for at in range(24 * 14)]
    world = World(talk(*spoken))
    finding = world.ask("week_heatmap").finding
    assert "alike: 2 messages, 0.6 % of 336" in finding
    world.close()


@pytest.mark.slow
def test_the_unit_is_the_mixed_one_where_some_conversations_are_unnamed():
    spoken = [
        said(9000 * one + 60 * turn, ("user", "assistant")[turn % 2],
             ("cats and dogs", "dogs and birds")[turn % 2], conversation=f"c{one}",
             user=f"u{one}" if one < 8 else None)
        for one in range(14)
        for turn in range(4)
    ]  # fmt: skip
    world = World(talk(*spoken))
    for name in ("reply_latency", "distinguishing_words", "turns"):
        answer = world.ask(name)
        assert set(answer._rows[UNIT]) == {MIXED}, name
        assert f"14 {MIXED}" in answer.finding
    assert set(world.ask("reply_latency", filters={"user": ["u1", "u2"]})._rows[UNIT]) == {"people"}
    world.close()
