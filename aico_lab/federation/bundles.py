"""The format of a bundle: age( signature, then zlib( a line of header, then the rows ) ).

The name of a bundle's file is `<stream>/<number>-<hash>.age`, with the hash of the whole file, so
partial copies are noticed without a key. A reader checks the hash, decrypts, checks the signature,
and only then decompresses.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from aico_lab.adapters import age
from aico_lab.errors import CorruptDatabase
from aico_lab.federation.rows import (
    MAX_STAMP,
    PLAIN,
    Version,
    device_of_stream,
    digest_of,
    from_json,
    is_stream,
    to_json,
)
from aico_lab.home.receipts import ERASURE_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aico_lab.federation.tables import FederatedTable

FORMAT: Final = 1
ROWS: Final = 5_000
"""The maximum number of rows in a bundle."""
SIZE: Final = 4 << 20
"""The size in bytes that the rows of a bundle may exceed only by its last row."""
LARGEST_FILE: Final = 80 << 20
_INFLATED: Final = 64 << 20
_CONTEXT: Final = b"aico-lab federation bundle v1\0"
_SIGNATURE: Final = 64
_ERASED: Final = "\0"
"""The name of a column that no table has.

It stands in bundles with erased rows, so that an older version waits until it is upgraded.
"""
START: Final = "0" * 32
"""The hash before the first bundle of a stream."""

_INFINITE: Final = frozenset({math.inf, -math.inf})
_NAME: Final = re.compile(r"([0-9a-f]{16}\.[0-9a-f]{8})/(\d{8})-([0-9a-f]{32})\.age")


class Ctx(dict[str, tuple[int, list[str]]]):
    """The bundles that a device had taken in: the length and last hashes of every stream."""

    def has(self, stream: str, n: int) -> bool:
        """Return whether bundle `n` of a stream had been taken in."""
        return self.get(stream, (0, []))[0] >= n


class Refused(Exception):
    """A file is no bundle that may be taken in.

    Attributes:
        is_final: Whether it never will be one.
    """

    def __init__(self, reason: str, *, is_final: bool = True) -> None:
        super().__init__(reason)
        self.is_final = is_final


class NoKey(Refused):
    """No key of this device opens a file."""

    def __init__(self) -> None:
        super().__init__("this device has no key for it", is_final=False)


class FileName(NamedTuple):
    """The parts of the name of a bundle's file."""

    stream: str
    n: int
    hash: str

    @property
    def device(self) -> str:
        """The id of the device that the stream belongs to."""
        return device_of_stream(self.stream)

    def __str__(self) -> str:
        return f"{self.stream}/{self.n:08d}-{self.hash}.age"


def parse_name(name: str) -> FileName:
    """Return the parts of a file's name.

    Raises:
        Refused: It is not the name of a bundle.
    """
    found = _NAME.fullmatch(name)
    if not found or int(found[2]) < 1:
        raise Refused("its name is not that of a bundle")
    return FileName(found[1], int(found[2]), found[3])


def hash_of(content: bytes) -> str:
    """Return the hash of a file that is part of its name."""
    return hashlib.sha256(content).hexdigest()[:32]


class Decision(NamedTuple):
    """A conflict that a person or an erasure decided: the losing version of a row."""

    table: str
    key: str
    stream: str
    n: int
    stamp: int
    cl: int

    @classmethod
    def of(cls, table: str, key: str, loser: str) -> Decision:
        """Return the decision that a version lost, given as it is stored."""
        return cls(table, key, *json.loads(loser))

    @property
    def loser(self) -> str:
        """The losing version as it is stored."""
        return json.dumps(self[2:])


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a bundle.

    Attributes:
        class_: The class of its rows.
        stream: The stream.
        n: The number in the stream, from 1.
        prev: The hash of the bundle before it.
        ctx: What its author had taken in.
        schema: The sum of the versions of the author's core schemas.
        statements: Signed statements on devices, epochs and policies; see `control`.
        needs: Bundles of its device with rows that its rows may refer to, as names of files.
        decided: Conflicts that a person or an erasure decided.
        v: The version of the format.
    """

    class_: str
    stream: str
    n: int
    prev: str
    ctx: Ctx
    schema: int
    statements: list[dict[str, Any]] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    decided: list[Decision] = field(default_factory=list)
    v: int = FORMAT

    @property
    def age(self) -> int:
        """A number that is greater than that of every bundle that this one's author had seen."""
        return sum(length for length, _ in self.ctx.values())


class RowChange(NamedTuple):
    """One version of one row; the content is None if the row is deleted."""

    key: str
    version: Version
    content: tuple[Any, ...] | None


Changes = dict[str, list[RowChange]]
"""Changes by the name of their table."""


def pack(
    header: Header,
    tables: Mapping[str, FederatedTable],
    changes: Changes,
    *,
    signing_key: bytes,
    recipients: Iterable[str],
) -> bytes:
    """Return the content of a bundle's file."""
    body = {
        name: {
            "columns": [*tables[name].columns, *_marks(rows)],
            "rows": [encoded(header, one) for one in rows],
        }
        for name, rows in changes.items()
    }
    head = asdict(header) | {"decided": [list(one) for one in header.decided]}
    text = orjson.dumps(head) + b"\n" + orjson.dumps(body)
    payload = zlib.compress(text, 1)  # a higher level takes twice the time for 15 % less
    signature = Ed25519PrivateKey.from_private_bytes(signing_key).sign(_CONTEXT + payload)
    return age.encrypt(signature + payload, list(recipients))


def _marks(changes: Iterable[RowChange]) -> list[str]:
    """Return the column by which devices that know no erased rows wait until they are upgraded."""
    return [_ERASED] if any(one.version.is_erased for one in changes) else []


def encoded(header: Header, change: RowChange) -> list[Any]:
    """Return a change as JSON."""
    version, content = change.version, change.content
    head: list[Any] = [change.key, version.cl, version.stamp]
    if (version.stream, version.n) != (header.stream, header.n):  # in a state
        head += [version.stream, version.n]
    if content is None:
        return [head, version.digest or None]
    types = set(map(type, content))
    if types <= PLAIN and (float not in types or _INFINITE.isdisjoint(content)):
        return [head, content]
    return [head, [to_json(value) for value in content]]


class OpenedBundle(NamedTuple):
    """A decrypted bundle whose signature was checked, with its rows as JSON."""

    header: Header
    body: bytes

    def rows(self) -> list[bytes]:
        """Return the keys and contents of its rows as JSON, without those of deleted rows."""
        return [
            orjson.dumps([head[0], content])
            for part in orjson.loads(self.body).values()
            for head, content in part["rows"]
            if isinstance(content, list)
        ]


def unpack(
    name: FileName, content: bytes, identities: Sequence[str], public_key: bytes
) -> OpenedBundle:
    """Decrypt a bundle, and check it, except for its rows.

    Raises:
        Refused: The content is no bundle of this name and author.
    """
    if hash_of(content) != name.hash:
        raise Refused("it is incomplete, or was changed", is_final=False)
    try:
        plain = age.open_bytes(content, identities)
    except CorruptDatabase as error:
        raise Refused("it is not encrypted, or is damaged") from error
    if plain is None:
        raise NoKey
    signature, payload = plain[:_SIGNATURE], plain[_SIGNATURE:]
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _CONTEXT + payload)
    except InvalidSignature as error:
        raise Refused("its signature is not that of its device") from error
    text = _inflated(payload)
    line, _, body = text.partition(b"\n")
    header = _header(line)
    if (header.stream, header.n) != (name.stream, name.n):
        raise Refused("its name is that of another bundle")
    return OpenedBundle(header, body)


def _inflated(payload: bytes) -> bytes:
    inflating = zlib.decompressobj()
    try:
        text = inflating.decompress(payload, _INFLATED)
    except zlib.error as error:
        raise Refused("its content is damaged") from error
    if inflating.unconsumed_tail or not inflating.eof:
        raise Refused("its content is too large, or cut off")
    return text


def _header(line: bytes) -> Header:
    try:
        read = orjson.loads(line)
        if read["v"] > FORMAT:
            raise Refused("it is of a newer version: upgrade this device", is_final=False)
        ctx = read_ctx(read["ctx"])
        statements = read["statements"]
        if not all(isinstance(statement, dict) for statement in statements):
            raise TypeError
        header = Header(
            str(read["class_"]),
            str(read["stream"]),
            _natural(read["n"]),
            str(read["prev"]),
            ctx,
            _natural(read["schema"]),
            list(statements),
            [str(parse_name(needed)) for needed in read["needs"]],
            [_decision(*one) for one in read.get("decided", [])],
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Refused("its header is malformed") from error
    if (header.n == 1) != (header.prev == START):
        raise Refused("its header is malformed")
    return header


def read_ctx(read: Any) -> Ctx:
    """Return what a device had taken in.

    Raises:
        ValueError, TypeError, AttributeError: It is malformed.
    """
    return Ctx(
        {
            str(stream): (_natural(n), [str(head) for head in heads])
            for stream, (n, heads) in read.items()
        }
    )


def _decision(table: str, key: str, stream: str, *numbers: int) -> Decision:
    n, stamp, cl = map(_natural, numbers)
    if not (isinstance(table, str) and isinstance(key, str) and is_stream(stream)):
        raise ValueError("is no decision")
    return Decision(table, key, stream, n, stamp, cl)


def _natural(number: object) -> int:
    if type(number) is not int or not 0 <= number <= MAX_STAMP:
        raise ValueError("is no number")
    return number


def read_changes(
    opened: OpenedBundle, tables: Mapping[str, FederatedTable], schema: int
) -> Changes:
    """Return the rows of a bundle.

    Columns that an older schema does not have get their defaults.

    Args:
        opened: The bundle.
        tables: The tables of this device.
        schema: The sum of the versions of this device's schemas.

    Raises:
        Refused: The rows are malformed, or of a newer schema.
    """
    header = opened.header
    try:
        read = orjson.loads(opened.body)
        known = {
            name: {column: at for at, column in enumerate(part["columns"]) if column != _ERASED}
            for name, part in read.items()
        }
        if header.schema > schema and any(
            name not in tables or set(columns) - set(tables[name].columns)
            for name, columns in known.items()
        ):
            raise Refused(
                "it is of a newer schema: upgrade this device, or activate the plugin",
                is_final=False,
            )
        if any(
            name not in tables
            or tables[name].class_ != header.class_
            or set(columns) - set(tables[name].columns)
            for name, columns in known.items()
        ):
            raise Refused("it has an unknown table or column, or one of another class")
        return {
            name: [_change(header, tables[name], known[name], row) for row in part["rows"]]
            for name, part in read.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise Refused("its rows are malformed") from error


def _change(header: Header, table: FederatedTable, known: dict[str, int], row: Any) -> RowChange:
    (key, cl, stamp, *origin), given = row
    stream, n = origin or (header.stream, header.n)
    if not isinstance(key, str) or "\0" in key:
        raise ValueError("is no key")
    if origin and not is_stream(stream):
        raise ValueError("is no stream")
    if len(table.keys) > 1:
        parts = json.loads(key)
        if not (isinstance(parts, list) and len(parts) == len(table.keys)):
            raise ValueError("is no key")
        if not all(type(part) in (str, int) for part in parts):
            raise ValueError("is no key")
    is_deleted = given is None or isinstance(given, str)
    if _natural(cl) == 0 or (cl % 2 == 0) != is_deleted:
        raise ValueError("is no causal length")
    if is_deleted:
        erasure_id = _erasure_id(given)
        return RowChange(key, Version(cl, _natural(stamp), erasure_id, stream, _natural(n)), None)
    if len(given) != len(known):
        raise ValueError("is no row")
    values = given if PLAIN.issuperset(map(type, given)) else [*map(from_json, given)]
    if tuple(known) != table.columns:
        values = [
            values[known[column]] if column in known else default
            for column, default in zip(table.columns, table.defaults, strict=True)
        ]
    _check(values, table)
    digest = digest_of(table, key, values)
    return RowChange(key, Version(cl, _natural(stamp), digest, stream, _natural(n)), tuple(values))


def _erasure_id(given: str | None) -> str:
    """Return the id of the erasure that deleted a row; nothing if none did."""
    if given is not None and not ERASURE_ID.fullmatch(given):
        raise ValueError("is no erasure")
    return given or ""


def _check(values: Sequence[Any], table: FederatedTable) -> None:
    """Raise ValueError if a column never has a value, or the driver refuses it."""
    for value, refused in zip(values, table.refused_types, strict=True):
        kind = type(value)
        if kind in refused or (kind is int and not -(2**63) <= value < 2**63):
            raise ValueError("is of another type")
    if "\0" in "".join([value for value in values if type(value) is str]):
        raise ValueError("has a NUL")
