"""Damaged exports: no traceback, and no message lost from a part that is whole."""

from __future__ import annotations

import contextlib
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.errors import AicoLabError
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

VALUES: list[Any] = [None, True, 0, -1, 1e308, "", "\ud800", "x" * 5_000, [], {}, [[]], {"a": {}}]


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
    except ValueError:
        return flipped(data, chance)
    places = list(_places(document))
    if not places:
        return flipped(data, chance)
    holder, key = chance.choice(places)
    holder[key] = chance.choice(VALUES)
    lines[at] = json.dumps(document).encode()
    return b"\n".join(lines)


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


def read_mutation(sample: str, path: Path, seed: int) -> None:
    """Write a mutation of a sample, read it, and check that its messages can be stored."""
    name, options = FORMATS[sample]
    chance = random.Random(f"{sample} {seed}")
    data = chance.choice(MUTATIONS)((SAMPLES / sample).read_bytes(), chance)
    if chance.random() < 0.2:
        data = chance.choice(MUTATIONS)(data or b" ", chance)
    path.write_bytes(data)
    for message in read_somehow(path, name, Options(**options)):
        assert message.role in ROLES
        assert to_timestamp(message.timestamp) == message.timestamp
        for one in (message.message_id, message.conversation_id, message.channel_id):
            assert one.startswith(f"{name}:")
            assert len(one) <= MAX_ID


@pytest.mark.parametrize("sample", FORMATS)
def test_a_damaged_export_ends_in_no_traceback(sample: str, tmp_path: Path) -> None:
    for seed in range(FEW):
        read_mutation(sample, tmp_path / sample, seed)


@pytest.mark.slow
@pytest.mark.parametrize("sample", FORMATS)
def test_ten_thousand_damaged_exports_end_in_no_traceback(sample: str, tmp_path: Path) -> None:
    for seed in range(FEW, FEW + MANY):
        read_mutation(sample, tmp_path / sample, seed)


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
