"""Read a text file of any size line by line, and gather its messages into batches."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, Self

from aico_lab.errors import SourceMissing, SourceUnreadable
from aico_lab.messages.records import (
    BATCH_MESSAGES,
    Batch,
    ChannelRecord,
    MessageRecord,
    Rejected,
    UserRecord,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from aico_lab.messages.context import Context

MAX_LINE: Final = 16 * 1024 * 1024
"""The longest line in bytes; longer ones are skipped in pieces."""

BATCH_BYTES: Final = 16 * 1024 * 1024
"""The size in bytes at which a batch ends even with few messages, to bound the memory."""

_HEAD: Final = 4096
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_GZIP: Final = b"\x1f\x8b"
# Control characters that text does not contain; a single one only makes its line invalid.
_CONTROLS: Final = bytes([*range(9), *range(14, 27), *range(28, 32)])
_BINARY_SHARE: Final = 0.05


@contextmanager
def open_text(path: Path) -> Iterator[BinaryIO]:
    """Open a text file.

    Raises:
        SourceMissing: The file does not exist.
        SourceUnreadable: The path is a folder, or the file cannot be read, is compressed or binary.
    """
    try:
        with path.open("rb") as stream:
            _refuse_binary(path, stream.peek(_HEAD)[:_HEAD])
            yield stream
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceMissing(f"The file {path} does not exist; check its name.") from error
    except OSError as error:
        if path.is_dir():
            raise SourceUnreadable(f"{path} is a folder; name a file in it.") from error
        if isinstance(error, PermissionError):
            raise SourceUnreadable(
                f"You are not permitted to read {path}; change its permissions or copy it."
            ) from error
        raise SourceUnreadable(
            f"{path} could not be read ({error.strerror}); check the disk, then try again."
        ) from error


def size(path: Path, limit: int | None) -> int | None:
    """Return the number of bytes to read, or None if a limit or a pipe makes it unknown."""
    try:
        return path.stat().st_size if limit is None and path.is_file() else None
    except OSError:
        return None  # reading the file raises a better error


class Lines:
    """Iterates over the lines of a file, as bytes with line ends, or None for lines too long.

    Attributes:
        number: The number of the last line read, from 1.
        position: The number of bytes consumed.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.number = 0
        self.position = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes | None:
        line = self._stream.readline(MAX_LINE)
        if not line:
            raise StopIteration
        self.number += 1
        self.position += len(line)
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            self._pass_over()
            return None
        return line.removeprefix(_BYTE_ORDER_MARK) if self.number == 1 else line

    def _pass_over(self) -> None:
        while piece := self._stream.readline(MAX_LINE):
            self.position += len(piece)
            if piece.endswith(b"\n"):
                break


def names_users(stream: BinaryIO, find: Callable[[Lines], bool]) -> bool:
    """Return whether any message of a file names a user, and rewind the file.

    Pipes cannot be read twice, so for them the result is always true.

    Args:
        stream: The file, at its beginning.
        find: Returns whether any of the lines names a user.
    """
    if not stream.seekable():
        return True
    found = find(Lines(stream))
    stream.seek(0)
    return found


class Position(Protocol):
    """The progress of reading a source."""

    @property
    def number(self) -> int:
        """The number of lines or objects read."""

    @property
    def position(self) -> int:
        """The amount consumed, in the unit of the source's total."""


def batches(
    outcomes: Iterable[tuple[int, MessageRecord | Rejected]],
    lines: Position,
    context: Context,
    limit: int | None,
) -> Iterator[Batch]:
    """Gather messages and rejected lines into batches.

    Args:
        outcomes: Messages and rejected lines in order, each with the number of its first line,
            read lazily from `lines`.
        lines: The progress of reading.
        context: The context of the file.
        limit: The most messages to yield.
    """
    messages: list[MessageRecord] = []
    starts: list[int] = []
    rejected: list[Rejected] = []
    number = position = 0

    def batch() -> Batch:
        channels, users = _named_by(messages)
        authors = 0 if context.names_users else sum(one.user_id is not None for one in messages)
        return Batch(
            messages=messages,
            channels=channels,
            users=users,
            feedback=[],
            rejected=rejected,
            lines_read=lines.number - number,
            progress=lines.position - position,
            lines=starts,
            assumed_me=authors,
        )

    for start, outcome in outcomes:
        if isinstance(outcome, Rejected):
            rejected.append(outcome)
        else:
            messages.append(outcome)
            starts.append(start)
            if limit is not None:
                limit -= 1
        if (
            len(messages) + len(rejected) == BATCH_MESSAGES
            or lines.position - position >= BATCH_BYTES
            or limit == 0
        ):
            yield batch()
            messages, starts, rejected = [], [], []
            number, position = lines.number, lines.position
        if limit == 0:
            return
    if lines.number > number:
        yield batch()


def is_binary(head: bytes) -> bool:
    """Return whether too many of the bytes are control characters for a text."""
    return len(head) - len(head.translate(None, _CONTROLS)) > _BINARY_SHARE * len(head)


def _refuse_binary(path: Path, head: bytes) -> None:
    if head.startswith(_GZIP):
        raise SourceUnreadable(f"{path} is compressed; unpack it (gunzip) and import the result.")
    if b"\0" in head and is_binary(head):
        raise SourceUnreadable(
            f"{path} is not text in UTF-8; export the messages as JSONL or CSV in UTF-8."
        )


def _named_by(messages: list[MessageRecord]) -> tuple[list[ChannelRecord], list[UserRecord]]:
    """Return the channels and users of messages, created at the time of their first message."""
    channels: dict[str, str] = {}
    users: dict[str, str] = {}
    for message in messages:
        timestamp = message.timestamp
        if timestamp < channels.get(message.channel_id, "~"):
            channels[message.channel_id] = timestamp
        user_id = message.user_id
        if user_id is not None and timestamp < users.get(user_id, "~"):
            users[user_id] = timestamp
    return (
        [ChannelRecord(key, None, "direct", since, None) for key, since in channels.items()],
        [UserRecord(key, None, since, None) for key, since in users.items()],
    )
