"""Messages, sessions and reply times by person and channel, and the pseudonyms of both."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict

import polars as pl
import pytest
from hypothesis import given, settings

from aico_lab.errors import InvalidValue
from aico_lab.lab import Lab
from aico_lab.metrics.engine.catalogue import CATALOGUE
from tests.effort import examples
from tests.talks import OTHERS, World, said, talk, talks, world
from tests.talks_by_hand import (
    HALF_AN_HOUR,
    assert_rows,
    messages_of,
    real_messages,
    smallest_reaching,
    turns_of,
)

HALF_A_DAY = 12 * 3_600_000
KEYS = {"people": "person", "channels": "channel"}


@pytest.fixture(scope="module")
def real():
    with world(real_messages(6_000)) as made:
        yield made


def numbers(raw: pl.DataFrame, key: str) -> dict[str, int]:
    """Who was stored first, second and so on."""
    in_order = dict.fromkeys(raw.sort("id")[key].drop_nulls().to_list())
    return {one: number for number, one in enumerate(in_order, 1)}


def places(counts: Counter, numbered: dict[str, int], top: int, may: set[str]) -> dict:
    """Which row each person or channel is in: of its own, of the others, or of nobody."""
    in_order = sorted(may, key=lambda one: (-counts[one], numbered[one]))
    own = {one: place for place, one in enumerate(in_order[:top], 1)}
    return {one: own.get(one, top + 1) if one is not None else top + 2 for one in counts}


def median(turns, role, fewest=5):
    times = [
        turn.reply_ms
        for turn in turns
        if turn.role == role and turn.reply_ms is not None and turn.reply_ms <= HALF_A_DAY
    ]
    middle = smallest_reaching(times, 0.5) if len(times) >= fewest else None
    return len(times), None if middle is None else middle / 1000


def breakdown_by_hand(raw: pl.DataFrame, what: str, top: int, least: int = 1) -> list[dict]:
    messages, turns = messages_of(raw), turns_of(messages_of(raw))
    of_people = what == "people"
    number = numbers(raw, "user_id" if of_people else "channel_id")
    channel = {m.conversation: m.channel for m in messages}  # of these talks, one each

    def whose(one):
        return one.person if of_people else channel[one.conversation]

    counts = Counter(whose(m) for m in messages if not of_people or m.role == "user")
    people = defaultdict(set)
    for m in messages:
        people[whose(m)] |= {m.person} - {None}
    may = {
        one
        for one in counts
        if one is not None and (least == 1 or (not of_people and len(people[one]) >= least))
    }
    place = places(counts, number, top, may)
    members = defaultdict(set)
    for one, at in place.items():
        members[at].add(one)
    rows = []
    for at in sorted(members):
        here = [m for m in messages if place.get(whose(m)) == at]
        by_user = sum(m.role == "user" for m in here)
        begun = [m for m in here if m.gap_ms is None or m.gap_ms > HALF_AN_HOUR]
        own_turns = [turn for turn in turns if place.get(whose(turn)) == at]
        named = members[at] - {None}
        label = f"{len(named)} others" if len(members) > 1 else "all"
        if len(named) < 2:
            prefix = "Person" if of_people else "Channel"
            label = f"{prefix} {number[next(iter(named))]}" if named else "nobody named"
        row = {KEYS[what]: label, "n": by_user if of_people else len(here)}
        row["people"] = len({m.person for m in here} - {None})
        row["share"] = 100 * row["n"] / sum(counts.values())
        row["received" if of_people else "by_assistant"] = len(here) - by_user
        row["sessions"] = sum(m.role == "user" for m in begun) if of_people else len(begun)
        for role in ("user", "assistant"):
            row[f"{role}_replies"], row[f"{role}_p50"] = median(own_turns, role)
        if least == 1 or row["people"] >= least:
            rows.append(row)
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("what", KEYS)
@pytest.mark.parametrize(("top", "least"), [(20, 1), (3, 1), (20, 2)])
def test_they_are_what_plain_python_counts(real, what, top, least):
    filters = {"min_people": least} if least > 1 else {}
    expected = breakdown_by_hand(real.messages, what, top, least)
    assert_rows(real.ask(what, filters=filters, top=top), expected)


@pytest.mark.slow
@settings(max_examples=examples(12))
@given(talks(60))
def test_they_are_what_plain_python_counts_in_any_talk(messages):
    with world(messages) as made:
        for what in KEYS:
            assert_rows(made.ask(what, top=2), breakdown_by_hand(messages, what, 2))
            few = breakdown_by_hand(messages, what, 20, least=2)
            assert_rows(made.ask(what, filters={"min_people": 2}), few)


@pytest.mark.slow
def test_every_message_is_in_one_row_whatever_is_merged(real):
    total = len(messages_of(real.messages))
    wrote = sum(message.role == "user" for message in messages_of(real.messages))
    for top in (1, 7, 10_000):
        assert real.ask("people", top=top).pl()["n"].sum() == wrote
        assert real.ask("channels", top=top).pl()["n"].sum() == total


def spoken_by(*people: str) -> list[dict]:
    return [
        said(5000 * number, user=user, conversation=f"c-{user}")
        for number, user in enumerate(people)
    ]


@pytest.mark.slow
def test_findings_name_who_is_first_and_who_ties():
    with world(talk(*spoken_by("b", "a", "b", "c"))) as made:
        assert made.ask("people").finding == (
            "The most messages are by Person 1: 2 of 4 (50 %), among 3 people"
        )
        assert made.ask("channels").finding == (
            "The most messages are in Channel 1: 2 of 4 (50 %), among 3 channels"
        )
        some = made.ask("people", filters={"user": ["a", "c"]})
        assert some.finding == (
            "The most messages are by Person 2 and Person 3 alike: 1 of 2 each (50 %), among "
            "2 people"
        )
        assert made.ask("people", filters={"min_people": 2}).finding == "4 messages by 3 people"
        assert made.ask("people", filters={"min_people": 4}).finding == (
            "Too little data: nothing about fewer than 4 people is shown"
        )
        one = made.ask("people", filters={"user": "c"})
        assert one.finding == "1 message, by Person 3"
        assert made.ask("people", filters={"user": "b"}).finding == "2 messages, all by Person 1"
    with world(talk(*spoken_by("a", "b", "c"))) as made:
        assert made.ask("people", top=1).finding == (
            "The most messages are by Person 1 and 2 others alike: 1 of 3 each (33.3 %), among "
            "3 people"
        )
    with world(talk(said(0, user=None), said(5, user=None))) as made:
        assert made.ask("people").finding == "2 messages of nobody who is named"
        assert made.ask("people").pl()["person"].to_list() == ["nobody named"]
    with world(talk(said(0, "assistant"))) as made:
        assert made.ask("people").finding == "There are no data for an answer."


@pytest.mark.slow
def test_what_is_left_out_is_not_spoken_of():
    people = ["a"] * 4 + ["b"] * 3 + ["c", "d", "e"]
    with world(talk(*spoken_by(*people))) as made:
        answer = made.ask("people", top=2, filters={"min_cell": 4})
        assert answer.pl()["person"].to_list() == ["Person 1"]
        assert answer.finding == (
            "Of the rows that are shown: The most messages are by Person 1: 4 of 10 (40 %), among "
            "5 people"
        )
        # A channel of one person may be larger than those that may be shown.
        more = [
            *spoken_by(*people), *(said(n, user="x", conversation="both") for n in (1, 2)),
            said(60, user="y", conversation="both"),
        ]  # fmt: skip
    with world(talk(*more)) as made:
        answer = made.ask("channels", filters={"min_people": 2})
        assert answer.pl().select("channel", "n", "people").rows() == [
            ("Channel 6", 3, 2), ("5 others", 10, 5),
        ]  # fmt: skip
        assert answer.finding == (
            "The most messages are in Channel 6: 3 of 13 (23.1 %), among the channels with a row "
            "of their own"
        )


def test_a_median_of_few_replies_is_left_out():
    spoken = [
        said(100 * at + (at % 2) * 7, ("assistant", "user")[at % 2], user="u") for at in range(9)
    ]
    with world(talk(*spoken)) as made:
        row = made.ask("people").pl().row(0, named=True)
        assert (row["user_replies"], row["user_p50"]) == (4, None)
    with world(talk(*spoken, said(907))) as made:
        row = made.ask("people").pl().row(0, named=True)
        assert (row["user_replies"], row["user_p50"]) == (5, 107)


HOSTILE = "<script>alert('x')</script>\n\t\x1b[31m🎉 שלום"


def test_names_are_shown_on_request_only_and_in_one_line():
    users = pl.DataFrame(
        [("a", HOSTILE), ("b", "Ada"), ("c", "Ada"), ("d", "  "), ("e", None)],
        schema=OTHERS["users"],
        orient="row",
    )
    spoken = talk(*spoken_by("a", "b", "c", "d", "e", "f"))
    made = World(spoken, users=users)
    hidden, shown = made.ask("people"), made.ask("people", names=True)
    assert set(hidden.pl()["person"]) == {f"Person {number}" for number in range(1, 7)}
    for text in (str(hidden), hidden._repr_html_(), json.dumps(hidden.plot().to_dict())):
        assert "Ada" not in text
        assert "script" not in text.replace("javascript", "")
    assert set(shown.pl()["person"]) == {
        "<script>alert('x')</script> [31m🎉 שלום", "Ada (b)", "Ada (c)", "d", "e", "f",
    }  # fmt: skip
    assert "<script>" not in shown._repr_html_()
    assert "names yes" in shown.caption
    assert made.ask("channels", names=True).pl()["channel"].sort().to_list() == [
        f"c-{user}" for user in "abcdef"
    ]
    made.close()


@pytest.mark.parametrize("given", ["true", " Yes ", True])
def test_a_parameter_of_truth_takes_words(given):
    assert CATALOGUE["people"].check({"names": given})["names"] is True


@pytest.mark.parametrize("given", ["1", "", "maybe", 1, 0, None, 2.0])
def test_a_parameter_of_truth_refuses_other_values(given):
    with pytest.raises(InvalidValue, match="names must be true or false, not"):
        CATALOGUE["people"].check({"names": given})


def pseudonyms(lab: Lab) -> dict[str, dict[str, str]]:
    return {
        table: dict(lab.sql(f"SELECT {key}, pseudonym FROM mart.{table}").fetchall())
        for table, key in (("people", "user_id"), ("channels", "channel_id"))
    }


def lines(*people: str) -> str:
    return "".join(
        json.dumps(
            {
                "content": f"{number}",
                "timestamp": f"20{random.Random(user).randrange(10, 25)}-01-02T10:00:00Z",
                "user_id": user,
                "message_id": f"{user}-{number}",
            }
        )
        + "\n"
        for number, user in enumerate(people)
    )


@pytest.mark.slow
def test_pseudonyms_stay_when_others_come_and_when_the_warehouse_is_rebuilt(tmp_path):
    """Whatever the times of their messages and the order of their ids."""
    file = tmp_path / "m.jsonl"
    with Lab.create(tmp_path / "home", key_file=tmp_path / "key") as lab:
        file.write_text(lines("zoe", "bob", "zoe", "mia"))
        lab.import_from("jsonl", file)
        lab.sync()
        first = pseudonyms(lab)
        assert first["people"] == {"zoe": "Person 1", "bob": "Person 2", "mia": "Person 3"}
        file.write_text(lines("amy", "bob", "zed", "mia", "zoe"))
        lab.import_from("jsonl", file)
        lab.sync()
        second = pseudonyms(lab)
        for table, names in first.items():
            assert names.items() <= second[table].items()
        assert second["people"] == first["people"] | {"amy": "Person 4", "zed": "Person 5"}
        lab.sync(full=True)
        assert pseudonyms(lab) == second
        for question in (lab.metrics.people, lab.metrics.channels):
            answer = question(user="zed")
            assert "5" in answer.pl()[:, 0].item()


def test_a_name_turns_no_text():
    """Without its marks of direction; names that would then be alike have a number."""
    spoken = [said(at, user=user) for at, user in enumerate(["\u202eevil", "evil", "\u2067ada"])]
    with world(talk(*spoken)) as made:
        shown = made.ask("people", names=True).pl()["person"].to_list()
    assert min(shown) == "ada"
    assert {name[:6] for name in shown} == {"ada", "evil ("}
    assert len(set(shown)) == 3
