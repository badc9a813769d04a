"""Segments of messages: incremental updates equal one from scratch, whatever happened between."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.embeddings.encoders import Encoder
from aico_lab.embeddings.encoders.wordllama import WordLlama
from aico_lab.embeddings.segmenting import SegmentParameters, is_current, update_segments, writing
from aico_lab.embeddings.segmenting.boundaries import (
    similarities,
    starts_of_blocks,
    starts_of_segments,
    weigh,
)
from aico_lab.embeddings.segmenting.quality import pk, window_diff
from aico_lab.embeddings.segmenting.summary import LONGEST
from aico_lab.errors import InvalidValue
from aico_lab.lab import Lab
from aico_lab.schema import feed
from tests.costs import takes_about
from tests.databases import with_core_schemas
from tests.effort import examples
from tests.messages import add, at, message
from tests.test_segments_schema import outside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection

WORDS = ["soup", "music", "exam", "family"]
MISSING = '{"missing_since": "2024-06-01T08:00:00Z"}'
SHORT = SegmentParameters(pause=60, smallest=2, largest=6, depth=0.4, window=2)


class ByWord(Encoder):
    """A direction for each first word of a text, and none for the word "void"."""

    model, dimensions = "by-word-1", len(WORDS)

    def _encode(self, texts):
        made = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            word = text.split()[0]
            if word in WORDS:
                made[row, WORDS.index(word)] = 1
            elif word != "void":
                made[row] = 1
        return made


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with with_core_schemas(tmp_path / "a.db").connect() as opened:
        yield opened


def update(
    connection: Connection, parameters: SegmentParameters | None = SHORT
) -> writing.Segmented:
    return update_segments(connection, ByWord(), parameters)


def rows(connection: Connection) -> tuple[list[tuple], list[tuple]]:
    """Everything that the segmenter wrote."""
    return (
        connection.fetch_all(
            "SELECT * FROM conversation_segments WHERE segmenter IS NOT NULL ORDER BY segment_id"
        ),
        connection.fetch_all(
            "SELECT sm.* FROM segment_messages AS sm JOIN conversation_segments AS s "
            "USING (segment_id) WHERE s.segmenter IS NOT NULL ORDER BY 1, 3"
        ),
    )


def from_scratch(connection: Connection, folder: Path) -> tuple[list[tuple], list[tuple]]:
    """What an update of all messages at once writes, in a copy without segments."""
    connection.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = folder / "copy.db"
    copy.write_bytes(connection.path.read_bytes())
    with LibSQLAdapter(copy, None).connect() as other:
        other.execute("DELETE FROM conversation_segments WHERE segmenter IS NOT NULL")
        other.execute("DELETE FROM segmenting_changes")
        other.execute("UPDATE segmenting_state SET segmented_through = 0, segmenter = NULL")
        update(other)
        found = rows(other)
    for path in folder.glob("copy.db*"):
        path.unlink()
    return found


def members(connection: Connection) -> list[list[str]]:
    """The messages of each segment, in order of time."""
    found: dict[str, list[str]] = {}
    for segment, message_id in connection.fetch_all(
        "SELECT segment_id, message_id FROM segment_messages JOIN conversation_segments AS s "
        "USING (segment_id) WHERE segmenter IS NOT NULL ORDER BY s.started_at, segment_id, position"
    ):
        found.setdefault(segment, []).append(message_id)
    return list(found.values())


def talk(connection: Connection, *texts: str, begin: int = 0, step: int = 1, **changes) -> None:
    """Add messages with these texts, one every `step` seconds; their ids are m and their second."""
    add(
        connection,
        *(
            message(begin + step * number, content=text, **changes)
            for number, text in enumerate(texts)
        ),
    )


@pytest.mark.parametrize("foreign_keys", [False, True])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM conversation_segments",
        "DELETE FROM conversation_segments WHERE rowid = 1",
        "DELETE FROM segment_messages WHERE message_id = 'm1'",
        "DELETE FROM segment_messages WHERE message_id < 'm5'",
        "DELETE FROM segment_messages",
    ],
)
def test_segments_that_another_program_deletes_are_made_again(connection, statement, foreign_keys):
    """With all of their messages, which did not change."""
    talk(connection, "onion soup", "with wine", "and bread")
    talk(connection, "a cello lesson", "of Bach", begin=9_000)
    update(connection)
    before = rows(connection)
    with outside(connection) as other:
        other.execute(f"PRAGMA foreign_keys = {foreign_keys:d}")
        other.execute(statement)
    assert rows(connection) != before
    assert update(connection).written > 0
    assert rows(connection) == before
    assert connection.fetch_all("SELECT * FROM segmenting_changes") == []


def test_a_pause_and_a_change_of_subject_begin_a_segment(connection):
    """A message without text is in no segment."""
    talk(connection, *["soup a"] * 4, *["exam b"] * 4)
    talk(connection, "music", " ", "music", begin=100)
    done = update(connection)
    assert members(connection) == [
        ["m0", "m1", "m2", "m3"], ["m4", "m5", "m6", "m7"], ["m100", "m102"],
    ]  # fmt: skip
    assert (done.messages, done.written, done.removed, done.segments) == (10, 3, 0, 3)
    assert update(connection) == writing.Segmented(0, 0, 0, 3)


def test_a_segment_says_what_it_is_like(connection):
    """The mean cosine of neighbours, messages per hour, and its most typical message."""
    talk(connection, "soup one", "soup two", "exam", "void", "soup three", step=10)
    update(connection, SegmentParameters(pause=60, smallest=5, largest=10))
    [(segment_id, *row)] = rows(connection)[0]
    assert row == [
        "c", at(0), at(40), "soup one", None, "c", 5, round(1 / 3, 6), 360.0,
        "pause-coherence-1", 0,
    ]  # fmt: skip
    assert len(segment_id) == 32


def test_one_message_has_no_coherence_and_no_activity(connection):
    """Nor have several without a vector, at one time."""
    talk(connection, "soup")
    talk(connection, "void", begin=100)
    talk(connection, "void", begin=101, timestamp=at(100))
    update(connection)
    found = connection.fetch_all(
        "SELECT message_count, coherence, activity, summary FROM conversation_segments ORDER BY 1"
    )
    assert found == [(1, None, None, "soup"), (2, None, None, "void")]


def test_a_summary_is_a_sentence_of_at_most_200_characters(connection):
    """The one nearest to the segment; without blanks and line ends inside."""
    talk(connection, "soup", "soup", f"exam {'x' * 150}. soup\n {'y' * 100}. music {'z' * 80}",
         "soup " + "long " * 100, "soup  and\n soup", step=100)  # fmt: skip
    update(connection, SegmentParameters(pause=1, smallest=1, largest=2))
    summaries = [row[4] for row in sorted(rows(connection)[0], key=lambda row: row[2])]
    assert summaries[2] in (f"exam {'x' * 150}.", "soup", f"{'y' * 100}.", f"music {'z' * 80}")
    assert summaries[3].startswith("soup long long")
    assert summaries[3].endswith("long…")
    assert all(len(summary) <= LONGEST for summary in summaries)
    assert summaries[4] == "soup and soup"


def test_conversations_are_not_mixed(connection):
    """Not in one channel at one time, nor with the same id in two channels."""
    for number in range(6):
        place = {"channel_id": "cd"[number % 2], "conversation_id": "xyy"[number % 3]}
        talk(connection, "soup", begin=number, **place)
    update(connection)
    assert sorted(map(tuple, members(connection))) == [
        ("m0",), ("m1", "m5"), ("m2", "m4"), ("m3",),
    ]  # fmt: skip


def test_missing_messages_are_left_out_until_they_are_there_again(connection, tmp_path):
    talk(connection, *["soup"] * 5)
    update(connection)
    connection.execute("UPDATE messages SET metadata = ? WHERE message_id = 'm2'", [MISSING])
    assert connection.fetch_one("SELECT summary FROM conversation_segments") == (None,)
    update(connection)
    assert members(connection) == [["m0", "m1", "m3", "m4"]]
    connection.execute("UPDATE messages SET metadata = NULL")
    assert not is_current(connection)
    update(connection)
    assert members(connection) == [["m0", "m1", "m2", "m3", "m4"]]
    assert rows(connection) == from_scratch(connection, tmp_path)


def test_segments_of_other_programs_stay(connection):
    """Also when parameters change, and a message can be in one of those, too."""
    talk(connection, *["soup"] * 3)
    connection.execute(
        "INSERT INTO conversation_segments (segment_id, channel_id, started_at, ended_at, summary) "
        "VALUES ('theirs', 'c', ?, ?, 'a summary')",
        [at(0), at(2)],
    )
    connection.execute("INSERT INTO segment_messages VALUES ('theirs', 'm1', 0)")
    theirs = "SELECT * FROM conversation_segments WHERE segmenter IS NULL"
    before = connection.fetch_all(theirs)
    for parameters in (SHORT, SegmentParameters(pause=5), SHORT):
        update(connection, parameters)
        assert connection.fetch_all(theirs) == before
        assert members(connection) == [["m0", "m1", "m2"]]
    talk(connection, "soup", begin=3)
    connection.execute("DELETE FROM messages WHERE message_id = 'm1'")
    update(connection)
    assert connection.fetch_all("SELECT segment_id, summary, is_stale FROM conversation_segments "
                                "WHERE segmenter IS NULL") == [("theirs", None, 1)]  # fmt: skip


def test_other_parameters_or_another_model_replace_all_segments(connection):
    """Without parameters those of the update before are used."""
    talk(connection, *["soup"] * 3, step=30)
    first = update(connection, None)
    assert first.segments == 1
    changed = update(connection, SegmentParameters(pause=10))
    assert (changed.removed, changed.written, changed.segments) == (1, 3, 3)
    assert update(connection, None) == writing.Segmented(0, 0, 0, 3)
    stored = json.loads(connection.fetch_one("SELECT parameters FROM segmenting_state")[0])
    assert stored == {"depth": SegmentParameters().depth, "largest": SegmentParameters().largest,
                      "model": "by-word-1", "pause": 10.0, "smallest": SegmentParameters().smallest,
                      "window": SegmentParameters().window}  # fmt: skip

    class Other(ByWord):
        model = "by-word-2"

    assert update_segments(connection, Other()).removed == 3
    connection.execute("UPDATE conversation_segments SET segmenter = 'pause-coherence-0'")
    connection.execute("UPDATE segmenting_state SET segmenter = 'pause-coherence-0'")
    assert not is_current(connection)
    assert update(connection).removed == 3


def test_an_update_reads_the_blocks_with_changes_and_writes_differences(connection):
    """Other blocks, and equal segments of the same block, are not even written again."""
    for block in range(50):
        talk(connection, *["soup"] * 4, *["exam"] * 4, begin=1000 * block)
    update(connection)
    end = feed.head(connection).seq
    connection.execute("UPDATE messages SET content = 'soup!' WHERE message_id = 'm7002'")
    done = update(connection)
    assert (done.messages, done.written, done.removed) == (8, 1, 0)
    changed = connection.fetch_all(
        "SELECT table_name, op, count(*) FROM change_log WHERE seq > ? GROUP BY 1, 2", [end]
    )
    assert changed == [("conversation_segments", "update", 2), ("messages", "update", 1)]
    talk(connection, "exam", begin=7008)
    talk(connection, "exam", begin=99_999)
    assert update(connection).messages == 10


@pytest.mark.parametrize(
    "bad",
    [{"pause": 0}, {"pause": "1"}, {"pause": float("nan")}, {"pause": True}, {"smallest": 0},
     {"smallest": 1.5}, {"largest": 7, "smallest": 4}, {"depth": -1}, {"window": 0}],
    ids=str,
)  # fmt: skip
def test_senseless_parameters_are_refused(bad):
    with pytest.raises(InvalidValue, match=next(iter(bad))):
        SegmentParameters(**bad)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE messages SET timestamp = 'yesterday' WHERE message_id = 'm1'",
        "UPDATE messages SET timestamp = '0001-01-01T00:00:00.000000Z' WHERE message_id = 'm1'",
        "UPDATE messages SET timestamp = '9999-12-31T23:59:59.999999Z' WHERE message_id = 'm1'",
        "UPDATE messages SET content = CAST(x'ff736f7570' AS TEXT) WHERE message_id = 'm1'",
        "UPDATE messages SET message_id = x'00ff' WHERE message_id = 'm9'",
        "UPDATE messages SET conversation_id = x'00ff' WHERE message_id = 'm9'",
        "UPDATE messages SET metadata = 'no JSON' WHERE message_id = 'm1'",
        "UPDATE messages SET content = char(0) || 'soup' WHERE message_id = 'm1'",
    ],
)
def test_what_another_program_wrote_wrongly_stops_no_update(connection, tmp_path, statement):
    """Messages without a time that has an order, or without an id of text, are in no segment."""
    talk(connection, *["soup"] * 4)
    talk(connection, "soup", begin=9)
    update(connection)
    with contextlib.closing(sqlite3.connect(connection.path, isolation_level=None)) as other:
        other.execute(statement)  # without foreign keys
    update(connection)
    assert is_current(connection)
    assert rows(connection) == from_scratch(connection, tmp_path)


TIMES = st.integers(0, 12).map(lambda number: number * 25)
TEXTS = st.sampled_from([*WORDS, "soup", "void", "other", " "])
PLACES = st.sampled_from([("c", "c"), ("c", "d"), ("e", "c")])
NUMBERS = st.integers(0, 15)
STEPS = st.one_of(
    st.tuples(st.just("add"), st.lists(st.tuples(TIMES, TEXTS), min_size=1, max_size=8), PLACES),
    st.tuples(st.just("edit"), NUMBERS, TEXTS),
    st.tuples(st.just("move"), NUMBERS, TIMES),
    st.tuples(st.just("place"), NUMBERS, PLACES),
    st.tuples(st.just("missing"), NUMBERS, st.sampled_from([MISSING, None])),
    st.tuples(st.just("delete"), NUMBERS, st.none()),
    st.tuples(st.just("update"), st.none(), st.none()),
)


@given(steps=st.lists(STEPS, max_size=25))
@settings(
    max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # fmt: skip
@pytest.mark.slow
def test_updates_in_between_make_no_difference(connection, tmp_path, steps):
    """Every message with text is in exactly one segment, as after one update of all messages."""
    for table in ("conversation_segments", "segmenting_changes", "messages", "channels"):
        connection.execute(f"DELETE FROM {table}")
    for channel in "ce":
        connection.execute(
            "INSERT INTO channels (channel_id, created_at) VALUES (?, ?)", [channel, at(0)]
        )
    added = 0
    for step, first, second in steps:
        added += apply(connection, added, step, first, second)
    update(connection)
    assert is_current(connection)
    assert rows(connection) == from_scratch(connection, tmp_path)
    expected = connection.fetch_all(
        "SELECT message_id FROM messages WHERE trim(content) <> '' AND metadata IS NULL"
    )
    found = Counter(name for segment in members(connection) for name in segment)
    assert found == Counter(name for (name,) in expected)
    for segment in members(connection):
        assert len(segment) <= SHORT.largest


def apply(connection: Connection, added: int, step: str, first, second) -> int:
    """Do one step; return the number of messages that it adds."""
    name = f"m{first}"
    match step:
        case "add":
            channel, conversation = second
            add(
                connection,
                *(
                    message(number, timestamp=at(time), content=text, channel_id=channel,
                            conversation_id=conversation)
                    for number, (time, text) in enumerate(first, added)
                ),
            )  # fmt: skip
            return len(first)
        case "edit":
            connection.execute(
                "UPDATE messages SET content = ? WHERE message_id = ?", [second, name]
            )
        case "move":
            connection.execute(
                "UPDATE messages SET timestamp = ? WHERE message_id = ?", [at(second), name]
            )
        case "place":
            connection.execute(
                "UPDATE messages SET channel_id = ?, conversation_id = ? WHERE message_id = ?",
                [*second, name],
            )
        case "missing":
            connection.execute(
                "UPDATE messages SET metadata = ? WHERE message_id = ?", [second, name]
            )
        case "delete":
            connection.execute("DELETE FROM messages WHERE message_id = ?", [name])
        case _:
            update(connection)
    return 0


def test_small_batches_make_no_difference(connection, tmp_path, monkeypatch):
    """Also if a batch ends inside a block."""
    for block in range(10):
        talk(connection, *["soup"] * 5, *["exam"] * 5, begin=100 * block, step=3)
    expected = from_scratch(connection, tmp_path)
    monkeypatch.setattr(writing, "BATCH", 3)
    monkeypatch.setattr("aico_lab.embeddings.segmenting.blocks.STEP", 2)
    seen: list[tuple[int, int | None]] = []
    update_segments(connection, ByWord(), SHORT, progress=lambda _, done, total: seen.append(
        (done, total)))  # fmt: skip
    assert rows(connection) == expected
    assert seen[-1] == (100, 100)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def _update_slowly(path: Path) -> None:
    writing.BATCH = 5
    with LibSQLAdapter(path, None).connect() as other:
        update(other)
    os._exit(0)


@pytest.mark.slow
def test_an_update_that_is_killed_is_continued_by_the_next_one(tmp_path):
    """At several instants; meanwhile messages are deleted, edited and added."""
    path = tmp_path / "a.db"
    fork = multiprocessing.get_context("spawn")
    with with_core_schemas(path).connect() as connection:
        for block in range(200):
            talk(connection, *["soup"] * 5, begin=100 * block)
        stopped = 0
        for life in range(3):
            child = fork.Process(target=_update_slowly, args=(path,))
            child.start()
            until = time.monotonic() + 60
            goal = 30 * (life + 1)
            while child.is_alive() and time.monotonic() < until:
                if connection.fetch_one("SELECT count(*) >= ? FROM conversation_segments",
                                        [goal]) == (1,):  # fmt: skip
                    break
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
            stopped += child.exitcode == -signal.SIGKILL and not is_current(connection)
            connection.execute("DELETE FROM messages WHERE message_id = ?", [f"m{100 * life}"])
            connection.execute(
                "UPDATE messages SET content = 'exam' WHERE message_id = ?", [f"m{9901 + life}"]
            )
            talk(connection, "soup", begin=50 + 100 * life)
        assert stopped
        update(connection)
        assert rows(connection) == from_scratch(connection, tmp_path)


@pytest.mark.slow
def test_a_long_block_takes_time_in_proportion():
    """A file without pauses is one block; its segments have at most the largest size."""
    count = 20_000
    chance = np.random.default_rng(1)
    vectors = chance.normal(size=(count, 16)).astype(np.float32)
    parameters = SegmentParameters(smallest=4, largest=10, depth=0.1)
    with takes_about(0.5):
        starts = starts_of_segments(vectors, parameters)
    sizes = np.diff([*starts, count])
    assert sizes.max() <= 10
    assert sizes.min() >= 4


def test_similarities_do_not_depend_on_the_chunks_in_which_they_are_computed(monkeypatch):
    vectors = np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32)
    whole = similarities(vectors, 5)
    for gap in (1, 3, 50, 99):
        common = vectors.mean(axis=0)
        before = (vectors[max(0, gap - 5) : gap] - common).sum(axis=0)
        after = (vectors[gap : gap + 5] - common).sum(axis=0)
        cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
        assert whole[gap - 1] == pytest.approx(cosine, abs=1e-5)
    monkeypatch.setattr("aico_lab.embeddings.segmenting.boundaries.CHUNK", 7)
    assert similarities(vectors, 5) == pytest.approx(whole)
    assert similarities(vectors[:1], 5).tolist() == []
    assert similarities(np.zeros((3, 8), np.float32), 5).tolist() == [0, 0]


def test_pauses():
    assert starts_of_blocks([0, 60, 121, 121, 500], 60) == [0, 2, 4]
    assert starts_of_blocks([], 60) == []


# By hand: 10 messages, annotated segments of 5, so a window of 2 or 3 messages (half of 5, rounded
# to even: 2), and 8 places for it.
@pytest.mark.parametrize(
    ("found", "of_pk", "of_window_diff"),
    [
        ([0, 5], 0, 0),
        ([0], 2 / 8, 2 / 8),
        ([0, 6], 2 / 8, 2 / 8),
        ([0, 5, 6], 1 / 8, 2 / 8),
        (range(10), 6 / 8, 8 / 8),
    ],
)
def test_pk_and_windowdiff_are_those_of_their_definitions(found, of_pk, of_window_diff):
    assert pk([0, 5], found, 10) == pytest.approx(of_pk)
    assert window_diff([0, 5], found, 10) == pytest.approx(of_window_diff)


def test_wordllama_finds_where_the_subject_changes():
    """In English, with invented messages."""
    soup = ["I cooked a soup with onions and carrots", "which recipe did you use for the soup?",
            "my mother's recipe, with fresh bread", "I love bread with a warm soup"]  # fmt: skip
    exam = [
        "my physics exam is on Monday",
        "did you study for the exam at the university?",
        "I studied mechanics with my professor",
        "students fear that professor's exams",
    ]
    texts = [*soup, *exam]
    weighed = weigh(WordLlama().encode_usable(texts)[0], texts)
    assert starts_of_segments(weighed, SegmentParameters(smallest=4, depth=0.1)) == [0, 4]
    assert similarities(weighed, 4).argmin() + 1 == 4


def test_the_command_writes_segments_that_a_sync_copies(homes, tmp_path, in_process):
    """Other parameters make all of them again; without any the last ones are used."""
    home = tmp_path / "home"
    homes.open(home, "none", messages=30).close()
    first = json.loads(in_process("index", "--home", str(home), "--json").stdout)
    assert first["messages"] == 30
    assert first["segments"] == first["written"] > 0
    again = in_process("index", "--home", str(home), "--largest", "8", "--pause", "60")
    assert "removed" in again.stdout
    with Lab.open(home) as lab:
        assert lab.embeddings.update().written == 0
        lab.sync()
        assert lab.sql(
            "SELECT max(message_count), sum(message_count), bool_or(is_stale) "
            "FROM raw.conversation_segments"
        ).fetchall() == [(8, 30, False)]
        lab.embeddings.update(SegmentParameters(pause=1))
        assert "update" in repr(lab.embeddings)
    assert "up to date" in in_process("index", "--home", str(home)).stdout


@pytest.mark.parametrize(
    ("option", "value"), [("--pause", "0"), ("--largest", "3"), ("--smallest", "0"),
                          ("--depth", "nan")],
)  # fmt: skip
def test_the_command_refuses_senseless_parameters(homes, tmp_path, in_process, option, value):
    homes.open(tmp_path / "home", "none").close()
    refused = in_process("index", "--home", str(tmp_path / "home"), option, value)
    assert refused.returncode == 2
    assert option.strip("-") in refused.stderr
