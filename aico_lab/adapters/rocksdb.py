"""RocksDB as an encrypted key-value store.

RocksDB has no hook for encryption; its tables and log contain plain keys and values. Here a stored
key is a keyed hash of the true key, and a stored value is the true key and value, encrypted with
AES-256-GCM and bound to the stored key. The files still reveal the number of entries, their sizes
after compression, which of them share a namespace, in which order they were written and removed,
and how often the same key was written. They reveal neither keys and values, nor which namespace it
is, nor until when an entry lives.

The options suit small values that are read one by one: a Bloom filter with 10 bits a key spares
99 % of the reads of absent keys, blocks of 4 KB are kept in a cache of 32 MB, and RocksDB
compresses nothing, since encrypted data do not get smaller.

The library is optional: `pip install 'aico-lab[cache]'`.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aico_lab.adapters.base import DatabaseAdapter, by_words
from aico_lab.adapters.rocksdb_codec import (
    KEY_BYTES,
    MARK,
    PlainCodec,
    SealingCodec,
    checked,
    namespace_of,
)
from aico_lab.errors import (
    AicoLabError,
    ConnectionIsClosed,
    CorruptDatabase,
    DatabaseLocked,
    DiskFull,
    LibraryMissing,
    NotADatabase,
    NotPermitted,
    StorageError,
)
from aico_lab.home.files import make_private, os_errors

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from aico_lab.adapters.base import Meanings

NOT_INSTALLED = "RocksDB is not installed: run `pip install 'aico-lab[cache]'`."

_REMEDY = "run `aico-lab sync --full`"
_FULL = "lies on a full disk: free some space, and open it again"  # RocksDB writes nothing else
_NO_STORE = f"is not a RocksDB folder: {_REMEDY}"

# The files that a reader needs; it has its own lock, log and configuration.
_NAMES = ("CURRENT", "IDENTITY", "MANIFEST-", "OPTIONS-")
_SUFFIXES = (".sst", ".log")

_ATTEMPTS = 5
_PAUSE = 0.05  # seconds

BLOCK_CACHE = 32 << 20
WRITE_BUFFER = 32 << 20
BLOOM_BITS = 10

GAUGES = (
    "block-cache-usage",
    "block-cache-capacity",
    "cur-size-all-mem-tables",
    "estimate-live-data-size",
    "estimate-pending-compaction-bytes",
    "estimate-table-readers-mem",
    "num-running-compactions",
)
"""The properties of RocksDB that `RocksDBConnection.gauges` returns."""

CALLS = ".get(KEY), .put(KEY, VALUE), .delete(KEY), .items(NAMESPACE); all of them bytes"
"""The calls of a key-value store, for its repr."""

# The driver's errors differ only by their message; RocksDB's wording is stable.
_MESSAGES: Meanings = (
    ("lock hold by current process", DatabaseLocked, "is open already: close it first"),
    ("while lock file", DatabaseLocked, "is in use by another program: close that one"),
    ("no space left", DiskFull, _FULL),
    ("quota exceeded", DiskFull, _FULL),
    ("file too large", DiskFull, _FULL),
    ("read only mode", NotPermitted, "was opened read-only: open it for writing to change it"),
    ("permission denied", NotPermitted, "may not be opened: check its permissions"),
    ("read-only file system", NotPermitted, "may not be written: check its permissions"),
    ("corruption", CorruptDatabase, f"is damaged: {_REMEDY}, which rebuilds it"),
    ("file exists", NotADatabase, _NO_STORE),
    ("does not exist", CorruptDatabase, f"lacks a part: {_REMEDY}, which rebuilds it"),
    # Of a file that the disk cannot read, or that something else replaced.
    ("io error", CorruptDatabase, f"cannot be read: {_REMEDY}, which rebuilds it"),
)


def translate(error: BaseException, where: str) -> AicoLabError:
    """Return this package's error for an error of rocksdict, by its message.

    Args:
        error: The driver's exception, mostly a bare `Exception`.
        where: The name of the store for people.
    """
    if type(error).__name__ == "DbClosedError":
        return ConnectionIsClosed(f"The connection to {where} was closed before.")
    text = str(error)
    return by_words(text, where, _MESSAGES) or StorageError(f"{where} refused: {text}.")


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Convert rocksdict's errors inside the block to this package's errors."""
    try:
        yield
    except (AicoLabError, GeneratorExit):
        raise
    except Exception as error:
        raise translate(error, where) from error


class RocksDBConnection:
    """An open store; it may be used by several threads at the same time.

    The namespace of a key is the part before its first colon: `session` in
    `session:active_context`.
    """

    def __init__(
        self, path: Path, driver: Any, options: Any, key: bytes | None, scratch: Path | None
    ) -> None:
        """Use a store that `RocksDBAdapter.connect` opened, and close it with the connection.

        Args:
            path: The store's folder.
            driver: The opened store.
            options: The options that it was opened with, which count what it does.
            key: 32 bytes, or None for a store that is not encrypted.
            scratch: A reader's folder of links, removed on close; None for a writer.
        """
        self.name = path.name
        self._path = path
        self._driver = driver
        self._options = options
        self._codec = PlainCodec() if key is None else SealingCodec(key)
        self._scratch = scratch
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if it is absent."""
        stored_key = self._codec.stored_key(checked(key))
        try:  # `translated` would double the time
            stored = self._driver.get(stored_key)
        except Exception as error:
            raise translate(error, self.name) from error
        return None if stored is None else self._codec.open(stored_key, stored)[1]

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value.

        It survives a crash of the process, not necessarily a power cut.
        """
        stored_key = self._codec.stored_key(checked(key))
        stored = self._codec.seal(stored_key, key, checked(value))
        try:  # as in `get`
            self._driver.put(stored_key, stored)
        except Exception as error:
            raise translate(error, self.name) from error

    def delete(self, key: bytes) -> None:
        """Remove a key; an absent key is ignored."""
        with translated(self.name):
            self._driver.delete(self._codec.stored_key(checked(key)))

    def items(self, namespace: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """Return the key-value pairs of a namespace, or all of them, sorted by key."""
        with contextlib.closing(self.scan(namespace)) as found:
            return sorted(found)

    def scan(self, namespace: bytes | None = None) -> Generator[tuple[bytes, bytes]]:
        """Yield the key-value pairs of a namespace, or all of them, in the order of their hashes.

        Close the generator: while it is open, so are the files, even after `close`.

        Raises:
            CorruptDatabase: A block is damaged; the driver's own `items` would end there silently.
        """
        prefix = b"" if namespace is None else self._codec.prefix(checked(namespace))
        decoded = self._codec.open
        iterator = None
        try:
            with translated(self.name):
                iterator = self._driver.iter()
                iterator.seek(prefix)
                while iterator.valid() and (stored_key := iterator.key()).startswith(prefix):
                    if stored_key != MARK:
                        item = decoded(stored_key, iterator.value())
                        if namespace is None or namespace_of(item[0]) == namespace:
                            yield item
                    iterator.next()
                iterator.status()
        finally:
            iterator = None  # a traceback would keep it, and thereby the files, open

    def clear(self, namespace: bytes) -> None:
        """Remove all keys of a namespace at once; see `compact` for the space."""
        prefix = self._codec.prefix(checked(namespace))
        if not namespace or isinstance(self._codec, PlainCodec):  # others begin with its prefix
            self.write({}, [key for key, _ in self.items(namespace)])
            return
        with translated(self.name):
            self._driver.delete_range(prefix, prefix + b"\xff" * (KEY_BYTES + 1))

    def compact(self) -> None:
        """Free the space of removed and replaced values."""
        with translated(self.name):
            self._driver.flush()
            self._driver.compact_range(None, None)

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Remove keys, then store values, atomically; see `put`."""
        import rocksdict

        batch = rocksdict.WriteBatch(raw_mode=True)
        for key in deletes:
            batch.delete(self._codec.stored_key(checked(key)))
        for key, value in puts.items():
            stored_key = self._codec.stored_key(checked(key))
            batch.put(stored_key, self._codec.seal(stored_key, key, checked(value)))
        with translated(self.name):
            self._driver.write(batch)

    def gauges(self) -> dict[str, int]:
        """Return the present state of RocksDB in this process, in bytes or numbers."""
        with translated(self.name):
            found = {name: self._driver.property_int_value(f"rocksdb.{name}") for name in GAUGES}
        return {name: value for name, value in found.items() if value is not None}

    def live_files(self) -> list[dict[str, Any]]:
        """Return the tables: `name`, `size` (bytes), `level`, `num_entries`, `num_deletions`."""
        with translated(self.name):
            files: list[dict[str, Any]] = self._driver.live_files()
        return files

    def ticks(self) -> dict[str, int]:
        """Return RocksDB's counters since the store was opened, such as `block.cache.hit`."""
        lines = (self._options.get_statistics() or "").splitlines()
        return {
            name.removeprefix("rocksdb."): int(count)
            for name, found, count in (line.partition(" COUNT : ") for line in lines)
            if found and count.isdigit()
        }

    def check(self) -> None:
        """Validate the store's mark; write it to an empty store.

        Raises:
            NotADatabase: The store is not one of this program's, or has another key.
            CorruptDatabase: The store was written by an earlier version of this program.
        """
        with translated(self.name):
            mark = self._driver.get(MARK)
            empty = mark is None and self._is_empty()
            if empty and self._scratch is None:
                self._driver.put(MARK, self._codec.mark)
        if not empty and (mark is None or not self._codec.recognises(mark)):
            raise NotADatabase(
                f"{self.name} is not a store of this program, or has another key: {_REMEDY}."
            )

    def _is_empty(self) -> bool:
        iterator = self._driver.iter()
        try:
            iterator.seek_to_first()
            iterator.status()
            return not iterator.valid()
        finally:
            iterator = None  # as in `scan`

    def __repr__(self) -> str:
        return f"<RocksDB store {self.name}: {CALLS}>"

    def close(self) -> None:
        """Release the files; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        # After a write that failed, RocksDB says so again; what was put before is in its log.
        with contextlib.suppress(StorageError), translated(self.name):
            self._driver.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        else:
            make_private(self._path)  # RocksDB's threads create files at any time

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class RocksDBAdapter(DatabaseAdapter[RocksDBConnection]):
    """Opens connections to one RocksDB folder."""

    def __init__(
        self, path: Path | str, encryption_key: bytes | None = None, *, read_only: bool = False
    ) -> None:
        """Make an adapter; `connect` opens the store.

        Args:
            path: The folder; a writer creates it if it does not exist.
            encryption_key: 32 bytes, or None for a store that is not encrypted.
            read_only: Open for reading, as of now, also beside a writer; nothing is written.
        """
        self.path = Path(path)
        self._key = encryption_key
        self._read_only = read_only

    def connect(self) -> RocksDBConnection:
        """Open a connection.

        Raises:
            LibraryMissing: rocksdict is not installed.
            NotADatabase: The folder is not a RocksDB store, or has another key.
            DatabaseLocked: Another connection has it open for writing, in this process or another.
        """
        try:
            import rocksdict
        except ImportError as missing:
            raise LibraryMissing(NOT_INSTALLED) from missing
        options = self._options(rocksdict)
        if self._read_only:
            driver, scratch = self._open_links(rocksdict, options)
        else:
            with os_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if not self.path.exists():
                    self.path.mkdir(mode=0o700)
            with translated(self.path.name):
                driver, scratch = rocksdict.Rdict(str(self.path), options), None
        connection = RocksDBConnection(self.path, driver, options, self._key, scratch)
        try:
            connection.check()
        except BaseException:
            connection.close()
            raise
        return connection

    def health(self, connection: RocksDBConnection) -> None:
        """Raise NotADatabase if the store's mark is not valid."""
        connection.check()

    def _options(self, rocksdict: Any) -> Any:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(not self._read_only)
        options.set_keep_log_file_num(2)
        options.set_write_buffer_size(WRITE_BUFFER)
        options.enable_statistics()
        blocks = rocksdict.BlockBasedOptions()
        blocks.set_bloom_filter(BLOOM_BITS, False)  # one filter a file, not one a block
        blocks.set_block_cache(rocksdict.Cache(BLOCK_CACHE))
        options.set_block_based_table_factory(blocks)
        if self._key is not None:  # encrypted data does not compress
            options.set_compression_type(rocksdict.DBCompressionType.none())
        return options

    def _open_links(self, rocksdict: Any, options: Any) -> tuple[Any, Path]:
        """Open links to the files for reading only; return the driver and the folder of the links.

        RocksDB then fails if any file is missing or too short, where a secondary would show an
        older state. Links, since rocksdict writes into the folder, and RocksDB may remove files
        that a writer has added since (rocksdb #14938). A writer may also remove files before they
        are open; so an error counts only if it comes again.
        """
        if not (self.path / "CURRENT").exists():  # the driver would create a folder
            raise NotADatabase(f"{self.path.name} {_NO_STORE}.")
        access, attempts = rocksdict.AccessType.read_only(), 0
        while True:
            attempts += 1
            links = Path(tempfile.mkdtemp(prefix="aico-lab-"))
            try:
                with os_errors(self.path):
                    for file in self.path.absolute().iterdir():
                        if file.name.startswith(_NAMES) or file.suffix in _SUFFIXES:
                            (links / file.name).symlink_to(file)
                with translated(self.path.name):
                    return rocksdict.Rdict(str(links), options, access_type=access), links
            except BaseException as error:
                shutil.rmtree(links, ignore_errors=True)
                if not isinstance(error, CorruptDatabase) or attempts == _ATTEMPTS:
                    raise
            time.sleep(_PAUSE)
