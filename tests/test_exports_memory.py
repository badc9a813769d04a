"""Exports in bounded memory: newest first, in many chats, or nested deeply."""

from __future__ import annotations

import json
import random
import tracemalloc
from array import array
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import ijson
import pytest

from aico_lab.importing.known_places import KnownIds, KnownPlaces
from aico_lab.importing.same_chat import ChatPlace
from aico_lab.sources import recognise
from aico_lab.sources.exports.engine import stored
from aico_lab.sources.exports.engine.json_nesting import deep_items
from tests.costs import takes_about
from tests.exported import read

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that rows beyond the first few go into; it has a name for the test."""
    path = tmp_path / "rows"
    monkeypatch.setattr(stored, "_IN_MEMORY", 2_000)
    monkeypatch.setattr(stored, "_WAITING", 50)
    monkeypatch.setattr(stored, "TemporaryFile", lambda **_: path.open("w+b"))
    return path


@pytest.mark.parametrize("chats", [1, 40])
@pytest.mark.parametrize("newest_first", [True, False])
def test_rows_come_back_in_order_and_are_not_readable_on_the_disk(
    file: Path, chats: int, *, newest_first: bool
) -> None:
    chance = random.Random(1)
    with stored.Shelf() as shelf:
        held = [shelf.begin(newest_first=not newest_first) for _ in range(chats)]
        for number in range(2_000):
            day = -number if newest_first else number
            row: list[Any] = [number, f"secret {chance.random()}"]
            held[number % chats].append(row, BEGIN + timedelta(minutes=day))
        for chat, rows in enumerate(held):
            numbers = [row[0] for row in rows.oldest_first()]
            expected = list(range(chat, 2_000, chats))
            assert numbers == (expected[::-1] if newest_first else expected)
        assert file.stat().st_size > 5_000
        assert b"secret" not in file.read_bytes()


def test_a_chat_of_many_blocks_is_read_in_order(file: Path, tmp_path: Path) -> None:
    lines = [
        f"{(BEGIN + timedelta(minutes=number)).isoformat(timespec='milliseconds')[:-6]}Z"
        f",{'Me' if number % 2 else 'Rep'},text {number},None,{number:024x}"
        for number in reversed(range(3_000))
    ]
    path = tmp_path / "chat.no.csv"
    path.write_text("\n".join(["Timestamp,From,Text,Reaction,ID", *lines]) + "\n")
    assert read("replika", path).contents == [f"text {number}" for number in range(3_000)]
    assert file.exists()


def documents() -> list[Any]:
    return [
        [{"a": 1}, {"a": [1, {"b": []}]}, 3, "x", None, [], {}],
        {"turns": [{"a": {"item": [1]}}, 2], "meta": {"turns": [5]}},
        {"histories": {"histories": [{"x": [[]]}], "item": [1]}},
        {"b": [{"c": 1}], "item": {"item": 2}},
        [[{"a": 1}], [{"a": [{"turns": [{"b": 2}]}]}]],
    ]


@pytest.mark.parametrize("prefix", ["", "item", "turns.item", "histories.histories.item"])
@pytest.mark.parametrize("document", documents())
def test_deep_items_are_those_of_ijson(document: Any, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    with path.open("rb") as one, path.open("rb") as other:
        assert list(deep_items(one, prefix)) == list(ijson.items(other, prefix, use_float=True))


@pytest.mark.parametrize(
    ("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"mapping":{"a":', b"}}]")]
)
def test_a_value_nested_absurdly_harms_only_its_conversation(
    begin: bytes, end: bytes, tmp_path: Path
) -> None:
    deep = begin * 100_000 + b"1" + end * 100_000
    said = {"uuid": "m", "sender": "human", "text": "hi", "created_at": "2026-01-01T00:00:00Z"}
    data = json.dumps({"uuid": "c", "name": "N", "chat_messages": [said]}).encode()
    path = tmp_path / "conversations.json"
    bad = b'{"uuid": "d", "name": ' + deep + b', "chat_messages": []}'
    path.write_bytes(b"[" + data + b"," + bad + b"," + data.replace(b'"c"', b'"e"') + b"]")
    assert recognise(path).name == "claude"
    got = read("claude", path)
    assert [message.conversation_id for message in got.messages] == ["claude:c", "claude:e"]


def test_a_message_of_discord_nested_absurdly_takes_no_minutes(tmp_path: Path) -> None:
    head = {"guild": {"id": "1"}, "channel": {"id": "2", "name": "c"}}
    author = {"id": "7", "name": "Ada", "isBot": False}
    said = {"id": "8", "type": "Default", "timestamp": "2026-01-01T00:00:00Z", "author": author}
    whole = json.dumps(said | {"content": "hi"}).encode()
    bad = b'{"id": "9", "type": ' + b'{"a":' * 30_000 + b"1" + b"}" * 30_000 + b"}"
    path = tmp_path / "chat.json"
    begin = json.dumps(head).encode()[:-1] + b', "messages": ['
    path.write_bytes(begin + b",".join([whole, bad, whole.replace(b'"8"', b'"10"')]) + b"]}")
    with takes_about(0.5):
        assert read("discord", path).contents == ["hi", "hi"]


def test_the_chats_of_many_messages_are_known_in_little_memory() -> None:
    """Each message takes 12 bytes; in a dict of dicts it took more than 100."""
    count, chats = 200_000, 400
    chance = random.Random(1)
    ids = [
        array("Q", [chance.getrandbits(64) for _ in range(count // chats)]) for _ in range(chats)
    ]
    places = [ChatPlace(f"replika:{chat}", "replika") for chat in range(chats)]
    tracemalloc.start()
    try:
        known = KnownPlaces()
        for some, place in zip(ids, places, strict=True):
            assert not any(known.of(some))
            known.add(some, place)
        assert tracemalloc.get_traced_memory()[0] < 6 << 20
    finally:
        tracemalloc.stop()
    for some, place in zip(ids[::40], places[::40], strict=True):
        known.add(some[:5], places[1])  # the first place stays
        assert set(known.of(some)) == {place}


def test_the_ids_of_many_messages_are_known_in_little_memory() -> None:
    """Each takes 8 bytes; in a set of texts it took some 200."""
    parts = [[f"whatsapp:a chat:{number}" for number in range(at, at + 10_000)]
             for at in range(0, 200_000, 10_000)]  # fmt: skip
    tracemalloc.start()
    try:
        known = KnownIds()
        for part in parts:
            assert known.among(part) == set()
            known.add(part)
        assert tracemalloc.get_traced_memory()[0] < 6 << 20
    finally:
        tracemalloc.stop()
    assert known.among([*parts[0][:3], *parts[-1][-3:], "x"]) == {*parts[0][:3], *parts[-1][-3:]}
