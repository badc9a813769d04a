"""Find keys of the home, and text of messages, in what a report is about to publish.

Text of a message is eight of its words in a row, or sixteen letters of a script without blanks
between words, such as Chinese. Case, punctuation and quoting do not matter. The windows of so many
words of a page are hashed once, and those of all messages of the snapshot are looked up among them,
some thousands of messages at a time; equal hashes are compared word by word. So a search needs the
memory of the page, whatever the number of messages.

Sentences that the notebook itself or the package's texts hold are no text of a message, even if a
message quotes them. Nor are the names of people and channels where a report shows names: then a
message that is the title of its channel is only found by the words beyond that title.
"""

from __future__ import annotations

import base64
import string
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from aico_lab import charts
from aico_lab.adapters.duckdb import ALIAS, translated
from aico_lab.errors import LeakFound
from aico_lab.reports.shown_texts import ShownText, json_texts, readings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import duckdb
    import pyarrow as pa
    from numpy.typing import NDArray

    from aico_lab.adapters.duckdb_relation import Relation
    from aico_lab.home.keys import Keys
    from aico_lab.storage import Storage

WORDS: Final = 8
"""The number of consecutive words that are text of a message."""

LETTERS: Final = 16
"""The same for letters of scripts without blanks; a word between them counts as a letter."""

_ROWS: Final = 2048  # of messages that are looked up together
_AT_ONCE: Final = 1 << 24  # bytes of them, unless one message is longer
_TABLE_BITS: Final = 24

_NO_BLANKS: Final = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER: Final = f"[{_NO_BLANKS}]"
_WORD: Final = rf"{_LETTER}|[[\p{{L}}\p{{M}}\p{{N}}]--{_LETTER}]+"
_IGNORED: Final = r"['\u2018\u2019\u02bc\p{Cf}]+"
"""Apostrophes, soft hyphens and characters without width, which words are compared without."""

_LENGTHS: Final = ((WORDS, 0x9E3779B97F4A7C15), (LETTERS, 0xC2B2AE3D27D4EB4F))
"""The lengths of windows, each with the odd number that its hashes are made with."""

_OWN_TEXTS: Final = (".py", ".js", ".css")
_ALPHANUMERIC: Final = (string.ascii_letters + string.digits).encode()
_OTHERS: Final = bytes(set(range(256)) - set(_ALPHANUMERIC))
_DRAWER: Final = 500_000  # the fewest characters of the JavaScript that draws charts
_KEY_BYTES: Final = 24  # of the shortest key
_LINE: Final = 16  # bytes in a line of a hexadecimal dump
_SHORTEST_CODE: Final = 12  # characters of a code that identify a key
_NAMED: Final = 3  # of the places of leaks in one sentence


@dataclass(frozen=True)
class _Windows:
    """All runs of `WORDS` words, and of `LETTERS` words and letters, of some texts.

    Attributes:
        words: All words.
        text: The number of the text of each word.
        hashes: The hash of each window.
        starts: The place of its first word.
        lengths: The number of its words.
    """

    words: pl.Series
    text: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def words_of(self, window: int) -> list[str]:
        """Return the words of a window."""
        return self.words.slice(int(self.starts[window]), int(self.lengths[window])).to_list()


def _words(texts: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
    """Return the words of texts in their order, and the number of the text of each word."""
    plain = texts.fill_null("").str.normalize("NFKC").str.to_lowercase()
    plain = plain.str.replace_all(_IGNORED, "").str.replace_all("ß", "ss", literal=True)
    found = plain.str.extract_all(_WORD)
    counts = found.list.len()
    numbers = np.repeat(np.arange(len(texts), dtype=np.int64), counts.to_numpy())
    return found.filter(counts > 0).explode(), numbers


def _windows(words: pl.Series, group: NDArray[np.int64], text: NDArray[np.int64]) -> _Windows:
    """Return the windows of words; none reaches from one group into another.

    Windows of numbers alone are left out. The words are taken a second time without the numbers,
    which a table may have between its words.
    """
    is_word = ~words.str.contains(r"^\p{N}+$").to_numpy()
    words = pl.concat([words, words.filter(pl.Series(is_word))])
    group = np.concatenate([2 * group, 2 * group[is_word] + 1])
    text = np.concatenate([text, text[is_word]])
    texts = np.cumsum(np.concatenate([[0], is_word, np.ones(np.count_nonzero(is_word))]))
    hashes, starts, lengths = [], [], []
    values = words.hash(seed=0).to_numpy() if len(words) else np.zeros(0, np.uint64)
    letters = np.concatenate(([0], np.cumsum(words.str.contains(f"^{_LETTER}$").to_numpy())))
    for length, factor in _LENGTHS:
        count = len(values) - length + 1
        if count <= 0:
            continue
        rolled = np.zeros(count, np.uint64)
        for place in range(length):
            rolled *= np.uint64(factor)
            rolled += values[place : place + count]
        within = (group[:count] == group[length - 1 :]) & (texts[length:] > texts[:count])
        has_letters = letters[length:] > letters[:count]
        chosen = np.flatnonzero(within & (has_letters if length == LETTERS else ~has_letters))
        hashes.append(rolled[chosen])
        starts.append(chosen)
        lengths.append(np.full(len(chosen), length))
    nothing = np.zeros(0, np.int64)
    return _Windows(
        words,
        text,
        np.concatenate([np.zeros(0, np.uint64), *hashes]),
        np.concatenate([nothing, *starts]),
        np.concatenate([nothing, *lengths]),
    )


def _windows_of(texts: pl.Series) -> _Windows:
    words, numbers = _words(texts)
    return _windows(words, numbers, numbers)


class _Shown:
    """The windows of the texts of a page, by their hash."""

    def __init__(self, texts: list[ShownText]) -> None:
        # Words of one way to read follow each other across outputs, where a sentence may be split.
        ways: dict[str, tuple[list[str], list[int]]] = {}
        for number, one in enumerate(texts):
            for way, read in readings(one.text):
                some, numbers = ways.setdefault(way, ([], []))
                some.append(read)
                numbers.append(number)
        words, groups, places = [pl.Series(dtype=pl.String)], [], []
        for group, (some, numbers) in enumerate(ways.values()):
            found, texts_of_words = _words(pl.Series(some, dtype=pl.String))
            words.append(found)
            places.append(np.array(numbers, dtype=np.int64)[texts_of_words])
            groups.append(np.full(len(found), group))
        nothing = np.zeros(0, np.int64)
        windows = _windows(
            pl.concat(words), np.concatenate([nothing, *groups]), np.concatenate([nothing, *places])
        )
        self._windows = windows
        self._table = np.zeros(1 << _TABLE_BITS, np.bool_)
        self._sought(np.argsort(windows.hashes, kind="stable"))

    def _sought(self, order: NDArray[np.int64]) -> None:
        """Look for these windows from now on, which are in the order of their hashes."""
        self._order = order
        self._hashes = self._windows.hashes[order]
        self._places = self._windows.text[self._windows.starts[order]]
        self._table[:] = False
        self._table[self._hashes >> np.uint64(64 - _TABLE_BITS)] = True

    def allow(self, known: _Windows) -> None:
        """Look no longer for windows that another text has."""
        self._sought(self._order[~np.isin(self._hashes, known.hashes)])

    def hits(self, windows: _Windows) -> NDArray[np.int64]:
        """Return the numbers of the windows whose hash a window of the page has."""
        shift = np.uint64(64 - _TABLE_BITS)
        maybe = np.flatnonzero(self._table[windows.hashes >> shift])
        if not len(maybe):
            return maybe
        sought = windows.hashes[maybe]
        at = np.minimum(np.searchsorted(self._hashes, sought), len(self._hashes) - 1)
        found: NDArray[np.int64] = maybe[self._hashes[at] == sought]
        return found

    def take(self, windows: _Windows, hit: int) -> set[int]:
        """Return the texts that have a window, and look no longer for anything in these."""
        value = windows.hashes[hit]
        first, last = (np.searchsorted(self._hashes, value, side) for side in ("left", "right"))
        words = windows.words_of(hit)
        found = {
            int(place)
            for place, one in zip(self._places[first:last], self._order[first:last], strict=True)
            if self._windows.words_of(one) == words
        }
        if found:
            self._sought(self._order[~np.isin(self._places, list(found))])
        return found


def places_of_messages(
    texts: list[ShownText], messages: Iterable[pl.Series], known: Iterable[str]
) -> list[str]:
    """Return the places of a page that hold text of a message, in their order.

    Args:
        texts: The texts of the page.
        messages: The messages, some at a time.
        known: Texts that may be shown; read only if something is found.
    """
    shown = _Shown(texts)
    found: set[int] = set()
    is_first = True
    for some in messages:
        windows = _windows_of(some)
        hits = shown.hits(windows)
        if len(hits) and is_first:
            is_first = False
            shown.allow(_windows_of(pl.Series(list(known), dtype=pl.String)))
            hits = shown.hits(windows)
        while len(hits):
            found |= shown.take(windows, int(hits[0]))
            hits = hits[1:][np.isin(hits[1:], shown.hits(windows))]
    return list(dict.fromkeys(texts[place].where for place in sorted(found)))


class KeyCodes:
    """The ways in which the keys of a home can be written in a file."""

    def __init__(self, keys: Keys, passphrase: str | None) -> None:
        folded, exact = set(), set()
        for secret in keys.secrets():
            folded |= {secret.hex(), "".join(map(str, secret)), "".join(map(hex, secret))}
            folded |= {"".join(f"0x{byte:02x}" for byte in secret), str(int.from_bytes(secret))}
            folded.add(base64.b32encode(secret).decode())
            if len(secret) >= _KEY_BYTES:  # the half of a key is more than anybody may know
                folded |= {secret[:_LINE].hex(), secret[-_LINE:].hex()}
            # The code depends on the place of the first byte in a group of three; characters at the
            # ends are also of what is before and behind.
            for before in range(3):
                code = base64.b64encode(bytes(before) + secret + bytes(2)).decode()
                exact.add(code[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6])
        if chroma := keys.chroma():
            folded.add(chroma.lower())
        self._raw = [secret for secret in keys.secrets() if len(secret) >= _KEY_BYTES]
        self._folded, self._exact = (
            [code for code in map(_compact, codes) if len(code) >= _SHORTEST_CODE]
            for codes in (map(str.lower, folded), exact)
        )
        self._passphrase = passphrase

    def are_in(self, text: str) -> bool:
        """Return whether a text holds a key or the passphrase, however it is quoted or split."""
        return any(
            (self._passphrase and self._passphrase in reading) or self.are_in_file(reading.encode())
            for way, reading in readings(text)
            if not way.startswith("apart")
        )

    def are_in_file(self, content: bytes) -> bool:
        """Return whether bytes hold a key, as bytes or in a code.

        A passphrase is not looked for: the words of a page's template may be somebody's passphrase.
        """
        compact = _compact(content)
        lower = compact.lower()
        return (
            any(code in compact for code in self._exact)
            or any(code in lower for code in self._folded)
            or any(secret in content for secret in self._raw)
            or self._as_letters(content)
        )

    def _as_letters(self, content: bytes) -> bool:
        """Return whether the letters of a text are the bytes of a key, as in a text of Latin-1."""
        if content.isascii():
            return False
        letters = content.decode(errors="ignore").encode("latin-1", "ignore")
        return any(secret in letters for secret in self._raw)


def _compact(text: str | bytes) -> bytes:
    """Return the ASCII letters and digits of a text."""
    content = text.encode() if isinstance(text, str) else text
    return content.translate(None, _OTHERS)


class Leak(NamedTuple):
    """A leak.

    Attributes:
        found: What leaks and where, as a sentence without its end; no text is quoted.
        advice: What to do about it, likewise.
    """

    found: str
    advice: str


class LeakScan:
    """The search for leaks of one run of a report."""

    def __init__(
        self,
        storage: Storage,
        connection: duckdb.DuckDBPyConnection,
        parameters: Mapping[str, object],
    ) -> None:
        """Prepare a search.

        Args:
            storage: The opened home.
            connection: The snapshot that the report reads.
            parameters: The values of the notebook's parameters. With `content`, messages may be
                shown; unless `names` is False, names of people and channels may.
        """
        self._keys = KeyCodes(storage.keys, storage.settings.passphrase)
        self._connection = connection
        self._content = parameters.get("content") is True
        allow = "run it with content = true"
        if "content" not in parameters:
            allow = "declare `content: bool = True` among its parameters"
        self._advice = f"change the notebook, or {allow}"
        self._names = bool(parameters.get("names", True))

    def leak(
        self, shown: list[ShownText], paths: Iterable[Path], sources: Iterable[str]
    ) -> Leak | None:
        """Return what leaks; None if nothing does.

        Args:
            shown: The texts of the outputs.
            paths: The files to publish.
            sources: The texts of the notebook's own cells, which are no text of a message.
        """
        if any(len(one.text) > _DRAWER for one in shown):
            drawer = f"<style>{charts.style()}</style><script>{charts.script()}</script>"
            shown = [one for one in shown if one.text != drawer]
        files = {f"the file {path.name}": path.read_bytes() for path in paths}
        for where, content in files.items():
            if where.endswith(".json"):
                shown += json_texts(where, content)
        keyed = [one.where for one in shown if self._keys.are_in(one.text)]
        keyed = keyed or [where for where in files if self._keys.are_in_file(files[where])]
        if keyed:
            found = f"{_listed(keyed)} {_holds(keyed)} a key or the passphrase of the home"
            return Leak(found, "change the notebook")
        if self._content:
            return None
        known = chain(sources, self._own_texts())
        places = places_of_messages(shown, read_messages(self._connection), known)
        if not places:
            return None
        return Leak(f"{_listed(places)} {_holds(places)} text of a message", self._advice)

    def _own_texts(self) -> Iterator[str]:
        """Yield the texts of this package and of its plugins' metrics, and the names if shown."""
        from aico_lab.metrics.engine.catalogue import CATALOGUE

        for path in Path(__file__).parents[1].rglob("*"):
            if path.suffix in _OWN_TEXTS:
                yield path.read_text(encoding="utf-8")
        for metric in CATALOGUE.by_domain()[0]:
            yield from (metric.question, metric.definition, metric.source)
            yield from (column.meaning for column in metric.columns)
        if self._names:
            yield from _names(self._connection)


def _names(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Yield the names of people and channels, which are no text of a message."""
    for table in ("users", "channels"):
        rows = connection.cursor().execute(f"SELECT name FROM {ALIAS}.raw.{table}").fetchall()
        yield from (str(name) for (name,) in rows)


def refuse_leaks(storage: Storage, rows: Relation, *, content: bool) -> None:
    """Raise LeakFound if the rows of an export hold a key or, without `content`, text of a message.

    Args:
        storage: The opened home.
        rows: The rows, which are computed for this.
        content: Whether they may hold text of messages.
    """
    codes = KeyCodes(storage.keys, storage.settings.passphrase)
    connection = storage.reader.connection()
    waiting: list[ShownText] = []

    def check() -> None:
        if places := places_of_messages(waiting, read_messages(connection), _names(connection)):
            raise LeakFound(
                f"The rows were not written, since {_listed(places)} {_holds(places)} text of a "
                "message: leave it out, or set content = true in that step."
            )
        waiting.clear()

    size = 0
    for batch in rows.to_arrow_reader(_ROWS):
        texts = dict(_texts_of(batch))
        for name, values in texts.items():
            if codes.are_in_file("\n".join(values).encode()):
                raise LeakFound(
                    f"The rows were not written, since {name} holds a key of the home: leave it "
                    "out."
                )
        if not content:
            waiting += [ShownText(name, "\n".join(values)) for name, values in texts.items()]
            by_row = zip(*texts.values(), strict=True)
            waiting.append(ShownText("a row", "\n".join(map(" ".join, by_row))))
            size += batch.nbytes
            if size > _AT_ONCE:
                check()
                size = 0
    if waiting:
        check()


def _texts_of(batch: pa.RecordBatch) -> Iterator[tuple[str, list[str]]]:
    """Yield the columns of a batch that hold text, bytes or several values, all as text."""
    import pyarrow.types as kinds

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = column.type
        if kinds.is_string(kind) or kinds.is_large_string(kind):
            yield f"the column {name}", [one or "" for one in column.to_pylist()]
        elif kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind):
            values = column.to_pylist()
            yield (
                f"the column {name}",
                [one.decode("latin-1") if isinstance(one, bytes) else str(one) for one in values],
            )


def read_messages(connection: duckdb.DuckDBPyConnection) -> Iterator[pl.Series]:
    """Yield the texts of all messages of a snapshot, some at a time."""
    with translated("The snapshot"):
        # Shorter ones have neither so many words nor so many letters.
        query = f"SELECT content FROM {ALIAS}.raw.messages WHERE length(content) >= {2 * WORDS - 1}"
        for batch in connection.cursor().execute(query).to_arrow_reader(_ROWS):
            texts = pl.Series(batch.column(0))
            parts = max(1, batch.nbytes // _AT_ONCE)
            for some in np.array_split(np.arange(len(texts)), parts):
                yield texts.slice(int(some[0]), len(some)) if len(some) else texts.clear()


def _listed(places: list[str]) -> str:
    """Return places in words, the first ones by name."""
    others = len(places) - _NAMED
    named = [*places[:_NAMED], *([f"{others} more"] if others > 0 else [])]
    return " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))


def _holds(places: list[str]) -> str:
    return "holds" if len(places) == 1 else "hold"
