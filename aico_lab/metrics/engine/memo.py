"""Answers of metrics that were computed before on the same snapshot, in sealed files.

They are files of the home, one for each answer, and not entries of the cache: RocksDB has one
writer, and reports, notebooks and commands are processes of their own that all ask metrics. A file
lies with its snapshot's generation and goes with it.

An answer is found by the metric, the source of all metrics, the versions of the libraries, the
parameters, filters and time zone, and the checksums, sizes and times of the snapshot's files. What
counts as the future depends on the time; so an answer holds only until the time of the first
message that was in the future, and not if the clock was set back before it was computed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import secrets
import time
import zoneinfo
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from aico_lab import period
from aico_lab.adapters.duckdb import translated
from aico_lab.config import keeps_answers
from aico_lab.constants import FIRST_PLAUSIBLE_MS
from aico_lab.errors import AicoLabError, InvalidValue
from aico_lab.home.files import private_files, remove_whole
from aico_lab.metrics.engine.catalogue import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.etl.reader import Reader
    from aico_lab.home.folder import Home
    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.filters import Filters
    from aico_lab.metrics.engine.metric import Metric

LARGEST: Final = 16 << 20  # bytes
MOST: Final = 5_000
"""The most answers that are kept of a snapshot; beyond it the oldest tenth of them goes."""

MOST_BYTES: Final = 256 << 20
"""The most bytes of them, in the same way."""

_NONCE: Final = 12
_LIBRARIES: Final = ("aico-lab", "duckdb", "ibis-framework", "numpy", "polars", "scipy", "ruptures")
_SOURCES: Final = ("metrics", "mart", "messages", "period.py", "zones.py", "constants.py")


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer that is kept.

    Attributes:
        metric: The metric.
        parameters: The values of its parameters.
        filters: The filters that were given.
        generation: The generation of the snapshot.
        computed_at: When it was computed.
        seconds: The seconds that it took.
        bytes: The bytes of its file.
    """

    metric: str
    parameters: dict[str, Any]
    filters: dict[str, Any]
    generation: int
    computed_at: datetime
    seconds: float
    bytes: int


class Memo:
    """Keeps and finds the answers of a home's metrics.

    A damaged, foreign or missing file is no answer; a file that cannot be written is left out.

    Attributes:
        on: Whether answers are kept and found; by default unless the environment says no.
    """

    def __init__(self, home: Home, key: bytes | None) -> None:
        """Use a folder of a home.

        Args:
            home: The lab's folder.
            key: The key of the files: 32 bytes, or None in an unencrypted home.
        """
        self.on = keeps_answers()
        self._home = home
        self._key = key

    def place(
        self, metric: Metric, reader: Reader, filters: Filters, parameters: dict[str, Any]
    ) -> Path | None:
        """Return the file of the answer to a question; None if it must not be kept."""
        if not self.on or not CATALOGUE.ships(metric.name):
            return None
        try:
            snapshot = reader.identity()
        except AicoLabError:  # the question itself will say why
            return None
        if snapshot is None:
            return None
        folds = [getattr(one, "fold", 0) for one in (filters.since, filters.until)]
        question = [
            metric.name, sorted(parameters.items()), _plain(filters), folds, snapshot,
            _definition(), _rules_of(filters.timezone),
        ]  # fmt: skip
        try:
            asked = orjson.dumps(question)
        except TypeError:  # not text, as no kept answer is about
            return None
        name = hashlib.blake2b(asked, key=self._key or b"", digest_size=24).hexdigest()
        return self._home.answers / f"{snapshot[0]:08d}" / f"{name}.answer"

    def find(
        self, path: Path, metric: Metric, filters: Filters, parameters: dict[str, Any]
    ) -> Answer | None:
        """Return the answer to a question if it is kept in its place, else None."""
        read = self._read(path)
        if read is None:
            return None
        kept, rows = read
        now_ms = time.time_ns() // 1_000_000
        if (
            not kept["computed_ms"]
            <= now_ms
            < (now_ms + 1 if kept["until_ms"] is None else kept["until_ms"])
        ):
            return None
        import polars as pl

        from aico_lab.metrics.engine.answer import Answer, Called

        users, channels = kept.pop("users"), kept.pop("channels")
        called = {
            column: [Called(*one) for one in names] for column, names in kept["called"].items()
        }
        return Answer(
            metric=metric,
            parameters=parameters,
            filters=replace(filters, user=users or None, channel=channels or None),
            generation=kept["generation"],
            left_out=kept["left_out"],
            _rows=pl.read_ipc(io.BytesIO(rows)),
            begins=kept["begins"],
            far=kept["far"],
            estimated=kept["estimated"],
            nothing=kept["nothing"],
            values_left_out=kept["values_left_out"],
            called=called,
            names=kept["names"],
            simulated=kept["simulated"],
        )

    def keep(
        self, path: Path, answer: Answer, reader: Reader, filters: Filters, *, started_ms: int
    ) -> None:
        """Keep an answer, unless the snapshot's files were replaced meanwhile.

        Args:
            path: Its place, from before it was computed.
            answer: The answer.
            reader: The reader of the snapshot that it was computed from.
            filters: The filters as they were given.
            started_ms: When its computation began, in UTC milliseconds.
        """
        if path != self.place(answer.metric, reader, filters, answer.parameters):
            return
        if _depends_on_now(filters, started_ms):
            return
        rows = io.BytesIO()
        answer._rows.write_ipc(rows)  # noqa: SLF001 - with the hidden columns
        kept = {
            "metric": answer.metric.name,
            "parameters": answer.parameters,
            "filters": _plain(filters),
            "computed_ms": started_ms,
            "until_ms": _until(reader, started_ms),
            "seconds": (time.time_ns() // 1_000_000 - started_ms) / 1_000,
            "users": answer.filters.users,
            "channels": answer.filters.channels,
            "called": {
                column: [list(one) for one in names] for column, names in answer.called.items()
            },
            **{name: getattr(answer, name) for name in _FIELDS},
        }
        self._write(path, orjson.dumps(kept), rows.getvalue())

    def remembered(self) -> list[KeptAnswer]:
        """Return what is kept of all snapshots, the newest first."""
        found = []
        for path in self._home.answers.glob("*/*.answer"):
            try:
                size = path.stat().st_size
            except OSError:  # a sync may remove it meanwhile
                continue
            read = self._read(path)
            if read is not None:
                kept, _ = read
                computed = datetime.fromtimestamp(kept["computed_ms"] / 1_000, UTC)
                found.append(
                    KeptAnswer(
                        kept["metric"], kept["parameters"], kept["filters"], kept["generation"],
                        computed, kept["seconds"], size,
                    )
                )  # fmt: skip
        return sorted(found, key=lambda one: one.computed_at, reverse=True)

    def damaged(self) -> list[Path]:
        """Return the files of answers that cannot be read."""
        return [path for path in self._home.answers.glob("*/*.answer") if self._read(path) is None]

    def forget(self) -> None:
        """Remove all answers."""
        remove_whole(self._home.answers)

    def __repr__(self) -> str:
        return (
            f"<Answers kept: {len(self.remembered()):,}. .on = False keeps and finds none, "
            ".remembered() lists them, .forget() removes them>"
        )

    def _read(self, path: Path) -> tuple[dict[str, Any], bytes] | None:
        """Return the description and the rows of an answer; None if the file is not sound."""
        try:
            content = self._opened(path.name, path.read_bytes())
            length = int.from_bytes(content[:4], "big")
            return orjson.loads(content[4 : 4 + length]), content[4 + length :]
        except (OSError, ValueError):
            return None

    def _write(self, path: Path, kept: bytes, rows: bytes) -> None:
        content = self._sealed(path.name, len(kept).to_bytes(4, "big") + kept + rows)
        if len(content) > LARGEST:
            return
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        # Without a wait for the disk: after a power cut a file that is not sound is no answer.
        with contextlib.suppress(OSError), private_files():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_room(path.parent, len(content))
            try:
                beside.write_bytes(content)
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)

    def _sealed(self, name: str, content: bytes) -> bytes:
        if self._key is None:
            return _digest(name, content) + content
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE)
        return nonce + AESGCM(self._key).encrypt(nonce, content, name.encode())

    def _opened(self, name: str, content: bytes) -> bytes:
        """Return the content of a file.

        Raises:
            ValueError: The file is damaged, or has another key.
        """
        if self._key is None:
            length = len(_digest("", b""))
            if _digest(name, content[length:]) != content[:length]:
                raise ValueError(name)
            return content[length:]
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._key).decrypt(content[:_NONCE], content[_NONCE:], name.encode())
        except InvalidTag:
            raise ValueError(name) from None


_FIELDS: Final = (
    "generation", "left_out", "begins", "far", "estimated", "nothing", "values_left_out", "names",
    "simulated",
)  # fmt: skip


def _make_room(folder: Path, size: int) -> None:
    """Remove the oldest answers of a full folder, down to nine tenths of its limits.

    Args:
        folder: The answers of a snapshot.
        size: The bytes of an answer that is added.
    """
    found = []
    for one in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process may remove it meanwhile
            found.append((one, one.stat(follow_symlinks=False)))
    number, used = len(found) + 1, sum(state.st_size for _, state in found) + size
    if number <= MOST and used <= MOST_BYTES:
        return
    for one, state in sorted(found, key=lambda item: item[1].st_mtime_ns):
        if number <= 0.9 * MOST and used <= 0.9 * MOST_BYTES:
            return
        remove_whole(Path(one.path))
        number, used = number - 1, used - state.st_size


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.blake2b(name.encode() + content, digest_size=16).digest()


def _plain(filters: Filters) -> dict[str, Any]:
    """Return filters as JSON; a day and the text of a day are the same."""
    given = {name: getattr(filters, name) for name in filters.__slots__}
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in given.items()
    }


def _depends_on_now(filters: Filters, now_ms: int) -> bool:
    """Return whether the span of `since` reaches back before all plausible times.

    How far it reaches then decides which messages count as too old to be true.
    """
    if filters.since is None or period.counts_back(filters.since) is None:
        return False
    with contextlib.suppress(InvalidValue):
        return period.start_of(filters.since, filters.timezone, now_ms) < FIRST_PLAUSIBLE_MS
    return True


def _until(reader: Reader, now_ms: int) -> int | None:
    """Return the time, in UTC milliseconds, until which the future has the messages it has now.

    None if it has none. Some metrics count the next second as present, so two are left out.
    """
    with translated("The snapshot"):
        found = (
            reader.connection()
            # A literal: to bind a value, DuckDB imports pandas.
            .execute(f"SELECT min(ts_ms) FROM mart.messages WHERE ts_ms > {now_ms:d}")
            .fetchone()
        )
    return None if not found or found[0] is None else found[0] - 2_000


@functools.cache
def _definition() -> str:
    """Return a digest of the source of all metrics, and of the versions of the libraries."""
    digest = hashlib.blake2b(digest_size=16)
    package = Path(__file__).parents[2]
    for source in _SOURCES:
        for file in _files(package / source):
            digest.update(f"{file.relative_to(package)}\0".encode())
            digest.update(file.read_bytes())
    for library in _LIBRARIES:
        digest.update(f"{library} {version(library)}\0".encode())
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from sorted(file for file in path.rglob("*") if file.suffix in {".py", ".sql"})


@functools.lru_cache(maxsize=32)
def _rules_of(timezone: str) -> str:
    """Return a digest of the rules of a time zone, which change with the system."""
    for folder in zoneinfo.TZPATH:
        with contextlib.suppress(OSError):
            return hashlib.blake2b(Path(folder, timezone).read_bytes(), digest_size=8).hexdigest()
    with contextlib.suppress(Exception):
        return version("tzdata")
    return ""
