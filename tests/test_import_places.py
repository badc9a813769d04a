"""Messages without ids are known by their places: edited ones are updated, equal ones counted."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.importing import places
from aico_lab.sources.exports.engine import reading
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.zones import get_zone
from tests.effort import examples
from tests.exported import read

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.importing.importer import ImportResult
    from aico_lab.lab import Lab

ZED = Options(companion=("Zed",))
EDITED = " <Diese Nachricht wurde bearbeitet.>"
DELETED = "Diese Nachricht wurde gelöscht."


def counts(result: ImportResult) -> tuple[int, int, int]:
    return result.added, result.known, result.updated


def stored(lab: Lab) -> list[tuple[Any, ...]]:
    return lab.primary.fetch_all(
        "SELECT timestamp, json_extract(metadata, '$.author'), content FROM messages "
        "ORDER BY timestamp, id"
    )


def texts(lab: Lab) -> list[str]:
    return [text for *_, text in stored(lab)]


@pytest.fixture
def take(lab: Lab, tmp_path: Path) -> Any:
    """Import a chat of WhatsApp, given as its lines without the date."""

    def run(*lines: str, options: Options = ZED, **more: Any) -> ImportResult:
        path = tmp_path / "chat.txt"
        path.write_text("".join(f"13.05.25, {line}\n" for line in lines), encoding="utf-8")
        return lab.import_from(path, options=options, **more)

    return run


def test_an_edited_message_is_updated_and_an_older_export_leaves_it(lab, take):
    begin, end = "21:07 - Ann: ok", "21:09 - Ann: bye"
    first = (begin, "21:08 - Zed: tpyo", end)
    later = (begin, f"21:08 - Zed: typo{EDITED}", end)
    assert counts(take(*first)) == (3, 0, 0)
    ids = lab.primary.fetch_all("SELECT message_id FROM messages ORDER BY id")
    assert counts(take(*later)) == (0, 2, 1)
    assert counts(take(*later)) == (0, 3, 0)
    assert texts(lab) == ["ok", "typo", "bye"]
    old = take(*first, deletions=True)
    assert (*counts(old), old.missing, old.returned) == (0, 3, 0, 0, 0)
    assert texts(lab) == ["ok", "typo", "bye"]
    assert counts(take(begin, f"21:08 - Zed: Tippfehler{EDITED}", end)) == (0, 2, 1)
    assert texts(lab) == ["ok", "Tippfehler", "bye"]
    assert lab.primary.fetch_all("SELECT message_id FROM messages ORDER BY id") == ids


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("lunch", "dinner*"),
        ("ok", "okay-then-let-us-do-that*"),
        ("ok ok ok", "ok no* ok"),
        ("ok ok", "no* yes*"),
        ("a b", "a x* b"),
    ],
)
def test_an_older_export_does_not_add_the_text_before_an_edit(lab, take, before, after):
    """However little the texts have in common: the edited one is known by the id of the first."""

    def lines(said: str) -> list[str]:
        words = [f"21:07 - Ann: {word.replace('*', EDITED)}" for word in f"hi {said} bye".split()]
        return ["21:07 - Zed: begin", *words]

    take(*lines(before))
    take(*lines(after))
    said = ["begin", "hi", *after.replace("*", "").split(), "bye"]
    assert Counter(texts(lab)) == Counter(said)
    result = take(*lines(before), deletions=True)
    assert (result.added, result.updated, Counter(texts(lab))) == (0, 0, Counter(said))
    berlin = Options(companion=("Zed",), zone=get_zone("Europe/Berlin"))
    for export in (before, after):  # as a folder is imported again, the oldest file first
        assert take(*lines(export), options=berlin).added == 0
    assert Counter(texts(lab)) == Counter(said)
    assert {time[11:16] for time, *_ in stored(lab)} == {"19:07"}


def test_an_older_export_may_come_after_the_edit_alone(lab, take):
    """The only message of its author in that minute is the edited one, however unlike."""
    begin = "21:07 - Ann: hello there"
    take(begin, f"21:08 - Zed: okay then, let us do that{EDITED}")
    assert counts(take(begin, "21:08 - Zed: ok")) == (0, 2, 0)
    assert texts(lab) == ["hello there", "okay then, let us do that"]


@pytest.mark.parametrize(
    ("gone", "end"), [([f"21:08 - Ann: {DELETED}"], []), ([], ["21:24 - Zed: there?"])]
)
def test_a_new_message_in_the_minute_of_a_deleted_edited_one_is_kept(lab, take, gone, end):
    """WhatsApp marks edits, and allows them for 15 minutes: a later export shows all of them."""
    begin, first = "21:07 - Zed: hello", "okay then, let us do that"
    take(begin, f"21:08 - Ann: {first}{EDITED}")
    result = take(begin, *gone, "21:08 - Ann: where are you?", *end, deletions=True)
    assert (result.updated, result.missing) == (0, 1)
    assert texts(lab)[1:3] == [first, "where are you?"]


def test_a_message_that_whatsapp_writes_otherwise_later_is_not_added_again(take):
    """As when a mentioned number was saved as a contact, or the phone's language was changed."""
    begin, end = "21:07 - Zed: hello", "21:34 - Zed: there?"
    take(begin, "21:08 - Ann: @491511234567 ok?", "21:09 - Ann: Missed voice call", end)
    result = take(begin, "21:08 - Ann: @Clara ok?", "21:09 - Ann: Verpasster Sprachanruf", end)
    assert (result.added, result.updated) == (0, 2)


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("a b c", "a x* c", (0, 2, 1)),
        ("ok ok ok", "no* ok ok", (0, 2, 1)),
        ("ok ok ok", "ok no* ok", (0, 2, 1)),
        ("ok ok", "ok ok ok", (1, 2, 0)),
        ("ok ok", "no* yes* ok", (1, 0, 2)),
        ("a", "x* b", (1, 0, 1)),
        ("a", "b x*", (1, 0, 1)),
        ("a b", "b a", (0, 2, 0)),
        ("morning evening night", "evenings*", (0, 0, 1)),
    ],
)
def test_messages_of_one_minute_are_told_apart_by_their_order(lab, take, before, after, changed):
    """A star is the mark of an edit."""

    def lines(said: str) -> list[str]:
        words = [f"21:07 - Ann: {word.replace('*', EDITED)}" for word in said.split()]
        return ["21:06 - Zed: begin", *words]

    take(*lines(before))
    later = [*lines(after), "21:08 - Zed: end"]
    assert counts(take(*later)) == (changed[0] + 1, changed[1] + 1, changed[2])
    given_now = ["begin", *after.replace("*", "").split(), "end"]
    assert Counter(given_now) <= Counter(texts(lab))
    if len(before.split()) <= len(after.split()) and after not in {"b a", "b x*"}:
        assert texts(lab) == given_now
    assert counts(take(*later)) == (0, len(given_now), 0)


def test_an_edit_is_known_in_another_zone_and_under_another_companion(lab, take):
    lines = ["21:07 - Ann: ok", "21:08 - Zed: tpyo", "21:09 - Ann: bye"]
    take(*lines)
    lines[1] = f"21:08 - Zed: typo{EDITED}"
    berlin = Options(companion=("Ann",), zone=get_zone("Europe/Berlin"))
    assert counts(take(*lines, options=berlin)) == (0, 0, 3)
    assert [(time[11:16], text) for time, _, text in stored(lab)] == [
        ("19:07", "ok"), ("19:08", "typo"), ("19:09", "bye")
    ]  # fmt: skip
    assert counts(take(*lines)) == (0, 0, 3)
    assert texts(lab) == ["ok", "typo", "bye"]


@pytest.mark.parametrize(
    "dates",
    [
        [("28.03.26", "20:00"), ("29.03.26", "20:00"), ("29.03.26", "20:01")],
        [("25.10.26", "02:30"), ("25.10.26", "02:31"), ("25.10.26", "02:30")],
        [("25.10.26", "02:30"), ("25.10.26", "02:30"), ("25.10.26", "03:30")],
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("zones", [("Europe/Berlin", "UTC"), ("UTC", "Europe/Berlin")])
def test_an_edit_at_a_change_of_clocks_is_known_in_another_zone(lab, tmp_path, dates, place, zones):
    path = tmp_path / "chat.txt"
    first, second = (Options(companion=("Zed",), zone=get_zone(zone)) for zone in zones)

    def take(text: str, options: Options) -> ImportResult:
        said = ["one", "two", "three"]
        said[place] = text
        lines = [
            f"{day}, {time} - {author}: {words}\n"
            for (day, time), author, words in zip(dates, ("Ann", "Zed", "Ann"), said, strict=True)
        ]
        path.write_text("".join(lines), encoding="utf-8")
        return lab.import_from("whatsapp", path, options=options)

    take("quite another text", first)
    take(f"edited{EDITED}", first)
    result = take(f"edited{EDITED}", second)
    assert (result.added, len(stored(lab))) == (0, 3)
    told = {text: time for time, _, text in stored(lab)}
    fresh = [
        one.timestamp
        for one in read("whatsapp", path, companion=("Zed",), zone=second.zone).messages
    ]
    assert sorted(told.values()) == sorted(fresh)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("decides", ["13/2/26, 10:05 - A: now\n", ""])
def test_dates_that_were_read_the_wrong_way_round_are_corrected(lab, tmp_path, decides, zone):
    """By the user, or by a number above 12 in a later export; also of an edited message."""
    path = tmp_path / "chat.txt"
    days = ["1/2", "2/2", "3/2", "4/2", "5/2"]
    begin = "".join(f"{day}/26, 10:05 - {'AZ'[n % 2]}: words {n}\n" for n, day in enumerate(days))
    path.write_text(begin)
    answers = {"companion": "Z", "timezone": zone}
    assert lab.import_from(path, day_first=False, **answers).added == 5
    begin = begin.replace("words 1", f"else{EDITED}")
    path.write_text(begin)
    assert lab.import_from(path, day_first=False, **answers).added == 0
    path.write_text(begin.replace("words 3", f"x{EDITED}") + decides)
    answers["day_first"] = None if decides else True
    result = lab.import_from(path, **answers)
    assert (result.added, result.updated) == (bool(decides), 4)
    times = [time for time, *_ in stored(lab)]
    assert [time[:10] for time in times[:5]] == [f"2026-02-0{n}" for n in range(1, 6)]
    assert texts(lab)[:5] == ["words 0", "else", "words 2", "x", "words 4"]
    again = lab.import_from(path, **answers)
    assert (again.added, again.updated) == (0, 0)


def test_what_an_older_version_stored_keeps_its_ids_and_is_updated(lab, take):
    """It took this placeholder for words; a text may also be changed by a better reading."""
    take("21:07 - Ann: Mein Garten", "21:08 - Zed: ok")
    lab.primary.execute(
        "UPDATE messages SET content = '<Medien ausgeschlossen>' || char(10) || content "
        "WHERE id = 1"
    )
    assert counts(take("21:07 - Ann: Mein Garten", "21:08 - Zed: ok")) == (0, 1, 1)
    assert texts(lab) == ["Mein Garten", "ok"]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_the_end_of_a_batch_does_not_part_a_minute(lab, take, monkeypatch, size):
    monkeypatch.setattr(reading, "BATCH_MESSAGES", size)
    lines = [f"21:{n // 2:02} - {'Ann' if n % 3 else 'Zed'}: {n}" for n in range(13)]
    assert take(*lines).added == 13
    later = [line if n % 4 else f"{line}!{EDITED}" for n, line in enumerate(lines)]
    assert counts(take(*later)) == (0, 9, 4)
    assert counts(take(*later)) == (0, 13, 0)
    assert texts(lab) == [f"{n}" if n % 4 else f"{n}!" for n in range(13)]


# Other ids of a chat

PAIR = ("21:07 - Ann: one", "21:17 - Zed: ok", "22:17 - Zed: ok", "22:18 - Ann: four")
BERLIN = Options(companion=("Zed",), zone=get_zone("Europe/Berlin"))


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (PAIR, (*PAIR, "22:30 - Bob: here I am")),
        (PAIR, (*PAIR, "22:30 - Ann hat den Betreff zu „Neu“ geändert.", "22:31 - Bob: five")),
        ((*PAIR, "22:30 - Bob: here I am"), (*PAIR, "22:30 - Bob: here I am",
         "22:31 - Ann hat den Betreff zu „Neu“ geändert.", "22:32 - Bob: five")),
        (PAIR, (*PAIR[1:], "22:31 - Bob: five")),
        (("21:07 - Zed: one",), ("21:07 - Zed: one", "21:08 - Ann: two", "21:09 - Zed: three")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["Runde.txt", "chat.txt"])
def test_a_chat_that_grows_stays_the_same_one_whoever_comes_later(
    lab, tmp_path, first, later, name
):
    def take(lines: tuple[str, ...], options: Options = ZED) -> tuple[int, int, int]:
        path = tmp_path / name
        path.write_text("".join(f"13.05.25, {line}\n" for line in lines), encoding="utf-8")
        return counts(lab.import_from("whatsapp", path, options=options))

    here, there = (sum(": " in line for line in lines) for lines in (first, later))
    assert take(first) == (here, 0, 0)
    new = len({line for line in later if ": " in line} - set(first))
    assert take(later) == (new, there - new, 0)
    assert take(later) == (0, there, 0)
    assert take(later, BERLIN) == (0, 0, there)
    edited = (f"{later[0]}!{EDITED}", *later[1:])
    assert take(edited, BERLIN) == (0, there - 1, 1)
    found = lab.primary.fetch_all("SELECT count(DISTINCT conversation_id), count(*) FROM messages")
    assert found == [(1, here + new)]


def test_another_chat_of_the_same_people_is_another_one(lab, tmp_path):
    group = ("21:00 - Ann hat die Gruppe „Boot“ erstellt.", "21:07 - Ann: hi", "21:17 - Zed: ok",
             "21:19 - Zed: ahoi", "21:20 - Ann: so?")  # fmt: skip
    for lines in (PAIR, group):
        path = tmp_path / "chat.txt"
        path.write_text("".join(f"13.05.25, {line}\n" for line in lines), encoding="utf-8")
        assert lab.import_from("whatsapp", path, options=ZED).added == 4
    found = lab.primary.fetch_all("SELECT count(DISTINCT conversation_id) FROM messages")
    assert found == [(2,)]


# SillyTavern


@pytest.fixture
def take_tavern(lab: Lab, tmp_path: Path) -> Any:
    """Import a chat of SillyTavern, given as pairs of name and text, with other keys."""

    def run(*lines: tuple[str, str, dict[str, Any]], **more: Any) -> ImportResult:
        path = tmp_path / "Zed - 2025-05-13.jsonl"
        head = {"user_name": "Ann", "character_name": "Zed", "create_date": "2025-5-13@21h07m00s"}
        said = [
            {"name": name, "is_user": name == "Ann", "mes": text,
             "send_date": f"May 13, 2025 9:{number:02}pm", **keys}
            for number, (name, text, keys) in enumerate(lines)
        ]  # fmt: skip
        path.write_text("".join(json.dumps(one) + "\n" for one in (head, *said)))
        return lab.import_from(path, **more)

    return run


def test_an_edit_in_sillytavern_is_an_update_also_of_the_last_swipe(lab, take_tavern):
    take_tavern(("Ann", "hi", {}), ("Zed", "helo", {}), ("Ann", "so?", {}), ("Zed", "one", {}))
    later = (
        ("Ann", "hi", {}), ("Zed", "hello", {}), ("Ann", "so?", {}),
        ("Zed", "another", {"swipes": ["one", "another"], "swipe_id": 1}),
    )  # fmt: skip
    assert counts(take_tavern(*later)) == (0, 2, 2)
    assert counts(take_tavern(*later)) == (0, 4, 0)
    assert texts(lab) == ["hi", "hello", "so?", "another"]


def test_a_swipe_in_sillytavern_with_a_time_of_its_own_is_an_update(lab, take_tavern):
    infos = [{"send_date": f"May 13, 2025 9:{at:02}pm"} for at in (3, 7, 29)]
    begin = (("Ann", "hi", {}), ("Zed", "hello", {}), ("Ann", "so?", {}))
    swipes = ["one", "another", "third"]

    def swiped(count: int) -> tuple[str, str, dict[str, Any]]:
        keys = {"swipes": swipes[:count], "swipe_id": count - 1, "swipe_info": infos[:count]}
        return "Zed", swipes[count - 1], keys | infos[count - 1]

    assert counts(take_tavern(*begin, ("Zed", "one", {}))) == (4, 0, 0)
    for count in (2, 3):
        assert counts(take_tavern(*begin, swiped(count))) == (0, 3, 1)
        assert counts(take_tavern(*begin, swiped(count))) == (0, 4, 0)
        assert texts(lab) == ["hi", "hello", "so?", swipes[count - 1]]
    edited = (("Ann", "hi", {}), ("Zed", "hello!", {}), ("Ann", "so?", {}))
    after = ("Ann", "well", {"send_date": "May 13, 2025 9:30pm"})
    assert counts(take_tavern(*edited, swiped(3), after)) == (1, 3, 1)
    assert counts(take_tavern(*begin, ("Zed", "one", {}), deletions=True)) == (0, 2, 2)
    assert lab.primary.fetch_all("SELECT count(*) FROM messages") == [(5,)]


def test_an_edit_among_very_many_messages_of_one_moment_is_known(lab, take, monkeypatch):
    monkeypatch.setattr(places, "_MOST", 100)
    lines = ["21:06 - Zed: begin", *(f"21:07 - Ann: {number}" for number in range(12))]
    take(*lines)
    lines[1] = "21:07 - Ann: edited"
    lines[6] = f"21:07 - Ann: else{EDITED}"
    lines.append("21:08 - Zed: end")
    assert counts(take(*lines)) == (1, 11, 2)
    assert texts(lab)[:8] == ["begin", "edited", "1", "2", "3", "4", "else", "6"]


def test_a_message_behind_a_deleted_one_is_no_edit_of_it(lab, take):
    """Where both sides write at one time, the order of all of them shows it."""
    begin = ["21:07 - Ann: so?", "21:07 - Zed: well", "21:07 - Ann: and?"]
    take("21:06 - Zed: hi", *begin)
    del begin[1]
    result = take("21:06 - Zed: hi", *begin, "21:07 - Zed: quite another answer", deletions=True)
    assert (counts(result), result.missing) == ((1, 3, 0), 1)
    assert texts(lab) == ["hi", "so?", "well", "and?", "quite another answer"]


# Growth


WORDS = st.sampled_from(["ok", "Zimmer", "1234", "hmpf", "yyy\nvvv", "ok ok"])


@dataclass
class Line:
    """A message of a chat, as later exports may have it."""

    minute: int
    author: str
    text: str
    is_edited: bool = False
    is_deleted: bool = False
    leaves_notice: bool = False

    def written(self, marks: str) -> str:
        begin = f"13.05.25, {21 + self.minute // 60}:{self.minute % 60:02} - {self.author}: "
        if self.is_deleted:
            return f"{begin}{DELETED}\n" if self.leaves_notice else ""
        return f"{begin}{self.text}{marks if self.is_edited else ''}\n"


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Return the exports of a chat month by month, and the texts of what was deleted."""
    lines = [Line(0, "Ann", "first"), Line(0, "Zed", "second")]
    minute, exports, gone = 0, [], []
    for _ in range(draw(st.integers(2, 4))):
        for _ in range(draw(st.integers(0, 5))):
            minute += draw(st.sampled_from([0, 0, 1, 2]))
            lines.append(Line(minute, draw(st.sampled_from(["Ann", "Zed"])), draw(WORDS)))
        if exports:
            for line in draw(st.lists(st.sampled_from(lines[2:] or lines), max_size=3)):
                line.text, line.is_edited = draw(WORDS) + "!" * draw(st.integers(0, 2)), True
            for line in draw(st.lists(st.sampled_from(lines[2:] or lines), max_size=2)):
                if not line.is_deleted:
                    gone.append(line)
                line.is_deleted, line.leaves_notice = True, draw(st.booleans())
        exports.append("".join(line.written(EDITED) for line in lines))
    return exports, [line.text for line in gone]


@pytest.mark.slow
@settings(
    max_examples=examples(40), deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(histories(), st.sampled_from([2, 5, 10_000]))
def test_a_chat_that_grows_is_the_same_month_by_month_and_at_once(homes, tmp_path, chat, size):
    """Each export has all it can; only what was deleted may stand beside it."""
    exports, gone = chat
    path = tmp_path / "chat.txt"

    def take(lab: Lab, text: str) -> ImportResult:
        path.write_text(text, encoding="utf-8")
        return lab.import_from("whatsapp", path, options=ZED)

    with (
        pytest.MonkeyPatch.context() as patch,
        homes.open(tmp_path / uuid.uuid4().hex) as grown,
        homes.open(tmp_path / uuid.uuid4().hex) as once,
    ):
        patch.setattr(reading, "BATCH_MESSAGES", size)
        for export in exports:
            take(grown, export)
            again = take(grown, export)
            assert (again.added, again.updated) == (0, 0)
        take(once, exports[-1])
        monthly, alone = stored(grown), stored(once)
        assert not Counter(alone) - Counter(monthly)
        assert len(monthly) <= len(alone) + len(gone)
        if not gone:
            assert monthly == alone
