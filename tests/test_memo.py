"""Kept answers of metrics: equal to computed ones, or not given at all."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from aico_lab.errors import StorageError, UnknownName
from aico_lab.lab import Lab
from aico_lab.metrics.engine import asking, memo
from aico_lab.metrics.engine.catalogue import CATALOGUE
from tests.conftest import plain_text_files
from tests.messages import add, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.databases import Homes


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The metrics that were computed, not found."""
    computed: list[str] = []
    ask = asking.ask

    def counting(metric, *others):
        computed.append(metric.name)
        return ask(metric, *others)

    monkeypatch.setattr(asking, "ask", counting)
    return computed


@pytest.fixture
def synced(home: Path, homes: Homes) -> Iterator[Lab]:
    with homes.open(home, messages=8, synced=True) as lab:
        yield lab


def same(one, other) -> bool:
    """Whether two answers are the same to their last detail."""
    return (
        one._rows.equals(other._rows)
        and one._rows.schema == other._rows.schema
        and repr(one) == repr(other)
        and (one.finding, one.caption, one.notes) == (other.finding, other.caption, other.notes)
        and (one.users, one.channels, one.filters) == (other.users, other.channels, other.filters)
    )


QUESTIONS = [
    ("overview", {}),
    ("turns", {"role": "user", "timezone": "Europe/Berlin"}),
    ("daily_activity", {"since": "3d"}),
    ("daily_activity", {"since": date(2024, 1, 1), "until": "2030-01-01"}),
    ("reply_latency", {"user": "u", "min_people": 2}),
    ("vocabulary", {"channel": ["c"]}),
    ("distinguishing_words", {"min_people": 1, "top": 3}),
]


def test_a_second_question_is_answered_by_another_process_too(
    synced: Lab, counted: list[str], home: Path
) -> None:
    """Every detail is as it was computed; another filter is another question."""
    asked = [(name, given) for name, given in QUESTIONS if name in CATALOGUE]
    first = [synced.metrics[name](**given) for name, given in asked]
    assert len(asked) > 4
    counted.clear()
    with Lab.open(home) as other:
        for (name, given), answer in zip(asked, first, strict=True):
            assert same(other.metrics[name](**given), answer)
        assert counted == []
        other.metrics.overview(timezone="Europe/Berlin")
        other.metrics.turns()
        assert counted == ["overview", "turns"]
        kept = other.metrics.memo.remembered()
        assert len(kept) == len(asked) + 2
        assert {one.metric for one in kept} >= {"overview", "turns"}
        assert kept[0].seconds > 0
        assert "Answers kept" in repr(other.metrics.memo)


def test_another_snapshot_is_another_question(synced: Lab, counted: list[str], home: Path) -> None:
    """Its answers go with the snapshot; a rebuilt warehouse has none."""
    synced.metrics.overview()
    add(synced.primary, message(100))
    synced.sync()
    synced.metrics.overview()
    assert counted == ["overview"] * 2
    with Lab.open(home, generation=1) as pinned:
        assert pinned.metrics.overview().generation == 1
    assert len(counted) == 2
    synced.sync()  # publishes nothing
    synced.metrics.overview()
    assert len(counted) == 2
    (synced.home.answers / "00000099").mkdir()  # of a snapshot that somebody removed
    for number in range(101, 104):
        add(synced.primary, message(number))
        synced.sync()
    assert [path.name for path in synced.home.answers.iterdir()] == []


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swap", "folder"])
def test_a_damaged_answer_is_computed_again(synced: Lab, counted: list[str], damage: str) -> None:
    """Also one that was moved to the name of another."""
    right = synced.metrics.turns()
    synced.metrics.overview()
    for path in synced.home.answers.glob("*/*"):
        content = path.read_bytes()
        if damage == "flip":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif damage == "cut":
            path.write_bytes(content[:40])
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "swap":
            path.rename(path.with_suffix(".moved"))
        else:
            path.unlink()
            path.mkdir()
    if damage == "swap":
        one, other = sorted(synced.home.answers.glob("*/*.moved"))
        one.rename(other.with_suffix(".answer"))
        other.rename(one.with_suffix(".answer"))
    counted.clear()
    assert same(synced.metrics.turns(), right)
    assert counted == ["turns"]


def test_the_second_of_two_equal_hours_is_another_question(lab: Lab, counted: list[str]) -> None:
    """The hour from 1 to 2 o'clock is there twice when summer time ends."""
    add(lab.primary, message(1, timestamp=datetime(2024, 11, 3, 6, 15, tzinfo=UTC)))
    add(lab.primary, message(2, timestamp=datetime(2024, 11, 3, 8, 0, tzinfo=UTC)))
    lab.sync()
    first = datetime(2024, 11, 3, 1, 30)  # noqa: DTZ001 - in the zone of the question
    for fold, count in ((0, 2), (1, 1)) * 2:
        found = lab.metrics.overview(since=first.replace(fold=fold), timezone="America/New_York")
        assert found.pl()["n"][0] == count
    assert counted == ["overview"] * 2


def test_other_files_of_the_snapshot_are_another_question(synced: Lab, home: Path) -> None:
    """So a kept answer does not hide that the snapshot is damaged now."""
    synced.metrics.turns()
    (snapshot,) = synced.home.snapshots.glob("*.duckdb")
    snapshot.unlink()  # the writer's file may be the same
    snapshot.write_bytes(b"damaged")
    with Lab.open(home) as other, pytest.raises(StorageError):
        other.metrics.turns()


@pytest.mark.parametrize("limit", ["MOST", "MOST_BYTES"])
def test_the_oldest_answers_go_first(
    synced: Lab, counted: list[str], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """If there are too many of a snapshot, or if they are too large."""
    synced.metrics.turns()
    (first,) = synced.home.answers.glob("*/*")
    os.utime(first, (0, 0))
    synced.metrics.overview()
    size = sum(file.stat().st_size for file in synced.home.answers.glob("*/*"))
    monkeypatch.setattr(memo, limit, 2 if limit == "MOST" else size + 1_000)
    synced.metrics.daily_activity()
    assert not first.exists()
    counted.clear()
    synced.metrics.daily_activity()
    assert counted == []


def test_something_else_in_the_place_of_the_answers_stops_no_sync(synced: Lab) -> None:
    """The new snapshot is there, and what follows is done too."""
    synced.metrics.memo.forget()
    synced.home.answers.write_text("no folder")
    add(synced.primary, message(100))
    synced.sync()
    assert synced.metrics.overview().generation == 2


def test_a_warehouse_made_anew_has_other_answers(synced: Lab, home: Path) -> None:
    """Its snapshot has the number of the one that is open here, and what nobody knows is asked."""
    before = synced.metrics.overview()
    add(synced.primary, message(100))
    shutil.rmtree(synced.home.warehouse)
    with Lab.open(home) as other:
        other.sync()
        assert other.generation == before.generation
    assert synced.metrics.overview().pl()["n"][0] == before.pl()["n"][0] + 1
    with Lab.open(home) as other:
        assert same(other.metrics.overview(), synced.metrics.overview())


def test_an_answer_of_replaced_files_is_not_kept(
    synced: Lab, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they are replaced while it is computed, or the old ones are pinned and open."""
    (snapshot,) = synced.home.snapshots.glob("*.duckdb")
    ask, times = asking.ask, iter(range(10**9, 2 * 10**9, 10**8))

    def replacing(*asked):
        answer = ask(*asked)
        os.utime(snapshot, ns=(0, next(times)))
        return answer

    monkeypatch.setattr(asking, "ask", replacing)
    with Lab.open(home, generation=1) as pinned:
        for _ in range(2):
            synced.metrics.turns()
            pinned.metrics.overview()
    assert synced.metrics.memo.remembered() == []


def test_answers_that_go_meanwhile_are_left_out(
    synced: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are links to nothing; the others are listed and kept."""
    synced.metrics.turns()
    (file,) = synced.home.answers.glob("*/*.answer")
    (file.parent / "0.answer").symlink_to("nothing")
    synced.metrics.overview()
    assert len(synced.metrics.memo.remembered()) == 2
    read = memo.Memo._read
    monkeypatch.setattr(memo.Memo, "_read", lambda self, path: (read(self, path), path.unlink())[0])
    assert len(synced.metrics.memo.remembered()) == 2
    assert synced.metrics.memo.remembered() == []


def test_kept_answers_are_encrypted(synced: Lab, tmp_path: Path) -> None:
    """Their names say nothing of the question either."""
    answer = synced.metrics.turns(user="u")
    assert answer.users
    synced.close()
    (file,) = (tmp_path / "home" / "warehouse" / "answers").glob("*/*.answer")
    assert file.stat().st_mode & 0o777 == 0o600
    assert plain_text_files(tmp_path / "home" / "warehouse" / "answers", "turns") == []


def test_an_unencrypted_home_keeps_answers_too(tmp_path: Path, counted: list[str]) -> None:
    """A changed one is not believed there either."""
    with Lab.create(tmp_path / "plain", protection="none") as lab:
        add(lab.primary, message(1))
        lab.sync()
        lab.metrics.turns()
        lab.metrics.turns()
        assert counted == ["turns"]
        (file,) = lab.home.answers.glob("*/*.answer")
        content = file.read_bytes()
        file.write_bytes(content.replace(b'"far":0', b'"far":7'))
        assert lab.metrics.turns().far == 0
        assert counted == ["turns"] * 2


def test_it_can_be_switched_off(
    synced: Lab, counted: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a lab, or by the environment; and everything can be forgotten."""
    synced.metrics.memo.on = False
    synced.metrics.turns()
    assert not synced.home.answers.exists()
    synced.metrics.memo.on = True
    synced.metrics.turns()
    synced.metrics.turns()
    assert counted == ["turns"] * 2
    with monkeypatch.context() as patched:
        patched.setenv("AICO_LAB_KEEP_ANSWERS", "no")
        with Lab.open(home) as other:
            other.metrics.turns()
    assert counted == ["turns"] * 3
    synced.metrics.memo.forget()
    synced.metrics.turns()
    assert counted == ["turns"] * 4


def test_answers_that_depend_on_the_time_end_with_it(
    lab: Lab, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message of the future ends them when its time comes; so does a clock that is set back."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    add(lab.primary, message(1))
    add(lab.primary, message(2, timestamp=soon))
    lab.sync()
    lab.metrics.overview()
    lab.metrics.overview()
    assert counted == ["overview"]
    real = time.time_ns
    for hours in (0.9995, -1):  # two seconds before the message, and before the first question
        monkeypatch.setattr(
            time, "time_ns", lambda hours=hours: real() + int(hours * 3_600 * 10**9)
        )
        lab.metrics.overview()
    assert counted == ["overview"] * 3
    monkeypatch.setattr(time, "time_ns", real)
    for _ in range(2):
        lab.metrics.overview(since="30000d")
    assert counted == ["overview"] * 5


def test_other_code_is_another_question(
    synced: Lab, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of metrics, libraries or time zones; metrics of other packages are not kept at all."""
    synced.metrics.turns()
    for name in ("_definition", "_rules_of"):
        monkeypatch.setattr(memo, name, lambda *_: "another")
        synced.metrics.turns()
    assert counted == ["turns"] * 3
    monkeypatch.setattr(type(CATALOGUE), "ships", lambda *_: False)
    synced.metrics.turns()
    assert counted == ["turns"] * 4


def test_wrong_questions_stay_errors(synced: Lab) -> None:
    """Also the second time."""
    for _ in range(2):
        with pytest.raises(UnknownName):
            synced.metrics.turns(user="nobody")
