"""The tables of `mart`: measured as their docstrings say, and after every sync as if made again."""

from __future__ import annotations

import collections
import hashlib
import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.etl.contract import ColumnContract, Contract
from aico_lab.etl.warehouse import Warehouse, open_warehouse
from aico_lab.mart import compiler, refresh, statements
from aico_lab.mart import views as mart_views
from aico_lab.mart.places import places
from tests import effort, text_by_hand
from tests.conftest import plain_text_files
from tests.messages import add, at, message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aico_lab.lab import Lab

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GAP_MS = 30 * 60 * 1000
DAY_MS = 24 * 60 * 60 * 1000

MESSAGES = Contract(
    "messages",
    (
        ColumnContract("id", "integer"), ColumnContract("message_id", "text"),
        ColumnContract("channel_id", "text"), ColumnContract("conversation_id", "text"),
        ColumnContract("user_id", "text"), ColumnContract("role", "text"),
        ColumnContract("content", "text"), ColumnContract("timestamp", "timestamp"),
        ColumnContract("sentiment_score", "real"), ColumnContract("response_time", "real"),
        ColumnContract("metadata", "json"),
    ),
    key=("message_id",),
    rowid="id",
)  # fmt: skip

Row = dict[str, Any]


def words(text: str) -> int | None:
    found = text_by_hand.words_of(text)
    return None if found is None else len(found)


def milliseconds(response_time: float | None) -> int | None:
    if response_time is None:
        return None
    product = response_time * 1000
    if not abs(product) < 2**63:
        return None
    return int(Decimal(product).quantize(Decimal(1), ROUND_HALF_UP))


def marks_of(row: Row) -> dict[str, Any]:
    """The marks of a message, if it has metadata."""
    return json.loads(row["metadata"] or "{}")


def measured(rows: Iterable[Row]) -> list[Row]:
    """`mart.messages` by its docstring: one message after the other."""
    made = []
    conversations = collections.defaultdict(list)
    for row in rows:
        if row["role"] != "system" and "missing_since" not in marks_of(row):
            conversations[row["conversation_id"]].append(row)
    for talk in conversations.values():
        talk.sort(key=lambda row: (row["timestamp"], row["id"]))
        last: Row = {}
        writer = talk[0]["user_id"]
        wrote: set[str] = set()
        nobody_wrote = True
        # Of each person: which side, when, and whether that time is estimated.
        said_last: dict[str | None, tuple[str, int, bool]] = {}
        turn = session = -1
        for place, row in enumerate(talk):
            ms = int((row["timestamp"] - EPOCH) / timedelta(milliseconds=1))
            gap = ms - last["ts_ms"] if last else None
            by_user = row["role"] == "user"
            writer = row["user_id"] if by_user else writer
            person = row["user_id"] if by_user or row["user_id"] in wrote else writer
            new_session = gap is None or gap > GAP_MS
            new_turn = new_session or (row["role"], person) != (last["role"], last["person"])
            session += new_session
            turn += new_turn
            guessed = marks_of(row).get("timestamp_estimated") is True
            reply, answered_guess = None, False
            if by_user and nobody_wrote:
                reply, answered_guess = gap, bool(last) and last["is_estimated"]
            elif said_last.get(person, (row["role"],))[0] != row["role"]:
                reply, answered_guess = ms - said_last[person][1], said_last[person][2]
            reply_is_guess = reply is not None and (guessed or answered_guess)
            if reply_is_guess:
                reply = None
            recorded = None if reply is None else milliseconds(row["response_time"])
            if by_user:
                nobody_wrote = False
                wrote |= {row["user_id"]} - {None}
            said_last[person] = row["role"], ms, guessed
            last = {"ts_ms": ms, "role": row["role"], "person": person, "is_estimated": guessed}
            made.append(
                {
                    "id": row["id"], "conversation_id": row["conversation_id"],
                    "channel_id": row["channel_id"], "user_id": person, "role": row["role"],
                    "ts_ms": ms, "msg_idx": place, "turn_idx": turn, "session_idx": session,
                    "gap_ms": gap, "reply_ms": reply, "recorded_ms": recorded,
                    "is_estimated": guessed, "reply_is_estimated": reply_is_guess,
                    "n_words": words(row["content"]), "n_chars": len(row["content"]),
                    "is_question": text_by_hand.is_question(row["content"]),
                    "sentiment_score": row["sentiment_score"],
                }
            )  # fmt: skip
    return made


def amounts(talk: list[Row]) -> Row:
    scores = [row["sentiment_score"] for row in talk if row["sentiment_score"] is not None]
    return {
        "n_messages": len(talk),
        "n_words": sum(row["n_words"] or 0 for row in talk),
        "n_unsegmented": sum(row["n_words"] is None for row in talk),
        "n_chars": sum(row["n_chars"] for row in talk),
        "n_questions": sum(row["is_question"] for row in talk),
        "n_scored": len(scores),
        "sentiment_sum": sum(scores),
    }


def grouped(rows: list[Row], *names: str) -> Iterator[tuple[Row, list[Row]]]:
    """Rows in the order of their conversation, by the values of some columns."""
    groups = collections.defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    for values, talk in groups.items():
        yield dict(zip(names, values, strict=True)), talk


def first_named(talk: list[Row]) -> str | None:
    return next((row["user_id"] for row in talk if row["user_id"] is not None), None)


def expected(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Every table of `mart`, in plain Python."""
    messages = measured(rows)
    turns = [
        names
        | {
            "session_idx": talk[0]["session_idx"], "user_id": talk[0]["user_id"],
            "channel_id": min(row["channel_id"] for row in talk), "role": talk[0]["role"],
            "started_ms": talk[0]["ts_ms"], "ended_ms": talk[-1]["ts_ms"],
            "reply_ms": talk[0]["reply_ms"], "recorded_ms": talk[0]["recorded_ms"],
            "reply_is_estimated": talk[0]["reply_is_estimated"],
            "end_is_estimated": talk[-1]["is_estimated"],
            **amounts(talk),
        }
        for names, talk in grouped(messages, "conversation_id", "turn_idx")
    ]  # fmt: skip
    sessions = []
    for names, talk in grouped(messages, "conversation_id", "session_idx"):
        by_user = [row for row in talk if row["role"] == "user"]
        sessions.append(
            names
            | {
                "channel_id": min(row["channel_id"] for row in talk),
                "user_id": first_named(by_user) or first_named(talk),
                "started_ms": talk[0]["ts_ms"], "ended_ms": talk[-1]["ts_ms"],
                "started_by": talk[0]["role"], "ended_by": talk[-1]["role"],
                "n_turns": len({row["turn_idx"] for row in talk}),
                "n_user_messages": len(by_user),
                "n_user_words": sum(row["n_words"] or 0 for row in by_user), **amounts(talk),
            }
        )  # fmt: skip
    days = [row | {"day": row["ts_ms"] // DAY_MS} for row in messages]
    columns = ("conversation_id", "channel_id", "user_id", "role", "day")
    daily = [names | amounts(talk) for names, talk in grouped(days, *columns)]
    return {"messages": messages, "turns": turns, "sessions": sessions, "daily": daily}


def assert_same(found: list[Row], wanted: list[Row]) -> None:
    """The same rows in any order; sums of fractions to nine digits."""

    def settled(rows: list[Row]) -> list[list[tuple[str, str]]]:
        return sorted(
            sorted((name, repr(round(v, 9) + 0.0 if isinstance(v, float) else v))
                   for name, v in (row | _sum_as_float(row)).items())
            for row in rows
        )  # fmt: skip

    assert settled(found) == settled(wanted)


def _sum_as_float(row: Row) -> Row:
    return {"sentiment_sum": float(row["sentiment_sum"])} if "sentiment_sum" in row else {}


def rows_of(connection: Any, table: str) -> list[Row]:
    return connection.execute(f"SELECT * FROM {table}").to_arrow_table().to_pylist()


def assert_right(connection: Any, rows: Iterable[Row]) -> None:
    wanted = expected(rows)
    for table in statements.TABLES:
        assert_same(rows_of(connection, f"mart.{table}"), wanted[table])


MINUTES = [0, 1, 29, 30, 31, 60, 24 * 60]
MOMENTS = st.builds(
    lambda year, minutes, us: datetime(year, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes,
                                                                            microseconds=us),
    st.sampled_from([1969, 1970, 2024]),
    st.lists(st.sampled_from(MINUTES), max_size=4).map(sum),
    st.sampled_from([0, 0, 0, 1, 999, 1000, 999_999]),
)  # fmt: skip
TEXTS = st.lists(
    st.sampled_from([
        "word", "it's", "don’t", "naïve", "日本", "١٢", "e\u0301t", "well-known", "a''b", "'n'",  # noqa: RUF001
        "’", "'", " ", "  ", "\n", "\t", "\u00a0", ".", ", ", "!", "?", "？", "؟", "?!", "?)", "…",  # noqa: RUF001
        "https://x.yz/?q=1", "😀", "_",
    ]),
    max_size=6,
).map("".join)  # fmt: skip
COLUMNS = {
    "channel_id": st.sampled_from(["c1", "c2"]),
    "conversation_id": st.sampled_from(["talk", "other", "third"]),
    "user_id": st.sampled_from(["ann", "bob", "cy", None]),
    "role": st.sampled_from(["user", "user", "assistant", "assistant", "system"]),
    "content": TEXTS,
    "timestamp": MOMENTS,
    "sentiment_score": st.none() | st.sampled_from([-1.0, -0.3, 0.0, 0.7]),
    "response_time": st.none() | st.sampled_from([0.0, 0.0015, 2.5, 1e16, 1e300]),
    "metadata": st.none() | st.none() | st.sampled_from([
        '{"timestamp_estimated": true}', '{"timestamp_estimated": false, "x": "missing_since"}',
        '{"missing_since": "2024-05-01T00:00:00Z"}', '{"a": {"timestamp_estimated": true}}',
        '{"timestamp_estimated": true, "missing_since": "2024-05-01T00:00:00Z"}',
    ]),
}  # fmt: skip
ROWS = st.fixed_dictionaries(COLUMNS)
EDITS = st.dictionaries(
    st.integers(0, 14),
    st.tuples(st.sampled_from([*COLUMNS, "content", "content", "sentiment_score", "all"]), ROWS),
    max_size=4,
)
CHANGES = st.tuples(st.sets(st.integers(0, 14), max_size=3), EDITS, st.lists(ROWS, max_size=3))


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory) -> Iterator[Warehouse]:
    folder = tmp_path_factory.mktemp("mart")
    with open_warehouse(folder / "w.duckdb", None, temporary=folder / "tmp") as opened:
        # For so few rows, several threads cost more than they save.
        opened.connection.execute("SET threads = 1")
        yield opened


def as_arrow(rows: Iterable[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), MESSAGES.arrow_schema)


def load(warehouse: Warehouse, rows: dict[int, Row]) -> None:
    """Make everything again."""
    with warehouse.transaction():
        warehouse.create_table(MESSAGES)
        changes = refresh.Changes(warehouse.connection, reread=True)
        for part in (list(rows.values())[::2], list(rows.values())[1::2]):
            warehouse.insert(MESSAGES, as_arrow(part))
            changes.note_added(as_arrow(part))
        changes.apply()


def follow(warehouse: Warehouse, before: dict[int, Row], after: dict[int, Row]) -> None:
    """Bring over what is different, as a sync does."""
    names = {
        row["message_id"]
        for rows, others in ((before, after), (after, before))
        for number, row in rows.items() if others.get(number) != row
    }  # fmt: skip
    present = as_arrow(row for row in after.values() if row["message_id"] in names)
    with warehouse.transaction():
        changes = refresh.Changes(warehouse.connection, reread=False)
        keys = pa.array(sorted(names), pa.string())
        gone = pa.table({"k0": keys, "row_key": keys, "fits": [True] * len(keys)})
        warehouse.delete(MESSAGES, gone, present, changes)
        if present.num_rows:
            warehouse.insert(MESSAGES, present)
            changes.note_added(present)
        changes.apply()


def changed(rows: dict[int, Row], change: Any, new_id: int) -> dict[int, Row]:
    removed, edits, new = change
    after = {number: row for number, row in rows.items() if number not in removed}
    for number, (column, values) in edits.items():
        if number in after:
            chosen = values if column == "all" else {column: values[column]}
            after[number] = after[number] | chosen
    for place, row in enumerate(new):
        after[new_id + place] = row | {"id": new_id + place, "message_id": f"m{new_id + place}"}
    return after


@pytest.mark.parametrize("batch", [2, refresh.BATCH])
@given(first=st.lists(ROWS, max_size=12), changes=st.lists(CHANGES, min_size=1, max_size=3))
@settings(
    max_examples=effort.examples(15),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.slow
def test_increments_give_what_is_made_anew_and_what_plain_python_counts(
    warehouse, monkeypatch, batch, first, changes
):
    """Whatever comes late, goes, moves in time or to another conversation, or is edited."""
    monkeypatch.setattr(refresh, "BATCH", batch)
    rows = {n: row | {"id": n, "message_id": f"m{n}"} for n, row in enumerate(first)}
    load(warehouse, rows)
    assert_right(warehouse.connection, rows.values())
    for change in changes:
        before, rows = rows, changed(rows, change, max(rows, default=0) + 1)
        follow(warehouse, before, rows)
        assert_right(warehouse.connection, rows.values())
    found = {table: rows_of(warehouse.connection, f"mart.{table}") for table in statements.TABLES}
    load(warehouse, rows)
    for table in statements.TABLES:
        assert_same(rows_of(warehouse.connection, f"mart.{table}"), found[table])
    left = warehouse.connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE temporary"
    ).fetchall()
    assert left == []


GROUP = st.fixed_dictionaries(
    COLUMNS
    | {
        "conversation_id": st.just("talk"),
        "user_id": st.sampled_from(["ann", "bob", "cy", "cy", None]),
        "role": st.sampled_from(["user", "assistant"]),
        "content": st.just("word"),
    }
)


@given(
    first=st.lists(GROUP, min_size=5, max_size=30),
    changes=st.lists(
        st.tuples(
            st.sets(st.integers(0, 30), max_size=2),
            st.dictionaries(
                st.integers(0, 30),
                st.tuples(st.sampled_from(["user_id", "role", "timestamp", "content"]), GROUP),
                max_size=2,
            ),
            st.lists(GROUP, max_size=2),
        ),
        min_size=1,
        max_size=3,
    ),
)
@settings(
    max_examples=effort.examples(30),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.slow
def test_increments_in_a_group_know_who_wrote_before(warehouse, first, changes):
    """Whom a reply names counts from when they first wrote, which any change may move."""
    rows = {n: row | {"id": n, "message_id": f"m{n}"} for n, row in enumerate(first)}
    load(warehouse, rows)
    assert_right(warehouse.connection, rows.values())
    for change in changes:
        before, rows = rows, changed(rows, change, max(rows, default=0) + 1)
        follow(warehouse, before, rows)
        assert_right(warehouse.connection, rows.values())


def placed_in(lab: Lab) -> list[tuple[object, ...]]:
    return lab.sql(
        "SELECT user_id, turn_idx, reply_ms // 1000, recorded_ms FROM mart.messages ORDER BY id"
    ).fetchall()


@pytest.mark.slow
def test_a_reply_that_names_a_person_is_theirs(lab):
    """Its time counts from their last message, and a second message to them answers nobody."""
    names = [("ada", 0), ("ben", 19), ("Ada's", 20), ("ada", 80), ("Ben's", 82), ("Ben's", 83)]
    said = [
        message(
            place, conversation_id="c", timestamp=at(second), response_time=1.5,
            role="assistant" if name.endswith("'s") else "user",
            user_id=name.removesuffix("'s").lower(),
        )
        for place, (name, second) in enumerate(names)
    ]  # fmt: skip
    add(lab.primary, *said[:4])
    lab.sync()
    add(lab.primary, *said[4:])
    assert lab.sync().mode == "increment"
    assert placed_in(lab) == [
        ("ada", 0, None, None),
        ("ben", 1, None, None),
        ("ada", 2, 20, 1500),
        ("ada", 3, 60, 1500),
        ("ben", 4, 63, 1500),
        ("ben", 4, None, None),
    ]
    # Before ben wrote, what names him is hers who wrote last.
    lab.primary.execute("UPDATE messages SET timestamp = ? WHERE id = 2", [at(90)])
    lab.sync()
    assert [row[0] for row in placed_in(lab)] == ["ada", "ben", *["ada"] * 4]
    assert_right_in(lab)


def test_who_never_writes_as_a_user_in_a_conversation_is_not_whom_it_is_with(lab):
    """A companion that signs its messages with a name of its own answers who wrote last."""
    for place, (role, name) in enumerate(
        [("user", "ada"), ("assistant", "bot"), ("assistant", "zoe"), ("user", "ada")]
    ):
        row = message(place, conversation_id="c", role=role, user_id=name, response_time=None)
        add(lab.primary, row)
    add(lab.primary, message(9, conversation_id="d", role="user", user_id="zoe"))
    lab.sync()
    assert [row[:2] for row in placed_in(lab)][:4] == [
        ("ada", 0), ("ada", 1), ("ada", 1), ("ada", 2)
    ]  # fmt: skip


def test_a_second_message_after_a_silence_answers_nobody(lab):
    """Though its response time was recorded."""
    for place, (role, second) in enumerate([("user", 0), ("assistant", 5), ("assistant", 172_805)]):
        row = message(place, conversation_id="c", role=role, user_id="ada", response_time=2.0)
        add(lab.primary, row | {"timestamp": at(second)})
    lab.sync()
    assert [row[1:] for row in placed_in(lab)] == [
        (0, None, None), (1, 5, 2000), (2, None, None)
    ]  # fmt: skip


def in_lab(lab: Lab) -> list[Row]:
    return lab.sql("SELECT * FROM raw.messages").to_arrow_table().to_pylist()


def assert_right_in(lab: Lab) -> None:
    rows = in_lab(lab)
    for table, wanted in expected(rows).items():
        assert_same(lab.sql(f"FROM mart.{table}").to_arrow_table().to_pylist(), wanted)


def held(lab: Lab) -> list[tuple[object, ...]]:
    return [
        lab.sql(f"SELECT sum(hash(t)) FROM mart.{t} AS t").fetchone() for t in statements.TABLES
    ]


@pytest.mark.slow
def test_a_sync_keeps_the_mart_up_to_date(lab):
    """First, then with each increment; nothing is left of what was deleted."""
    add(lab.primary, *[message(i, conversation_id=f"c{i % 3}") for i in range(60)])
    lab.sync()
    assert_right_in(lab)
    add(lab.primary, message(60, conversation_id="c0", timestamp=at(7)), message(61, content="?"))
    lab.primary.execute("UPDATE messages SET content = 'other words here?' WHERE id % 10 = 1")
    lab.primary.execute("UPDATE messages SET conversation_id = 'c9' WHERE id % 10 = 2")
    lab.primary.execute("DELETE FROM messages WHERE id % 10 = 3")
    assert lab.sync().mode == "increment"
    assert_right_in(lab)
    gone = lab.sql("SELECT count(*) FROM mart.messages WHERE id % 10 = 3").fetchone()
    assert gone == (0,)
    lab.primary.execute("UPDATE messages SET content = 'edited?', sentiment_score = 1 WHERE id = 9")
    assert lab.sync().rows == {"messages": 1}
    assert_right_in(lab)
    lab.primary.execute("DELETE FROM messages")
    lab.sync()
    for table in (*statements.TABLES, "words"):
        assert lab.sql(f"SELECT count(*) FROM mart.{table}").fetchone() == (0,)


@pytest.mark.slow
def test_a_sync_without_messages_does_not_touch_the_mart(lab, monkeypatch):
    """Somebody's preference is none of its business."""
    add(lab.primary, message(0), message(1))
    lab.sync()
    before = held(lab)
    monkeypatch.setattr(refresh.Changes, "_run", None)
    lab.primary.execute("INSERT INTO preferences VALUES ('u', 'tone', '\"warm\"', ?)", [at(0)])
    assert lab.sync().mode == "increment"
    assert held(lab) == before


@pytest.mark.slow
def test_a_new_version_of_the_definitions_makes_the_mart_anew(lab, monkeypatch):
    """At the next sync, though no row has changed; and only once."""
    add(lab.primary, *map(message, range(20)))
    lab.sync()
    before = held(lab)
    real = statements.query
    monkeypatch.setattr(statements, "query", lambda table: real(table).replace("COUNT(*)", "7"))
    monkeypatch.setattr(refresh, "VERSION", refresh.VERSION + 1)
    assert lab.sync().rows == {"messages": 20}
    assert lab.sync().mode == "nothing"
    assert lab.sql("SELECT DISTINCT n_messages FROM mart.turns").fetchall() == [(7,)]
    monkeypatch.undo()
    lab.sync()
    assert held(lab) == before


def test_the_version_changes_with_the_definitions():
    """Homes of an older version are brought up to date only if the number tells them apart."""
    sql = sorted(one for one in vars(statements).items() if one[0].strip("_").isupper())
    chance = random.Random(5)
    sample = {
        "id": range(500), "conversation": [chance.randrange(1, 9) for _ in range(500)],
        "author": [chance.randrange(4) for _ in range(500)],
        "by_user": [chance.random() < 0.5 for _ in range(500)], "earlier": [False] * 500,
        "is_estimated": [chance.random() < 0.2 for _ in range(500)],
        "ts_us": [chance.randrange(500) * 60_000_000 for _ in range(500)],
    }  # fmt: skip
    sample["ts_ms"] = [time // 1000 for time in sample["ts_us"]]
    content = (sql, compiler.FILE.read_text("utf-8"), places(pa.table(sample)).to_pydict())
    content += tuple(
        (view, sorted((table, sorted(columns)) for table, columns in needed.items()))
        for view, needed in mart_views.VIEWS
    )
    digest = hashlib.sha256(repr(content).encode()).hexdigest()
    assert digest == refresh.DIGEST, (
        "What makes the mart has changed. If its tables or views hold other rows than before, add "
        "1 to aico_lab.mart.refresh.VERSION and say there what changed. In either case set DIGEST "
        f"to {digest!r}."
    )


def test_what_is_compiled_is_what_the_definitions_say():
    """Else: python -m aico_lab.mart.compiler."""
    assert compiler.FILE.read_text(encoding="utf-8") == compiler.compiled()
    assert set(compiler.schemas()) == set(statements.TABLES)


def test_a_sync_does_not_import_ibis():
    """It takes longer than most syncs."""
    code = "import sys, aico_lab.etl.sync, aico_lab.mart.views; sys.exit('ibis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_frozen_messages_leave_the_mart_as_it_was(lab):
    """Their table stayed behind, and so do its measures."""
    add(lab.primary, message(0), message(1))
    lab.sync()
    before = held(lab)
    lab.primary.execute("ALTER TABLE messages ADD COLUMN mood TEXT")
    add(lab.primary, message(2))
    lab.sync(on_change="freeze")
    assert held(lab) == before
    lab.sync()
    assert_right_in(lab)
    assert lab.sql("SELECT count(*) FROM mart.messages").fetchone() == (3,)


def test_words_are_in_small_letters_with_one_kind_of_apostrophe_and_not_stored(lab, home):
    """A view; so an erased message leaves no word behind."""
    add(lab.primary, message(0, content="I’m here: it's LATE — naïve Füße 3x"))  # noqa: RUF001
    lab.sync()
    found = lab.sql("SELECT word FROM mart.words").fetchall()
    assert [word for (word,) in found] == ["i'm", "here", "it's", "late", "naïve", "füße", "3x"]
    n_words = lab.sql("SELECT n_words FROM mart.messages").fetchone()
    assert n_words == (len(found),)
    kinds = lab.sql(
        "SELECT table_type FROM information_schema.tables WHERE table_schema = 'mart' "
        "AND table_name IN ('words', 'traits', 'feedback')"
    ).fetchall()
    assert kinds == [("VIEW",)] * 3
    assert not plain_text_files(home, "naïve")


def test_traits_are_the_numbers_of_every_version_of_a_personality(lab):
    """What is no number, or no flat object, is none."""
    add(lab.primary, message(0))
    rows = [
        ["p", "u", 1, '{"warm": 0.5, "n": 3, "neg": -2, "x": "y", "o": {"a": 1}, "no": null}',
         at(0), at(60)],
        ["q", None, 2, "[1, 2]", at(60), None],
        ["r", None, 3, '{"dry": 1e2}', at(60), None],
    ]  # fmt: skip
    lab.primary.execute_many(
        "INSERT INTO personality_profiles (profile_id, user_id, version, traits, active_from, "
        "active_until) VALUES (?, ?, ?, ?, ?, ?)",
        rows,
    )
    lab.sync()
    start = 1_709_294_400_000
    assert sorted(lab.sql("FROM mart.traits").fetchall()) == [
        ("p", "u", 1, "n", 3.0, start, start + 60_000, None),
        ("p", "u", 1, "neg", -2.0, start, start + 60_000, None),
        ("p", "u", 1, "warm", 0.5, start, start + 60_000, None),
        ("r", None, 3, "dry", 100.0, start + 60_000, None, None),
    ]


def test_feedback_has_its_time_in_milliseconds(lab):
    """As the other tables do."""
    add(lab.primary, message(0))
    lab.primary.execute(
        "INSERT INTO feedback_events VALUES ('e', 'u', 'c', 'm0', 'rating', 'witty', 3.5, ?, NULL)",
        [at(1)],
    )
    lab.sync()
    assert lab.sql("FROM mart.feedback").fetchall() == [
        ("e", "u", "c", "m0", "rating", "witty", 3.5, 1_709_294_401_000)
    ]


@pytest.mark.slow
def test_long_irregular_messages_are_measured_within_the_memory_there_is(lab):
    """A million characters each, of which every second one is a word."""
    add(lab.primary, *[message(i, content="a  " * 333_333) for i in range(12)])
    lab.sync()
    assert lab.sql("SELECT DISTINCT n_words FROM mart.messages").fetchall() == [(333_333,)]


@pytest.mark.slow
def test_all_messages_are_placed_in_memory_that_does_not_grow_with_them(warehouse, monkeypatch):
    """A part at a time: what is joined with all messages is only that part."""
    monkeypatch.setattr(refresh, "BATCH", 20_000)
    with warehouse.transaction():
        warehouse.create_table(MESSAGES)
        warehouse.connection.execute(
            """INSERT INTO raw.messages BY NAME
            SELECT
                i AS id, 'message ' || i AS message_id, 'conversation ' || i // 40
                    AS conversation_id, 'channel' AS channel_id, 'person ' || i // 400 AS user_id,
                'user' AS role, 'word' AS content, make_timestamptz(i * 1000000) AS timestamp
            FROM range(400000) AS numbers (i)"""
        )
        changes = refresh.Changes(warehouse.connection, reread=True)
        changes._begin()
        warehouse.connection.execute(
            "INSERT INTO measures SELECT id, 1, 4, false FROM raw.messages"
        )
        with warehouse.memory("64MB"):
            changes.apply()
    found = warehouse.connection.execute(
        "SELECT count(*), max(msg_idx), sum(n_words)::BIGINT FROM mart.messages"
    )
    assert found.fetchone() == (400_000, 39, 400_000)
