"""Read the write-ahead log of a libSQL file, and keep the position of its last commit.

SQLite takes a damaged or lost log for one that a crash cut off, and silently skips the transactions
from there on. A *note* beside the file therefore holds the number of committed frames, and the
checksum of the last one, which covers all before it. A code over the note authenticates both.

Source of the format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import time
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

_HEADER: Final = 32
_FRAME_HEADER: Final = 24
_LITTLE_ENDIAN: Final = 0x377F0682
_PIECE: Final = 1_024  # frames checked at a time: 4 MB
_NOTE: Final = struct.Struct(">2Q8s3Q")
_TAG: Final = 16

Salts = tuple[int, int]
"""Two numbers that are new whenever the log begins anew."""


class Frames(NamedTuple):
    """The committed frames of the log.

    Attributes:
        salts: The salts of the log; (0, 0) if there is none.
        pages: The page of each frame, in order.
        ends: The number of frames up to each commit, in order, with the checksum of the last one.
    """

    salts: Salts
    pages: list[int]
    ends: dict[int, bytes]

    def ends_with(self, frames: int, checksum: bytes) -> bool:
        """Return whether a transaction ends after so many frames, with this checksum."""
        return self.ends.get(frames) == checksum


class Note(NamedTuple):
    """The position of the last commit that was noted.

    Attributes:
        salts: The salts of the log.
        frames: The number of committed frames.
        checksum: The checksum of the last of them.
        at: The time, in milliseconds since 1970.
        seq: The sequence number of the last change in the feed.
        sealing: The number of the seal then; the clock may have been set back since.
    """

    salts: Salts
    frames: int
    checksum: bytes
    at: int
    seq: int
    sealing: int


class WriteAheadLog:
    """The log of one file; opening and closing it touches no lock of SQLite."""

    def __init__(self, database: Path, code_key: bytes) -> None:
        """Name the log; nothing is opened.

        Args:
            database: The file.
            code_key: The key of the code of the note.
        """
        self._path = f"{database}-wal"
        self._note = database.with_name(f"{database.name}.tail")
        self._code_key = code_key
        self._opened: tuple[int, int] | None = None  # descriptors of the log and of the note
        self._known = Frames((0, 0), [], {})  # what was read last

    def size(self) -> int:
        """Return the size of the log, in bytes."""
        try:
            return os.stat(self._path).st_size  # noqa: PTH116 - called with every commit
        except OSError:
            return 0

    def read(self) -> Frames:
        """Return which pages the committed frames hold.

        Frames of a writer that was killed may follow the last commit; the next writer replaces only
        some of them. The checksum of the first frame that is left depends on one that is gone.
        """
        try:
            with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123 - a text already
                return self._read(file.fileno())
        except (OSError, struct.error):
            return Frames((0, 0), [], {})

    def _read(self, log: int, *, committed: bool = False) -> Frames:
        """Return the committed frames, of which those that were found before are not read again.

        Args:
            log: The descriptor of the log.
            committed: The caller has committed since, so that what follows is a commit.
        """
        header = os.pread(log, _HEADER, 0)
        magic, _, page_size, _, *salts = struct.unpack(">6I", header[:24])
        order = "<" if magic == _LITTLE_ENDIAN else ">"
        step = _FRAME_HEADER + page_size
        _, pages, ends = known = self._known
        last = os.pread(log, _FRAME_HEADER, _HEADER + (len(pages) - 1) * step) if pages else b""
        if known.salts != (salts[0], salts[1]) or not known.ends_with(len(pages), last[16:24]):
            pages, ends = [], {}
        pages, ends = [*pages], {**ends}

        def is_whole(number: int, frame: bytes, previous: bytes) -> bool:
            content = os.pread(log, page_size, _HEADER + number * step + _FRAME_HEADER)
            state = _checksum(frame[:8] + content, struct.unpack(">2I", previous), order)
            return struct.pack(">2I", *state) == frame[16:24]

        # Only the ends of a transaction can be those of a writer that was killed: its first frame
        # if it follows another commit, and its last one if nothing follows.
        previous, number, to_check = ends.get(len(pages), header[24:]), len(pages), None
        read: list[int] = []
        while len(frame := os.pread(log, _FRAME_HEADER, _HEADER + number * step)) == _FRAME_HEADER:
            page, size_after, *of_log = struct.unpack(">4I", frame[:16])
            if of_log != salts or not (read or committed or is_whole(number, frame, previous)):
                break
            read.append(page)
            if size_after:  # the last frame of a transaction
                to_check = None if committed else (number, frame, previous)
                pages += read
                ends[len(pages)] = frame[16:24]
                read, committed = [], False
            previous, number = frame[16:24], number + 1
        if to_check is not None and not is_whole(*to_check):
            del ends[len(pages)]
            del pages[max(ends, default=0) :]
        self._known = Frames((salts[0], salts[1]), pages, ends)
        return self._known

    def note(self, seq: int, sealing: Callable[[], int]) -> None:
        """Note the position of the last commit.

        Args:
            seq: The sequence number of the last change in the feed.
            sealing: Returns the number of the seal.
        """
        try:
            if self._opened is None:
                log = os.open(self._path, os.O_RDONLY)
                self._opened = log, os.open(self._note, os.O_WRONLY | os.O_CREAT, 0o600)
            log, note = self._opened
            # First the seal: what is committed later is not sealed by that, or by an earlier one.
            number, found, noted = sealing(), self._read(log, committed=True), None
            # It may begin anew, or others commit, meanwhile; their note may be overwritten here.
            while noted != (noted := (number, found.salts, len(found.pages))):
                body = _NOTE.pack(
                    found.salts[0] << 32 | found.salts[1], len(found.pages),
                    found.ends.get(len(found.pages), b""), time.time_ns() // 1_000_000, seq,
                    number,
                )  # fmt: skip
                os.pwrite(note, body + self._tag(body), 0)
                number, found = sealing(), self._read(log)
        except (OSError, struct.error):
            return  # on a full disk, or in a damaged file: only a loss of this commit is unnoticed

    def noted(self) -> Note | None:
        """Return the position that was noted; None if there is none, or it was damaged."""
        try:
            content = self._note.read_bytes()
        except OSError:
            return None
        body, tag = content[: _NOTE.size], content[_NOTE.size :]
        if not hmac.compare_digest(self._tag(body), tag):
            return None
        salts, *others = _NOTE.unpack(body)
        return Note((salts >> 32, salts & 0xFFFFFFFF), *others)

    def forget(self) -> None:
        """Empty the file with the noted position; the next commit writes it again."""
        with suppress(OSError):
            os.truncate(self._note, 0)

    def holds(self, note: Note) -> bool:
        """Return whether the log has all the frames that were noted, undamaged."""
        try:
            with open(self._path, "rb") as file:  # noqa: PTH123 - a text already
                header = file.read(_HEADER)
                if len(header) < _HEADER or struct.unpack(">2I", header[16:24]) != note.salts:
                    return False
                magic, _, page_size = struct.unpack(">3I", header[:12])
                order = "<" if magic == _LITTLE_ENDIAN else ">"
                state = _checksum(header[:24], (0, 0), order)
                if struct.pack(">2I", *state) != header[24:]:
                    return False
                left = note.frames
                while left:
                    size = min(left, _PIECE) * (_FRAME_HEADER + page_size)
                    piece = file.read(size)
                    last = _last_checksum(piece, page_size, state, order, header[16:24])
                    if len(piece) < size or last is None:
                        return False
                    state = last
                    left -= min(left, _PIECE)
        except (OSError, ValueError):
            return False
        return not note.frames or struct.pack(">2I", *state) == note.checksum

    def close(self) -> None:
        """Close what `note` opened."""
        opened, self._opened = self._opened, None
        for descriptor in opened or ():
            os.close(descriptor)

    def _tag(self, body: bytes) -> bytes:
        code = hashlib.blake2b(body, digest_size=_TAG, key=self._code_key, person=b"tail")
        return code.digest()


def _last_checksum(
    piece: bytes, page_size: int, state: Salts, order: str, salts: bytes
) -> Salts | None:
    """Return the checksum of the last frame; None if a frame does not have its own.

    Args:
        piece: Whole frames.
        page_size: The size of a page, in bytes.
        state: The checksum of the frame before.
        order: The order of bytes in the words that are summed, '<' or '>'.
        salts: The salts, as in the log.
    """
    import numpy as np

    frames = np.frombuffer(piece, np.uint8).reshape(-1, _FRAME_HEADER + page_size)
    if (frames[:, 8:16] != np.frombuffer(salts, np.uint8)).any():
        return None
    summed = np.concatenate([frames[:, :8], frames[:, _FRAME_HEADER:]], axis=1)
    words = summed.view(f"{order}u4").astype(np.uint32)
    steps = words.shape[1] // 2
    first, second, (carry_first, carry_second) = _weights(steps)
    sums = [(words * weights).sum(axis=1, dtype=np.uint32) for weights in (first, second)]
    stored = frames[:, 16:24].copy().view(">u4").astype(np.uint32)
    s0, s1 = state
    for add0, add1, (own0, own1) in zip(*(one.tolist() for one in (*sums, stored)), strict=True):
        s0, s1 = (
            (carry_first[0] * s0 + carry_first[1] * s1 + add0) & 0xFFFFFFFF,
            (carry_second[0] * s0 + carry_second[1] * s1 + add1) & 0xFFFFFFFF,
        )
        if (s0, s1) != (own0, own1):
            return None
    return s0, s1


@lru_cache(maxsize=2)
def _weights(
    steps: int,
) -> tuple[NDArray, NDArray, tuple[Salts, Salts]]:  # type: ignore[type-arg]
    """Return how much each word, and the checksum before, count in the two sums of a frame.

    A step of SQLite's checksum takes two words: `s0 += x0 + s1; s1 += x1 + s0`. It is linear, so
    that the words of a frame can be multiplied by constants, all at once.
    """
    import numpy as np

    first = np.empty(2 * steps, np.uint32)
    second = np.empty(2 * steps, np.uint32)
    a, b, c, d = 1, 0, 0, 1  # what s0 and s1 after a step count in s0 and s1 at the end
    for step in reversed(range(steps)):
        # x0 is added to s0, and with it to s1; x1 is added to s1 alone.
        first[2 * step], first[2 * step + 1] = (a + b) & 0xFFFFFFFF, b
        second[2 * step], second[2 * step + 1] = (c + d) & 0xFFFFFFFF, d
        a, b = (a + b) & 0xFFFFFFFF, (a + 2 * b) & 0xFFFFFFFF
        c, d = (c + d) & 0xFFFFFFFF, (c + 2 * d) & 0xFFFFFFFF
    return first, second, ((a, b), (c, d))


def _checksum(content: bytes, state: Salts, order: str) -> Salts:
    s0, s1 = state
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    for x0, x1 in zip(words[::2], words[1::2], strict=True):
        s0 = (s0 + x0 + s1) & 0xFFFFFFFF
        s1 = (s1 + x1 + s0) & 0xFFFFFFFF
    return s0, s1
