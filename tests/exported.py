"""Read exports of chats, and show the result column by column."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aico_lab.sources import SOURCES
from aico_lab.sources.exports.engine.conversation import Options

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.messages.records import Batch


@dataclass
class Read:
    """The batches of an export, and their columns."""

    batches: list[Batch]

    @property
    def messages(self) -> list[Any]:
        return [message for batch in self.batches for message in batch.messages]

    @property
    def contents(self) -> list[str]:
        return [message.content for message in self.messages]

    @property
    def roles(self) -> list[str]:
        return [message.role for message in self.messages]

    @property
    def times(self) -> list[str]:
        return [message.timestamp for message in self.messages]

    @property
    def metadata(self) -> list[dict[str, Any]]:
        return [json.loads(message.metadata or "{}") for message in self.messages]

    @property
    def authors(self) -> list[str | None]:
        return [metadata.get("author") for metadata in self.metadata]

    @property
    def rejected(self) -> list[Any]:
        return [rejected for batch in self.batches for rejected in batch.rejected]

    @property
    def skipped(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for batch in self.batches:
            total.update(batch.skipped)
        return total

    @property
    def channels(self) -> dict[str, Any]:
        return {channel.channel_id: channel for batch in self.batches for channel in batch.channels}


def read(name: str, path: Path, **options: Any) -> Read:
    """Read a file, folder or archive in a format."""
    return Read(list(SOURCES[name].read(path, options=Options(**options))))


def telegram_chat(number: int, *ids: int) -> dict[str, Any]:
    """Return a chat of Ada and Otto in Telegram, with messages at the minutes of their ids."""
    return {
        "name": "Otto", "type": "personal_chat", "id": number,
        "messages": [
            {
                "id": at, "type": "message", "from": ("Ada", "Otto")[at % 2],
                "from_id": f"user{at % 2}", "text": f"words {at}",
                "date": f"2024-05-01T10:{at:02d}:00", "date_unixtime": str(1714557600 + 60 * at),
            }
            for at in ids
        ],
    }  # fmt: skip
