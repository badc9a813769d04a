"""The files of an export: a table, a corpus in ConvoKit's format, counts by day."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NamedTuple

from aico_lab.adapters.age import encrypt_stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Content = Literal["none", "redacted", "full"]
"""The part of texts that is shared: nothing, without names and numbers, or all."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US: Final = 86_400_000_000

COLUMNS: Final = {
    "message_id": "the message's id",
    "conversation_id": "the conversation's id",
    "channel_id": "the channel's id",
    "user_id": "the person's id; empty if the source names nobody",
    "role": "the side that wrote: user, assistant (the companion) or system",
    "content": "the text",
    "n_characters": "the length of the text, in characters",
    "n_words": "the number of its words; empty if they cannot be counted",
    "timestamp": "when it was written, UTC",
    "sentiment_score": "sentiment, from -1 (negative) to 1 (positive); empty without a score",
    "response_time": "the response time that the source recorded, in seconds",
    "reply_to": "id of the answered message; empty if the source names none",
    "metadata": "further facts, as a JSON object",
}


class SharedMessage(NamedTuple):
    """A message of the snapshot, as it is or as it is shared."""

    message_id: str
    conversation_id: str
    channel_id: str
    user_id: str | None
    role: str
    content: str
    at_us: int
    sentiment_score: float | None
    response_time: float | None
    reply_to: str | None
    metadata: str | None
    n_words: int | None
    n_characters: int
    person: str | None


class ExportFiles:
    """Writes the files of an export, encrypted if there are recipients."""

    def __init__(self, folder: Path, recipients: list[str]) -> None:
        self._folder, self._recipients = folder, recipients
        self.names: list[str] = []

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a new file for writing."""
        path = self._folder / (f"{name}.age" if self._recipients else name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self.names.append(str(path.relative_to(self._folder)))
        with path.open("xb") as file:
            if not self._recipients:
                yield file
                return
            with _encrypted(file, self._recipients) as plain:
                yield plain

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file."""
        with self.open(name) as file:
            file.write(content)


@contextlib.contextmanager
def _encrypted(file: BinaryIO, recipients: list[str]) -> Iterator[BinaryIO]:
    """Yield a file whose content is encrypted into another one, so that no plain text is stored."""
    receiving, sending = os.pipe()
    failed: list[BaseException] = []

    def encrypt() -> None:
        with os.fdopen(receiving, "rb") as plain:
            try:
                encrypt_stream(plain, file, recipients)
            except BaseException as error:  # noqa: BLE001 - raised where the block writes
                failed.append(error)

    thread = threading.Thread(target=encrypt, daemon=True)
    thread.start()
    try:
        with os.fdopen(sending, "wb") as plain:
            yield plain
    except BrokenPipeError:
        pass
    finally:
        thread.join()
    if failed:
        raise failed[0]


@dataclass(slots=True)
class SharedCounts:
    """Counts of the messages that were written into the files of an export."""

    messages: int = 0
    people: set[str] = field(default_factory=set)
    channels: set[str] = field(default_factory=set)
    first_us: int | None = None
    last_us: int | None = None
    suppressed: int = 0
    days: dict[tuple[int, str], DayCount] = field(default_factory=dict)

    def count(self, message: SharedMessage) -> None:
        """Count a message as it is shared."""
        self.messages += 1
        self.channels.add(message.channel_id)
        self.first_us = min(self.first_us or message.at_us, message.at_us)
        self.last_us = max(self.last_us or message.at_us, message.at_us)
        day = self.days.setdefault((message.at_us // _DAY_US, message.role), DayCount())
        day.messages += 1
        if message.person:
            self.people.add(message.person)
            day.people.add(message.person)


@dataclass(slots=True)
class DayCount:
    """The messages of one side on a day."""

    messages: int = 0
    people: set[str] = field(default_factory=set)


def schema_of(content: Content) -> Any:
    """Return the Arrow schema of the table of messages."""
    import pyarrow as pa

    kinds = {
        "n_characters": pa.int64(),
        "n_words": pa.int64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "sentiment_score": pa.float64(),
        "response_time": pa.float64(),
    }
    without = ("content",) if content == "none" else ("n_characters", "n_words")
    return pa.schema(
        [(name, kinds.get(name, pa.string())) for name in COLUMNS if name not in without]
    )


def value_of(message: SharedMessage, column: str) -> Any:
    """Return the value of a column of that table."""
    return message.at_us if column == "timestamp" else getattr(message, column)


class CorpusWriter:
    """Writes the messages in ConvoKit's format.

    A conversation is known by its first utterance, and an utterance without a named reply replies
    to the one before it.
    """

    def __init__(self, utterances: BinaryIO) -> None:
        self._utterances = utterances
        self._last: dict[str, str] = {}
        self._root: dict[str, str] = {}
        self._conversations: dict[str, dict[str, Any]] = {}
        self._speakers: dict[str, dict[str, Any]] = {}
        self._ids: Counter[str] = Counter()

    def add(self, message: SharedMessage) -> None:
        """Write a message."""
        key, name = message.conversation_id, message.message_id
        self._ids[name] += 1
        if self._ids[name] > 1:  # ids are unique within a conversation, here in the whole corpus
            name = f"{key}:{name}"
        root = self._root.setdefault(key, name)
        self._conversations.setdefault(
            root,
            {"meta": {"conversation_id": key, "channel_id": message.channel_id}, "vectors": []},
        )
        speaker = _speaker(message)
        self._speakers.setdefault(speaker, {"meta": {"role": message.role}, "vectors": []})
        facts = {"role": message.role, "sentiment_score": message.sentiment_score}
        line: dict[str, Any] = {
            "id": name,
            "conversation_id": root,
            "text": message.content,
            "speaker": speaker,
            "meta": facts,
            "reply-to": message.reply_to or self._last.get(key),
            "timestamp": message.at_us / 1e6,
            "vectors": [],
        }
        if root == name:
            line["reply-to"] = None
        self._last[key] = name
        self._utterances.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def finish(self, files: ExportFiles) -> None:
        """Write the other files of the corpus."""
        text, number = "<class 'str'>", "<class 'float'>"
        index = {
            "utterances-index": {"role": [text], "sentiment_score": [number]},
            "speakers-index": {"role": [text]},
            "conversations-index": {"conversation_id": [text], "channel_id": [text]},
            "overall-index": {},
            "version": 1,
            "vectors": [],
        }
        for name, content in (
            ("speakers", self._speakers),
            ("conversations", self._conversations),
            ("corpus", {}),
            ("index", index),
        ):
            files.write(f"corpus/{name}.json", json.dumps(content, ensure_ascii=False).encode())


def _speaker(message: SharedMessage) -> str:
    match message.role:
        case "assistant":
            return "companion"
        case "system":
            return "system"
    return message.user_id or "unknown"


def write_days(files: ExportFiles, done: SharedCounts, min_people: int) -> None:
    """Write the messages by day (UTC) and side, without days of too few people."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shown = {key: day for key, day in done.days.items() if len(day.people) >= min_people}
    done.suppressed = len(done.days) - len(shown)
    rows = [
        {
            "day": (EPOCH + timedelta(days=number)).date(),
            "role": role,
            "messages": day.messages,
            "people": len(day.people),
        }
        for (number, role), day in sorted(shown.items())
    ]
    kinds = [("day", pa.date32()), ("role", pa.string()), ("messages", pa.int64())]
    schema = pa.schema([*kinds, ("people", pa.int64())])
    with files.open("days.parquet") as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
