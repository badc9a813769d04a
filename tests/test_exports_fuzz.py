"""Damaged exports: no traceback, and no message lost from a part that is whole."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.errors import AicoLabError, SourceUnreadable
from aico_lab.messages.rules import MAX_ID, ROLES
from aico_lab.messages.timestamps import to_timestamp
from aico_lab.sources import SOURCES, recognise
from aico_lab.sources.exports.engine.conversation import Options
from tests.test_exports import FORMATS, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aico_lab.messages.records import MessageRecord

FEW = 12
MANY = 560
"""Mutations of each sample; together some 10,000."""

CHANGED = 40
"""Changes of one message in a test."""

VALUES: list[Any] = [
    *(None, True, 0, -1, 1e308, 10**30, -(10**30), "", "\ud800", "\0", "x" * 5_000, "1e999"),
    *([], {}, [[]], [None], {"a": {}}, {"\udfff": 1}, "9999-12-31T23:59:59+00:00", "0001-01-01"),
]

NESTED = "nested more deeply than parsers go"
DEEP = {
    f'"{NESTED} list"'.encode(): b"[" * 30_000 + b"]" * 30_000,
    f'"{NESTED} object"'.encode(): b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
}


def truncated(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def flipped(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def without_a_piece(data: bytes, chance: random.Random) -> bytes:
    at, length = chance.randrange(len(data)), chance.randrange(1, 400)
    return data[:at] + data[at + length :]


def with_a_piece_twice(data: bytes, chance: random.Random) -> bytes:
    at, length = chance.randrange(len(data)), chance.randrange(1, 400)
    return data[: at + length] + data[at : at + length] + data[at + length :]


def with_noise(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(chance.randrange(1, 40)) + data[at:]


def with_another_value(data: bytes, chance: random.Random) -> bytes:
    """Put a value of another type somewhere into JSON, or into one line of JSONL."""
    lines = data.split(b"\n") if data.count(b"\n{") else [data]
    at = chance.randrange(len(lines))
    try:
        document = json.loads(lines[at])
    except (ValueError, RecursionError):
        return flipped(data, chance)
    if not isinstance(document, dict | list) or not document:
        return flipped(data, chance)
    change_values(document, chance)
    lines[at] = to_json(document)
    return b"\n".join(lines)


def change_values(document: dict[str, Any] | list[Any], chance: random.Random) -> None:
    """Change up to three values or keys somewhere in a document."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(document))
        if not places:
            return
        holder, key = chance.choice(places)
        kind = chance.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            keys = [*holder, "", "x", "\ud800", str(key).upper()]
            holder[chance.choice(keys)] = holder.pop(key)
        elif kind == 2:
            holder[key] = _of_another_type(holder[key])
        elif kind == 3:
            holder[key] = json.loads(chance.choice(list(DEEP)))
        else:
            holder[key] = chance.choice(VALUES)


def _of_another_type(value: Any) -> Any:
    """Return the same value in the type that a careless program would write."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list):
        return {str(number): one for number, one in enumerate(value)}
    if isinstance(value, str):
        return int(value) if value.isdecimal() else [value]
    return str(value)


def to_json(document: Any) -> bytes:
    """Return a document as JSON, with the nested values that no encoder can write."""
    data = json.dumps(document).encode()
    for name, nested in DEEP.items():
        data = data.replace(name, nested)
    return data


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    truncated,
    flipped,
    without_a_piece,
    with_a_piece_twice,
    with_noise,
    with_another_value,
    with_another_value,
]


def read_somehow(path: Path, name: str, options: Options) -> list[MessageRecord]:
    """Read an export by its content and by its name; return the messages."""
    with contextlib.suppress(AicoLabError):
        recognise(path)
    with contextlib.suppress(AicoLabError):
        batches = SOURCES[name].read(path, options=options)
        return [message for batch in batches for message in batch.messages]
    return []


def read_mutation(sample: str, path: Path, seed: int) -> int:
    """Write a mutation of a sample, read it, and check that its messages can be stored.

    Returns:
        The number of messages.
    """
    name, options = FORMATS[sample]
    chance = random.Random(f"{sample} {seed}")
    data = chance.choice(MUTATIONS)((SAMPLES / sample).read_bytes(), chance)
    if chance.random() < 0.2:
        data = chance.choice(MUTATIONS)(data or b" ", chance)
    path.write_bytes(data)
    messages = read_somehow(path, name, Options(**options))
    for message in messages:
        assert message.role in ROLES
        assert to_timestamp(message.timestamp) == message.timestamp
        for one in (message.message_id, message.conversation_id, message.channel_id):
            assert one.startswith(f"{name}:")
            assert len(one) <= MAX_ID
    return len(messages)


@pytest.mark.parametrize("sample", FORMATS)
def test_a_damaged_export_ends_in_no_traceback(sample: str, tmp_path: Path) -> None:
    read = [read_mutation(sample, tmp_path / sample, seed) for seed in range(FEW)]
    assert any(read)


@pytest.mark.slow
@pytest.mark.parametrize("sample", FORMATS)
def test_ten_thousand_damaged_exports_end_in_no_traceback(sample: str, tmp_path: Path) -> None:
    read = [read_mutation(sample, tmp_path / sample, seed) for seed in range(FEW, FEW + MANY)]
    assert sum(map(bool, read)) > MANY / 10


BESIDE = {"chatgpt", "claude", "openwebui", "sharegpt"}
"""Formats whose file is a list of conversations."""

WHOLE = [name for name, (kind, _) in FORMATS.items() if kind in BESIDE]


@pytest.mark.parametrize("sample", WHOLE)
def test_conversations_beside_a_damaged_one_keep_all_their_messages(
    sample: str, tmp_path: Path
) -> None:
    """A piece is cut out of one conversation of several."""
    name, options = FORMATS[sample]
    document = json.loads((SAMPLES / sample).read_bytes())
    pieces = [json.dumps(one).encode() for one in document]
    path = tmp_path / sample

    def by_conversation(data: bytes) -> dict[str, int]:
        path.write_bytes(data)
        counts: dict[str, int] = {}
        with contextlib.suppress(SourceUnreadable):  # one that no reader would know alone
            for batch in SOURCES[name].read(path, options=Options(**options)):
                for message in batch.messages:
                    counts[message.conversation_id] = counts.get(message.conversation_id, 0) + 1
        return counts

    alone = [by_conversation(b"[" + piece + b"]") for piece in pieces]
    chance = random.Random(1)
    for _ in range(40):
        hit = chance.randrange(len(pieces))
        damaged = without_a_piece(pieces[hit], chance)
        data = b"[" + b", ".join([*pieces[:hit], damaged, *pieces[hit + 1 :]]) + b"]"
        found = by_conversation(data)
        for number, counts in enumerate(alone):
            if number != hit:
                for conversation, count in counts.items():
                    assert found.get(conversation, 0) >= count


ITEMS: dict[str, str | None] = {
    "characterai_turns.json": "turns",
    "discord_dce.json": "messages",
    "gemini_myactivity.json": None,
    "openai_messages.jsonl": None,
    "replika_messages.json": None,
    "sillytavern_chat.jsonl": None,
    "telegram_result.json": "messages",
}
"""Samples whose items are messages, with the key of their list."""


@pytest.mark.parametrize("sample", ITEMS)
def test_messages_beside_a_changed_one_are_all_read(sample: str, tmp_path: Path) -> None:
    """Values and keys of one message are changed; the others are read as if it were not there."""
    name, options = FORMATS[sample]
    key = ITEMS[sample]
    data = (SAMPLES / sample).read_bytes()
    is_lines = sample.endswith(".jsonl")
    if is_lines:
        document = [json.loads(line) for line in data.split(b"\n") if _is_json(line)]
    else:
        document = json.loads(data.replace(b"\\x", b"\\u00"))
    items = document if key is None else document[key]
    path = tmp_path / sample

    def contents(those: list[Any]) -> Counter[str]:
        whole = those if key is None else {**document, key: those}
        path.write_bytes(b"\n".join(map(to_json, those)) if is_lines else to_json(whole))
        batches = SOURCES[name].read(path, options=Options(**options))
        return Counter(message.content for batch in batches for message in batch.messages)

    chance = random.Random(sample)
    for _ in range(CHANGED):
        at = chance.randrange(1 if sample == "sillytavern_chat.jsonl" else 0, len(items))
        changed = copy.deepcopy(items)
        if not isinstance(changed[at], dict):
            continue
        change_values(changed[at], chance)
        others = contents(items[:at] + items[at + 1 :])
        assert others <= contents(changed), changed[at]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
