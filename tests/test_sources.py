"""The sources turn every input into the same batches, and say what they could not take."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aico_lab.errors import InvalidValue, SourceMissing, SourceUnreadable, UnknownName, WrongUse
from aico_lab.messages import rules
from aico_lab.messages.context import Context, Occurrences
from aico_lab.messages.records import (
    BATCH_MESSAGES,
    Batch,
    ChannelRecord,
    FeedbackRecord,
    MessageRecord,
    NotAMessageError,
    UserRecord,
)
from aico_lab.messages.rules import to_record
from aico_lab.messages.timestamps import to_timestamp
from aico_lab.schema.core import CORE
from aico_lab.sources import SOURCES, csv_file, exports, files, jsonl, read
from aico_lab.sources.chitchat import MESSAGES
from aico_lab.sources.exports import FORMATS
from aico_lab.sources.exports.engine.conversation import Options

NOON = "2024-05-01T12:00:00Z"
FIELDS = {"content": "Hello", "timestamp": NOON}

storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
identifiers = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=512
)


def record(**fields):
    return to_record(FIELDS | fields, Context(names_users="user_id" in fields))


def write_jsonl(path, objects):
    path.write_text("".join(json.dumps(item) + "\n" for item in objects), encoding="utf-8")
    return path


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def messages(batches):
    return [message for batch in batches for message in batch.messages]


def rejected(batches):
    return [(item.line, item.reason) for batch in batches for item in batch.rejected]


# The records


def test_records_have_the_columns_of_their_tables():
    """A record's fields are columns of its table, so that the importer can bind it as it is."""
    tables = {
        "messages": MessageRecord,
        "channels": ChannelRecord,
        "users": UserRecord,
        "feedback_events": FeedbackRecord,
    }
    statements = [sql for schema in CORE for sql in schema.versions[1].sql_statements]
    for table, kind in tables.items():
        (create,) = [sql for sql in statements if sql.startswith(f"CREATE TABLE {table} ")]
        columns = [line.split()[0] for line in create.splitlines()[1:-1]]
        assert [name for name in columns if name in kind._fields] == list(kind._fields)


# The rules


def test_a_message_needs_only_content_and_timestamp():
    """Everything else has a default."""
    got = record()
    assert got == MessageRecord(
        message_id=got.message_id,
        channel_id="direct:me",
        conversation_id="direct:me",
        user_id="me",
        role="user",
        content="Hello",
        timestamp="2024-05-01T12:00:00.000000Z",
        sentiment_score=None,
        sentiment_source=None,
        response_time=None,
        reply_to=None,
        metadata=None,
    )


def test_a_derived_id_never_changes():
    """Ids that were derived by an earlier version stay the same, or imports would add doubles."""
    identity = b"default\0default\0me\0user\0" + b"2024-05-01T12:00:00.000000Z\0Hello"
    context = Context(names_users=False)
    for occurrence in (b"\0" + b"0", b"\0" + b"1"):
        derived = hashlib.sha256(identity + occurrence).hexdigest()[:32]
        got = to_record(FIELDS | {"channel_id": "default"}, context)
        assert got.message_id == f"x-{derived}"
    assert record(channel_id="default").message_id == "x-86145fd4119cef13861c290d0178dbfe"


def test_channel_and_conversation_stand_in_for_each_other():
    """Whichever of the two is given names the other."""
    assert record(channel_id="a").conversation_id == "a"
    assert record(conversation_id="b").channel_id == "b"
    both = record(channel_id="a", conversation_id="b")
    assert (both.channel_id, both.conversation_id) == ("a", "b")


def test_a_system_message_has_no_author_unless_it_names_one():
    """Where a file names nobody, its author is for people and the companion."""
    assert record(role="system").user_id is None
    assert record(role="system", user_id="admin").user_id == "admin"
    assert record(role="assistant").user_id == "me"


def test_null_is_the_same_as_missing():
    """A JSON null in an optional field takes the default."""
    nulls = dict.fromkeys(MessageRecord._fields)
    del nulls["sentiment_source"]
    assert to_record(nulls | FIELDS, Context(names_users=False)) == record()


def test_whole_numbers_are_ids():
    """Databases number their rows; the numbers become text."""
    got = record(message_id=7, user_id=-1, conversation_id=10**30, reply_to=0)
    assert got[:4] == ("7", "1" + "0" * 30, "1" + "0" * 30, "-1")
    assert got.reply_to == "0"


def test_a_given_score_says_that_it_was_given():
    """Scores of the user's own are told from ours."""
    assert record(sentiment_score=-1).sentiment_source == "given"
    assert record(sentiment_score=0).sentiment_score == 0.0


def test_unknown_fields_are_kept_in_metadata():
    """Nothing of a message is lost; equal repetition is no conflict."""
    got = record(metadata={"b": [1, None], "x": 1}, mood="süß", x=1, nothing=None)
    assert got.metadata == '{"b":[1,null],"mood":"süß","nothing":null,"x":1}'


def test_an_escaped_backslash_before_u0000_is_no_nul():
    """Metadata may speak about NUL characters, but hold none."""
    assert json.loads(record(metadata={"a": "\\u0000"}).metadata) == {"a": "\\u0000"}
    with pytest.raises(NotAMessageError, match="metadata holds a NUL"):
        record(metadata={"a": "\\\0"})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"content": None}, "content is missing"),
        ({"content": 5}, "content must be text"),
        ({"content": "a\0b"}, "content holds a NUL character"),
        ({"content": "\ud83d"}, "content holds half of a surrogate pair"),
        ({"content": "x" * 1_000_001}, "content has more than 1,000,000 characters"),
        ({"timestamp": None}, "timestamp is missing"),
        ({"timestamp": "yesterday"}, "not an ISO 8601 date and time"),
        ({"timestamp": 1714564800}, "not an ISO 8601 date and time"),
        ({"timestamp": f" {NOON}"}, "not an ISO 8601 date and time"),
        ({"timestamp": "2024-05-01T\u0661\u0662:00:00Z"}, "not an ISO 8601 date and time"),
        ({"timestamp": "2024-05-01T12:00:00+25:00"}, "not an ISO 8601 date and time"),
        (
            {"timestamp": "2024-05-01"},
            "a date without a time: add one, such as 2024-05-01T00:00:00Z",
        ),
        ({"timestamp": "2016-12-31T23:59:60Z"}, "leap second"),
        ({"timestamp": "2023-02-29T12:00:00Z"}, "does not exist"),
        ({"timestamp": "2024-05-01T24:00:00Z"}, "does not exist"),
        ({"timestamp": "0000-01-01T00:00:00Z"}, "does not exist"),
        ({"timestamp": "0001-01-01T00:00:00+01:00"}, "outside the years 1 to 9999"),
        ({"timestamp": "9999-12-31T23:59:59-00:01"}, "outside the years 1 to 9999"),
        ({"role": "bot"}, "role must be one of user, assistant, system"),
        ({"role": ""}, "role must be one of"),
        ({"role": ["user"]}, "role must be one of"),
        ({"message_id": ""}, "message_id is empty"),
        ({"user_id": "x" * 513}, "user_id is longer than 512 characters"),
        ({"channel_id": 1.5}, "channel_id must be text or a whole number"),
        ({"reply_to": True}, "reply_to must be text or a whole number"),
        ({"conversation_id": "a\0"}, "conversation_id holds a NUL"),
        ({"sentiment_score": True}, "sentiment_score must be a number"),
        ({"sentiment_score": "0.5"}, "sentiment_score must be a number"),
        ({"sentiment_score": math.nan}, "sentiment_score must be a finite number"),
        ({"sentiment_score": 1.01}, "sentiment_score must be a finite number, between -1 and 1"),
        ({"response_time": math.inf}, "response_time must be a finite number"),
        ({"response_time": 10**400}, "response_time must be a finite number"),
        ({"response_time": -0.1}, "response_time must be a finite number, at least 0"),
        ({"metadata": [1]}, "metadata must be an object"),
        ({"metadata": {"a": math.nan}}, "NaN or an infinite number"),
        ({"extra": math.inf}, "NaN or an infinite number"),
        ({"extra": "\ud800"}, "metadata holds half of a surrogate pair"),
        ({"ex\0tra": 1}, "metadata holds a NUL"),
        ({"metadata": {"a": 1}, "a": 2}, "metadata and a field of the same name differ"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_a_reason(fields, reason):
    """The reason names the field, and none of its values."""
    with pytest.raises(NotAMessageError, match=reason):
        record(**fields)


@given(
    content=storable,
    message_id=identifiers,
    user_id=identifiers,
    role=st.sampled_from(rules.ROLES),
    score=st.floats(-1, 1),
    seconds=st.floats(0, allow_infinity=False),
    metadata=st.dictionaries(storable, storable | st.integers() | st.booleans() | st.none()),
)
def test_what_is_given_comes_back(*, content, message_id, user_id, role, score, seconds, metadata):
    """Any text, number and metadata that can be stored is kept exactly."""
    got = record(
        content=content,
        message_id=message_id,
        user_id=user_id,
        role=role,
        sentiment_score=score,
        response_time=seconds,
        metadata=metadata,
    )
    assert (got.content, got.message_id, got.user_id, got.role) == (
        content,
        message_id,
        user_id,
        role,
    )
    assert (got.sentiment_score, got.response_time) == (score, seconds)
    assert json.loads(got.metadata or "{}") == metadata


@given(
    moment=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001
    minutes=st.integers(-1439, 1439) | st.none(),
    separator=st.sampled_from("Tt "),
)
def test_every_time_in_every_zone_is_brought_to_utc(moment, minutes, separator):
    """The width is fixed, so that the order of the texts is the order of the times."""
    zone = UTC if minutes is None else timezone(timedelta(minutes=minutes))
    text = moment.replace(tzinfo=None if minutes is None else zone).isoformat(separator)
    got = to_timestamp(text)
    assert len(got) == len("2024-05-01T12:00:00.000000Z")
    assert datetime.fromisoformat(got) == moment.replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-05-01T12:30", "2024-05-01T12:30:00.000000Z"),
        ("2024-05-01 12:30:15", "2024-05-01T12:30:15.000000Z"),
        ("2024-05-01t12:30:15.5z", "2024-05-01T12:30:15.500000Z"),
        ("2024-05-01T12:30:15,123456789+0200", "2024-05-01T10:30:15.123456Z"),
        ("2024-05-01T12:30:15.25-05", "2024-05-01T17:30:15.250000Z"),
    ],
)
def test_the_usual_forms_of_a_time_are_understood(text, utc):
    """Fractions of any length, and zones of any form; without a zone it is UTC."""
    assert to_timestamp(text) == utc


@given(
    st.from_regex(
        r"[012]\d{3}-[01]\d-[0-3]\d[Tt][012]\d:[0-6]\d:[0-6]\d\.\d{6}Z\n?", fullmatch=True
    )
)
@example("2024-02-29T23:59:59.123456Z")
@example("2023-02-29T12:00:00.000000Z")
@example("0000-01-01T00:00:00.000000Z")
@example("2024-05-01T24:00:00.000000Z")
@example("2016-12-31T23:59:60.000000Z")
def test_a_time_in_the_form_of_the_database_is_looked_at_like_any_other(text):
    """It is kept as it is if there is such a time, and else refused with the same reason."""
    assert refusal_or(to_timestamp, text) == refusal_or(to_timestamp, text.replace("T", " "))


def refusal_or(convert, text):
    try:
        return convert(text)
    except NotAMessageError as refused:
        return str(refused)


def test_equal_messages_of_one_second_are_told_apart():
    """Their order makes the difference, the same one every time."""
    first, second = Context(names_users=False), Context(names_users=False)
    ids = [to_record(FIELDS, first).message_id for _ in range(3)]
    assert len(set(ids)) == 3
    assert [to_record(FIELDS, second).message_id for _ in range(3)] == ids


def test_what_identifies_a_message_is_in_its_id():
    """A difference in any identifying field gives another id; other fields do not matter."""
    variants = [
        {},
        {"content": "Hello!"},
        {"timestamp": "2024-05-01T12:00:01Z"},
        {"role": "assistant"},
        {"user_id": "you"},
        {"conversation_id": "c", "channel_id": "default"},
        {"channel_id": "c", "conversation_id": "default"},
    ]
    assert len({record(**fields).message_id for fields in variants}) == len(variants)
    assert record(sentiment_score=1, mood="good").message_id == record().message_id


def test_the_memory_of_occurrences_is_bounded(monkeypatch):
    """A duplicate within the window is counted; one beyond it is the first of its kind again."""
    monkeypatch.setattr(Occurrences, "GENERATION", 3)
    seen = Occurrences()
    assert [seen.next(key) for key in (b"a", b"b", b"a", b"c")] == [0, 0, 1, 0]
    assert seen.next(b"a") == 2  # from the generation before
    assert [seen.next(key) for key in (b"d", b"e", b"f", b"g", b"h")] == [0] * 5
    assert seen.next(b"a") == 0
    assert len(seen._current) + len(seen._previous) <= 6


# JSONL


def test_jsonl_gives_self_contained_batches(tmp_path):
    """A batch carries the channels and users that its messages name, from their first message."""
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [
            {"content": "2", "timestamp": "2024-05-01T12:00:02Z", "channel_id": "c"},
            {"content": "1", "timestamp": "2024-05-01T12:00:01Z", "channel_id": "c"},
            {"content": "s", "timestamp": NOON, "channel_id": "d", "role": "system"},
        ],
    )
    (batch,) = read("jsonl", path)
    first = "2024-05-01T12:00:01.000000Z"
    assert [message.content for message in batch.messages] == ["2", "1", "s"]
    assert batch.channels == [
        ChannelRecord("c", None, "direct", first, None),
        ChannelRecord("d", None, "direct", "2024-05-01T12:00:00.000000Z", None),
    ]
    assert batch.users == [UserRecord("me", None, first, None)]
    assert (batch.feedback, batch.rejected, batch.lines_read) == ([], [], 3)
    assert batch.progress == path.stat().st_size == SOURCES["jsonl"].total(path)


def test_jsonl_rejects_bad_lines_by_number_and_goes_on(tmp_path, monkeypatch):
    """Every kind of bad line is one rejection; blank lines and a byte order mark are none."""
    monkeypatch.setattr(files, "MAX_LINE", 200_000)
    good = json.dumps(FIELDS).encode()
    path = tmp_path / "a.jsonl"
    lines = [
        b"\xef\xbb\xbf" + good,
        b"",
        b"  \t\r",
        b"[1, 2]",
        b"{nonsense",
        good + b"\xff",
        b'{"content": "\xed\xa0\x80", "timestamp": "2024-05-01T12:00:00Z"}',
        b'{"content": "\\ud800", "timestamp": "2024-05-01T12:00:00Z"}',
        b'{"content": "\\u0000", "timestamp": "2024-05-01T12:00:00Z"}',
        b"\0",
        b"[" * 100_000,
        b"9" * 5_000,
        b'{"content": "' + b"x" * 500_000 + b'"}',
        good[:-1] + b', "response_time": 1e999}',
        good[:-1] + b', "other": Infinity}',
        good[:-1] + b', "metadata": {"a": -1e999}}',
        good[:-1] + b', "metadata": {"a": "\\u0000"}}',
        b"null",
        good + b"\r",
        good,
    ]
    path.write_bytes(b"\n".join(lines))
    (batch,) = jsonl.read(path)
    assert len(batch.messages) == 3
    assert batch.lines_read == len(lines)
    assert batch.progress == path.stat().st_size
    reasons = [
        (4, "the line is not a JSON object"),
        (5, "the line is not valid JSON"),
        (6, "the line is not UTF-8"),
        (7, "the line is not UTF-8"),
        (8, "content holds half of a surrogate pair"),
        (9, "content holds a NUL"),
        (10, "the line is not valid JSON"),
        (11, "the line is nested too deeply"),
        (12, "the line contains a number that is too long"),
        (13, "the line is longer than"),
        (14, "response_time must be a finite number"),
        (15, "metadata contains NaN or an infinite number"),
        (16, "metadata contains NaN or an infinite number"),
        (17, "metadata holds a NUL"),
        (18, "the line is not a JSON object"),
    ]
    assert [line for line, _ in rejected([batch])] == [line for line, _ in reasons]
    for (_, got), (_, reason) in zip(rejected([batch]), reasons, strict=True):
        assert got.startswith(reason)


def test_the_same_file_twice_gives_the_same_ids(tmp_path):
    """Duplicates within a second stay apart, and reading again adds nothing new."""
    path = write_jsonl(tmp_path / "a.jsonl", [FIELDS, FIELDS, FIELDS | {"content": "other"}])
    first, second = messages(jsonl.read(path)), messages(jsonl.read(path))
    assert first == second
    assert len({message.message_id for message in first}) == 3


def test_jsonl_and_csv_of_the_same_messages_give_the_same_records(tmp_path):
    """The form of the file leaves no trace, not even in the derived ids."""
    rows = [
        ["content", "timestamp", "sentiment_score", "response_time", "metadata", "mood"],
        ['Hello, "you"\nthere 😁', NOON, "-0.5", "1e1", '{"a": [1]}', "fine"],
        ["", NOON, "", "", "", ""],
    ]
    objects = [
        {
            "content": rows[1][0],
            "timestamp": NOON,
            "sentiment_score": -0.5,
            "response_time": 10,
            "metadata": {"a": [1]},
            "mood": "fine",
        },
        {"content": "", "timestamp": NOON},
    ]
    table = messages(csv_file.read(write_csv(tmp_path / "a.csv", rows)))
    assert table == messages(jsonl.read(write_jsonl(tmp_path / "a.jsonl", objects)))
    assert table[0].metadata == '{"a":[1],"mood":"fine"}'


@given(texts=st.lists(storable.filter(lambda text: "\r" not in text), max_size=5))
def test_csv_keeps_any_text(tmp_path_factory, texts):
    """Quotes, commas, line ends and every script come back as they were."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    write_csv(path, [["content", "timestamp"], *([text, NOON] for text in texts)])
    assert [message.content for message in messages(csv_file.read(path))] == texts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("total", "sizes"), [(25_000, [10_000, 10_000, 5_000]), (10_000, [10_000])]
)
def test_batches_have_at_most_ten_thousand_messages(tmp_path, total, sizes):
    """A batch is one transaction: it must not grow with the file."""
    assert BATCH_MESSAGES == 10_000
    path = write_jsonl(tmp_path / "a.jsonl", [FIELDS] * total)
    batches = list(jsonl.read(path))
    assert [len(batch.messages) for batch in batches] == sizes
    assert sum(batch.lines_read for batch in batches) == total
    assert sum(batch.progress for batch in batches) == path.stat().st_size
    assert len({message.message_id for message in messages(batches)}) == total


def test_long_messages_end_a_batch_early(tmp_path, monkeypatch):
    """The memory of a batch is bounded in bytes too."""
    monkeypatch.setattr(files, "BATCH_BYTES", 1_000)
    path = write_jsonl(tmp_path / "a.jsonl", [FIELDS | {"content": "x" * 600}] * 4)
    assert [len(batch.messages) for batch in jsonl.read(path)] == [2, 2]


def test_rejected_lines_fill_a_batch_too(tmp_path):
    """A file of the wrong kind does not gather all its lines in memory."""
    path = tmp_path / "a.jsonl"
    path.write_text("nonsense\n" * 10_001)
    assert [len(batch.rejected) for batch in jsonl.read(path)] == [10_000, 1]


@pytest.mark.parametrize("source", ["jsonl", "csv"])
@pytest.mark.parametrize("limit", [1, 2, 3, 9])
def test_a_limit_counts_messages(tmp_path, source, limit):
    """Rejected lines do not count, and nothing is read beyond the last message."""
    if source == "jsonl":
        path = write_jsonl(tmp_path / "a", [FIELDS, 5, FIELDS, FIELDS])
    else:
        row = ["Hello", NOON]
        path = write_csv(tmp_path / "a", [["content", "timestamp"], row, ["x"], row, row])
    batches = list(read(source, path, limit=limit))
    assert len(messages(batches)) == min(limit, 3)
    assert len(rejected(batches)) == (limit > 1)
    assert SOURCES[source].total(path, limit) is None


def test_an_empty_file_has_no_messages(tmp_path):
    """It is not an error, and blank lines alone are only counted."""
    empty, blank = tmp_path / "empty.jsonl", tmp_path / "blank.jsonl"
    empty.touch()
    blank.write_text("\n\n")
    assert list(jsonl.read(empty)) == []
    assert list(jsonl.read(blank)) == [Batch([], [], [], [], [], lines_read=2, progress=2)]


@pytest.mark.slow
def test_jsonl_is_read_in_constant_memory(tmp_path):
    """200,000 messages need no more memory than a few batches do."""
    path = tmp_path / "a.jsonl"
    with path.open("w") as stream:
        for number in range(200_000):
            stream.write(f'{{"content": "message {number}", "timestamp": "{NOON}"}}\n')
    tracemalloc.start()
    try:
        count = sum(len(batch.messages) for batch in jsonl.read(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 200_000
    assert peak < 45_000_000  # all records would be 150 MB


# CSV


def csv_of(tmp_path, body, header=b"content,timestamp\n"):
    path = tmp_path / "a.csv"
    path.write_bytes(header + body)
    return path


def test_csv_numbers_a_row_by_the_line_where_it_starts(tmp_path, monkeypatch):
    """Quoted line ends, blank lines and a byte order mark do not confuse the numbers."""
    monkeypatch.setattr(csv_file, "MAX_LINE", 1_000)
    monkeypatch.setattr(files, "MAX_LINE", 1_000)
    stamp = NOON.encode()
    body = [
        b'"one\ntwo",' + stamp,  # lines 2 and 3
        b"",
        b"three",  # line 5
        b"four," + stamp + b",",
        b"\xff," + stamp,
        b'"a\n\xff\nb",' + stamp,  # lines 8 to 10
        b"nul\0," + stamp,
        b'"five"x,' + stamp,
        b"x" * 1_500 + b"," + stamp,
        b'"' + b"x" * 500 + b"\n" + b"x" * 600 + b'",' + stamp,  # lines 14 and 15
        b"," + stamp,
        b"seven,",
        b"eight," + stamp + b"\r",
        b'"nine ""quoted""",' + stamp,
        b'say "ten",' + stamp,
    ]
    path = csv_of(tmp_path, b"\n".join(body), b"\xef\xbb\xbfcontent, timestamp\r\n")
    (batch,) = csv_file.read(path)
    assert [message.content for message in batch.messages] == [
        "one\ntwo",
        "",
        "eight",
        'nine "quoted"',
    ]
    assert batch.lines_read == 20
    reasons = [
        (5, "the row has 1 columns, the header has 2"),
        (6, "the row has 3 columns, the header has 2"),
        (7, "the row is not UTF-8"),
        (8, "the row is not UTF-8"),
        (11, "content holds a NUL"),
        (12, "the row is not valid CSV"),
        (13, "the row is longer than 1,000 bytes"),
        (14, "the row is longer than 1,000 bytes"),
        (15, "the row has a quote in an unquoted cell"),
        (17, "timestamp is missing"),
        (20, "the row has a quote in an unquoted cell"),
    ]
    assert [line for line, _ in rejected([batch])] == [line for line, _ in reasons]
    for (_, got), (_, reason) in zip(rejected([batch]), reasons, strict=True):
        assert got.startswith(reason)


@pytest.mark.parametrize("rest", ["", f'"quoted",{NOON}\n', f'"two\nlines",{NOON}\n'])
def test_an_open_quote_costs_one_line(tmp_path, rest):
    """The lines that the quote would have swallowed are read as rows of their own."""
    rows = "".join(f"row {number},{NOON}\n" for number in range(100))
    body = f'"open,{NOON}\n{rows}{rest}'
    batches = list(csv_file.read(csv_of(tmp_path, body.encode())))
    assert len(messages(batches)) == 100 + bool(rest)
    assert [line for line, _ in rejected(batches)] == [2]


@pytest.mark.parametrize("text", ["first\nsecond\nlast", "first\nlast "])
def test_the_rest_of_a_broken_row_is_never_a_message(tmp_path, text):
    """Where the quotes of a long text are wrong, none of its lines passes for a row."""
    body = f'"he said "yes"\n{text}",{NOON}\nnext,{NOON}\n'
    batches = list(csv_file.read(csv_of(tmp_path, body.encode())))
    assert [message.content for message in messages(batches)] == ["next"]
    assert [line for line, _ in rejected(batches)] == list(range(2, 3 + len(text.split())))


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("sentiment_score", "good", "sentiment_score must be a number"),
        ("sentiment_score", "nan", "sentiment_score must be a number"),
        ("sentiment_score", "2", "sentiment_score must be a finite number, between -1 and 1"),
        ("response_time", "1_0", "response_time must be a number"),
        ("response_time", "inf", "response_time must be a number"),
        ("response_time", "1e999", "response_time must be a finite number"),
        ("metadata", "{", "metadata is not valid JSON"),
        ("metadata", "[]", "metadata is not a JSON object"),
        ("metadata", '{"a":' * 100_000, "metadata is nested too deeply"),
        ("metadata", '{"other": 5}', "metadata and a field of the same name differ"),
    ],
)
def test_csv_cells_that_do_not_convert_are_rejected(tmp_path, column, cell, reason):
    """Numbers and metadata are text in a CSV file, and held to the rules of JSON."""
    header = ["content", "timestamp", column, "other"]
    path = write_csv(tmp_path / "a.csv", [header, ["Hello", NOON, cell, "x"]])
    ((line, got),) = rejected(csv_file.read(path))
    assert line == 2
    assert got.startswith(reason)


def test_a_csv_column_without_a_name_is_called_by_its_place(tmp_path):
    """The index that pandas writes is one."""
    path = write_csv(tmp_path / "a.csv", [["", "content", "timestamp"], ["0", "Hello", NOON]])
    (message,) = messages(csv_file.read(path))
    assert message.metadata == '{"column_1":"0"}'


def test_a_csv_cell_may_be_long(tmp_path):
    """The csv module's own limit of 128 KiB is raised to ours."""
    path = write_csv(tmp_path / "a.csv", [["content", "timestamp"], ["x" * 1_000_000, NOON]])
    assert len(messages(csv_file.read(path))[0].content) == 1_000_000


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (b"", r"lacks content and timestamp \(columns found: none\)"),
        (b"content,time\n", r"lacks timestamp \(columns found: content, time\)"),
        (b"content;timestamp\n", r"\(columns found: content;timestamp\)"),
        (b"content,timestamp,a,a\n", "names a column twice; rename one of each: a"),
        (b'"content\n', "is not a header"),
        (b"\xff,content\n", "is not a header"),
    ],
)
def test_a_csv_file_needs_a_header(tmp_path, header, sentence):
    """The error says which columns are missing and which were found."""
    with pytest.raises(SourceUnreadable, match=sentence):
        list(csv_file.read(csv_of(tmp_path, b"", header)))


def test_a_missing_header_does_not_put_a_message_into_the_error(tmp_path):
    """The first line is then what somebody wrote."""
    with pytest.raises(SourceUnreadable) as caught:
        list(csv_file.read(csv_of(tmp_path, b"", b"I told nobody but you,2024-05-01 12:00\n")))
    assert "nobody" not in str(caught.value)


# Who wrote, and where


def said(content, **fields):
    """A line without a conversation."""
    return {"content": content, "timestamp": NOON} | fields


def people(source, tmp_path, lines):
    """Who wrote each line, and in which conversation, which is also the channel."""
    if source == "jsonl":
        path = write_jsonl(tmp_path / "a.jsonl", lines)
    else:
        names = sorted({name for line in lines for name in line})
        cells = [[line.get(name) or "" for name in names] for line in lines]
        path = write_csv(tmp_path / "a.csv", [names, *cells])
    got = messages(read(source, path))
    assert all(message.channel_id == message.conversation_id for message in got)
    return [(message.user_id, message.conversation_id) for message in got]


both = pytest.mark.parametrize("source", ["jsonl", "csv"])


@both
def test_a_missing_user_is_nobody_where_a_file_names_users(source, tmp_path):
    """Deleted accounts of an export do not become one person, wherever the first name stands."""
    lines = [said(str(number), user_id=None) for number in range(3)]
    lines += [said("3", user_id="ada"), said("4", user_id=None)]
    users = [user for user, _ in people(source, tmp_path, lines)]
    assert users == [None, None, None, "ada", None]


@both
def test_a_companion_that_names_a_user_names_users_too(source, tmp_path):
    """It is enough that one message of any role does."""
    lines = [said("a"), said("b", role="assistant", user_id="ada")]
    assert people(source, tmp_path, lines) == [(None, "default"), ("ada", "direct:ada")]


@both
def test_a_file_that_names_nobody_is_of_one_person(source, tmp_path):
    """All its messages are one conversation, and the batch says how many were taken so."""
    lines = [said("hello", role="system"), said("a"), said("b", role="assistant")]
    assert people(source, tmp_path, [{**line, "user_id": None} for line in lines]) == [
        (None, "direct:me"),
        ("me", "direct:me"),
        ("me", "direct:me"),
    ]
    suffix = "a.jsonl" if source == "jsonl" else "a.csv"
    (batch,) = read(source, tmp_path / suffix)
    assert batch.assumed_me == 2


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": {"user_id": "ada"}, "content": "x", "timestamp": "2024-05-01T12:00:00Z"}',
        b'{"content": "\\"user_id\\": \\"ada\\"", "timestamp": "2024-05-01T12:00:00Z"}',
        b'{"content": "x", "timestamp": "2024-05-01T12:00:00Z", "user_id" : null}',
        b'{"user_id": "ada", "user_id": null}',
    ],
)
def test_what_only_looks_like_a_users_name_is_none(tmp_path, line):
    """Only a field of the message itself names a user."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(line + b"\n" + json.dumps(said("y")).encode())
    assert messages(jsonl.read(path))[-1].user_id == "me"


def test_lines_of_nobody_are_not_parsed_twice():
    """A file of deleted accounts only is looked through to its end."""
    assert not any(jsonl._USER.search(b'{"user_id"%b:%b null}' % (a, a)) for a in (b"", b"  "))


@both
@pytest.mark.parametrize("name", ["\xe9mile", "ada"])
def test_a_line_that_cannot_be_read_names_its_user_all_the_same(source, tmp_path, name):
    """In a file of another encoding the readable rest does not become one person."""
    text = f"name\xe9d,{NOON},{name}\nx,{NOON},\n"
    if source == "csv":
        path = csv_of(tmp_path, text.encode("latin-1"), b"content,timestamp,user_id\n")
    else:
        path = tmp_path / "a.jsonl"
        broken = json.dumps(said("\xe9", user_id=name), ensure_ascii=False)
        path.write_bytes(f"{broken}\n{json.dumps(said('x', user_id=None))}\n".encode("latin-1"))
    (message,) = messages(read(source, path))
    assert (message.content, message.user_id) == ("x", None)


@both
def test_without_conversations_each_person_has_one(source, tmp_path):
    """A companion's message belongs to the user that it names, else to whom it follows."""
    lines = [
        (said("rules", role="system"), None, "default"),
        (said("early", role="assistant"), None, "default"),
        (said("a", user_id="ada"), "ada", "direct:ada"),
        (said("b", user_id="ben"), "ben", "direct:ben"),
        (said("to ben", role="assistant"), None, "direct:ben"),
        (said("to ada", role="assistant", user_id="ada"), "ada", "direct:ada"),
        (said("more", role="assistant"), None, "direct:ada"),
        (said("note", role="system"), None, "direct:ada"),
        (said("deleted"), None, "default"),
        (said("to the deleted one", role="assistant"), None, "default"),
    ]
    got = people(source, tmp_path, [line for line, *_ in lines])
    assert got == [(user, conversation) for _, user, conversation in lines]


def test_an_answer_to_a_refused_message_stays_with_its_author():
    """It is not taken for an answer to the person before."""
    context = Context(names_users=True)
    to_record(said("a", user_id="ada"), context)
    with pytest.raises(NotAMessageError):
        to_record({"content": "no time", "user_id": "ben"}, context)
    assert to_record(said("b", role="assistant"), context).conversation_id == "direct:ben"


def test_a_given_conversation_is_where_the_companion_answers():
    """A file may name the conversation of some messages only."""
    context = Context(names_users=True)
    to_record(said("a", user_id="ada", conversation_id="c", channel_id="d"), context)
    answer = to_record(said("b", role="assistant"), context)
    assert (answer.conversation_id, answer.channel_id) == ("c", "d")


def test_an_answer_to_somebody_deleted_is_not_one_to_the_person_before():
    """A person who is not named is nobody, and their conversation that of nobody."""
    context = Context(names_users=True)
    to_record(said("a", user_id="ada"), context)
    to_record(said("b"), context)
    assert to_record(said("c", role="assistant"), context).conversation_id == "default"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@both
def test_a_pipe_is_read_once(source, tmp_path):
    """Nobody can say whether it names users further on: who is missing is nobody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = f"content,timestamp\nHello,{NOON}\n" if source == "csv" else json.dumps(FIELDS)
    with subprocess.Popen([sys.executable, "-c", f"open({str(pipe)!r}, 'w').write({text!r})"]):
        (message,) = messages(read(source, pipe))
    assert (message.user_id, message.conversation_id) == (None, "default")


@both
def test_every_message_has_its_line(source, tmp_path):
    """So that an import can name one without quoting it."""
    if source == "jsonl":
        path = write_jsonl(tmp_path / "a", [FIELDS, 5, FIELDS])
    else:
        row = ["two\nlines", NOON]
        path = write_csv(tmp_path / "a", [["content", "timestamp"], row, row])
    (batch,) = read(source, path)
    assert batch.lines == ([1, 3] if source == "jsonl" else [2, 4])


# Files that cannot be read


@pytest.mark.parametrize("source", ["jsonl", "csv"])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, source):
    """Missing, a folder, compressed, or no text: each says what to do."""
    packed, binary, wide = tmp_path / "a.gz", tmp_path / "a.bin", tmp_path / "wide"
    packed.write_bytes(gzip.compress(b"content,timestamp\n"))
    binary.write_bytes(bytes(range(256)) * 20)
    wide.write_text("content,timestamp\n", encoding="utf-16")
    for path, error, sentence in [
        (tmp_path / "none", SourceMissing, "The file .* does not exist; check its name."),
        (packed / "below", SourceMissing, "does not exist"),
        (tmp_path, SourceUnreadable, "is a folder; name a file in it."),
        (packed, SourceUnreadable, "is compressed; unpack it"),
        (binary, SourceUnreadable, "is not text in UTF-8; export"),
        (wide, SourceUnreadable, "is not text in UTF-8; export"),
    ]:
        with pytest.raises(error, match=sentence):
            list(read(source, path))
    assert SOURCES[source].total(tmp_path / "none") is None


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_a_file_without_permission_is_one_sentence(tmp_path):
    """The sentence names the permissions."""
    path = write_jsonl(tmp_path / "a.jsonl", [FIELDS])
    path.chmod(0)
    with pytest.raises(SourceUnreadable, match="You are not permitted to read"):
        list(jsonl.read(path))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "denied"), "You are not permitted to read"),
        (OSError(5, "I/O error"), "I/O error"),
    ],
)
def test_a_failing_disk_is_one_sentence(tmp_path, monkeypatch, error, sentence):
    """What the system reports while reading is translated as well."""
    path = write_jsonl(tmp_path / "a.jsonl", [FIELDS])

    def fail(_lines):
        raise error

    monkeypatch.setattr(files.Lines, "__next__", fail)
    with pytest.raises(SourceUnreadable, match=sentence):
        list(jsonl.read(path))


# The registry


def test_sources_are_found_by_name():
    """An unknown one is answered with the known ones."""
    assert list(SOURCES)[:3] == ["chitchat", "csv", "jsonl"]
    assert [name for name in SOURCES if SOURCES[name].export] == list(FORMATS)
    assert all(SOURCES[name].name == name for name in SOURCES)
    with pytest.raises(UnknownName, match="choose one of chitchat, csv, jsonl"):
        SOURCES["xml"]
    with pytest.raises(UnknownName, match="did you mean jsonl"):
        SOURCES["json"]
    assert SOURCES.get("xml") is None


def test_wrong_use_is_refused_before_anything_is_read(tmp_path):
    """A missing path, one too many, or a limit that allows nothing."""
    with pytest.raises(WrongUse, match="reads a file; name it"):
        read("jsonl")
    with pytest.raises(WrongUse, match="leave the file out"):
        read("chitchat", tmp_path)
    with pytest.raises(InvalidValue, match="at least 1"):
        read("chitchat", limit=0)
    with pytest.raises(WrongUse, match="jsonl takes no zone"):
        read("jsonl", tmp_path, options=Options(me="ada"))


def test_the_folder_of_exports_reads_like_the_list_of_sources():
    """A module or folder of each format, and their machinery, as the README says."""
    folder = Path(exports.__file__).parent
    there = {path.stem for path in folder.iterdir() if not path.name.startswith("_")}
    assert there == {*FORMATS, "engine"}
    for name in FORMATS:
        module = SOURCES[name].module
        assert callable(import_module(module).recognise), name


def test_naming_the_sources_imports_none_of_them():
    """The command line lists them on every --help; `exports` itself has only their names."""
    code = (
        "import sys, aico_lab.sources\n"
        "parts = ('aico_lab.sources.', 'aico_lab.messages.')\n"
        "print([name for name in sys.modules if name.startswith(parts)"
        " and name != 'aico_lab.sources.exports'"
        " or name in ('vaderSentiment', 'chitchat_dataset')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Chitchat


@pytest.fixture(scope="module")
def data():
    """The file of the data set, read without our code."""
    spec = find_spec("chitchat_dataset")
    assert spec is not None
    return json.loads(Path(spec.origin).with_name("dataset.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def chitchat():
    return list(read("chitchat"))


@pytest.mark.slow
def test_chitchat_is_complete(chitchat, data):
    """Every conversation, message, sender and blank text of the data set is there."""
    got = messages(chitchat)
    assert len(got) == MESSAGES == SOURCES["chitchat"].total() == 258_145
    assert len({message.message_id for message in got}) == 258_145
    assert len({message.conversation_id for message in got}) == 7_168
    assert len({message.user_id for message in got}) == 1_315
    assert sum(not message.content.strip() for message in got) == 33
    assert sum(batch.progress for batch in chitchat) == 258_145
    written = [
        (conversation_id, message["sender"], message["text"], message["timestamp"])
        for conversation_id, conversation in data.items()
        for turn in conversation["messages"]
        for message in turn
    ]
    assert written == [
        (m.channel_id, m.user_id, m.content, m.timestamp.replace(".000000Z", "Z")) for m in got
    ]


@pytest.mark.slow
def test_chitchat_fits_the_database(chitchat):
    """No text holds what the database cannot, and batches are self-contained."""
    for batch in chitchat:
        assert len(batch.messages) <= BATCH_MESSAGES
        assert {m.channel_id for m in batch.messages} == {c.channel_id for c in batch.channels}
        assert {m.user_id for m in batch.messages} == {u.user_id for u in batch.users}
        for message in batch.messages:
            assert "\0" not in message.content
            message.content.encode()


@pytest.mark.slow
def test_chitchat_ratings_are_those_of_the_data_set(chitchat, data):
    """Sums and counts of every rating equal an independent count."""
    count, total = Counter(), Counter()
    for conversation in data.values():
        for name, value in conversation.get("ratings", {}).items():
            count[name] += 1
            total[name] += value
    feedback = [event for batch in chitchat for event in batch.feedback]
    assert Counter(event.name for event in feedback) == count
    assert set(count) == {"witty", "interesting", "upbeat"}
    for name in total:
        assert sum(event.value for event in feedback if event.name == name) == total[name]
    assert len({event.event_id for event in feedback}) == len(feedback) == 3 * 5_988
    assert {event.kind for event in feedback} == {"rating"}


@pytest.mark.slow
def test_chitchat_channels_keep_what_was_given(chitchat, data):
    """A channel begins with its first message; prompt, start and ratings are in its metadata."""
    starts = {}
    for message in messages(chitchat):
        starts.setdefault(message.channel_id, message.timestamp)
    channels = [channel for batch in chitchat for channel in batch.channels]
    assert len(channels) == 7_168
    for channel in channels:
        given = {k: v for k, v in data[channel.channel_id].items() if k != "messages"}
        assert json.loads(channel.metadata) == given
        assert channel.name == given.get("prompt")
        assert channel.kind == "chitchat"
        assert channel.created_at == starts[channel.channel_id]


@pytest.mark.slow
def test_chitchat_roles_are_two_people(chitchat):
    """Who wrote first is the user, whoever else wrote stands in for the companion."""
    writers: dict[str, dict[str, str]] = {}
    for message in messages(chitchat):
        roles = writers.setdefault(message.conversation_id, {"user": message.user_id})
        assert roles.setdefault(message.role, message.user_id) == message.user_id
    assert Counter(len(roles) for roles in writers.values()) == {1: 3_150, 2: 4_018}


@pytest.mark.slow
def test_chitchat_users_join_with_their_first_message(chitchat):
    """It is the same time in every batch, and in a limited import."""
    first = {}
    for message in messages(chitchat):
        at = first.setdefault(message.user_id, message.timestamp)
        first[message.user_id] = min(at, message.timestamp)
    for batch in [*chitchat, *read("chitchat", limit=100)]:
        assert all(user.created_at == first[user.user_id] for user in batch.users)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 100, 10_001])
def test_chitchat_limit_is_exact(chitchat, limit):
    """The last conversation may be cut; its ratings are then left out."""
    batches = list(read("chitchat", limit=limit))
    assert messages(batches) == messages(chitchat)[:limit]
    assert SOURCES["chitchat"].total(limit=limit) == limit
    whole = Counter(message.conversation_id for message in messages(chitchat))
    part = Counter(message.conversation_id for message in messages(batches))
    rated = {event.conversation_id for batch in batches for event in batch.feedback}
    assert all(part[conversation] == whole[conversation] for conversation in rated)


def test_a_missing_data_set_says_how_to_get_it(monkeypatch):
    """The package is a dependency, but it can be taken away."""
    monkeypatch.setattr("aico_lab.sources.chitchat.find_spec", lambda _name: None)
    with pytest.raises(SourceMissing, match="pip install chitchat-dataset"):
        next(read("chitchat"))


def test_a_damaged_data_set_says_how_to_mend_it(monkeypatch, tmp_path):
    """A file that was cut short is not JSON."""
    (tmp_path / "dataset.json").write_text('{"a": ')

    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr("aico_lab.sources.chitchat.find_spec", lambda _name: Spec)
    with pytest.raises(SourceUnreadable, match="--force-reinstall"):
        next(read("chitchat"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(), JSON, max_size=4), st.booleans())
@example({"a": -0.0, "b": 12345678901234567890123, "c": 2**63, "d": -(2**63) - 1}, True)
@example({"a": {"b": "12345678901234567890"}, "\u2028": "\ud83d\ude00"}, True)
def test_a_line_is_read_as_by_pythons_own_parser(value, ascii_only):
    """Numbers of any length, whole ones and others, and text of any script."""
    written = json.dumps(value, ensure_ascii=ascii_only)
    if ascii_only or written.encode("utf-8", "replace").decode() == written:
        assert repr(jsonl.parse_line(written.encode())) == repr(json.loads(written))


@pytest.mark.parametrize(
    "line",
    [
        *('{"a": -0}', '{"a": 1E5, "a": 0.1}', '{"a": 1e400}', '{"a": NaN}', '{"a": -Infinity}'),
        *('{"a": "\\ud800"}', '{"a": "\\u0000"}', '\t{"a": 1.0}\r\n', '{"a": 123456789.0e-400}'),
        '{"a": ' + "[" * 300 + "]" * 300 + "}",
        '{"a": 12345678901234567890123, "b": "x", "a": "y"}',
        '{"a": [12345678901234567890123], "b": "x"}',
    ],
)
def test_an_odd_line_is_read_as_by_pythons_own_parser(line):
    """What one of the parsers refuses, or reads as another number."""
    assert repr(jsonl.parse_line(line.encode())) == repr(json.loads(line))
