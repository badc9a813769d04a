"""Receipts of erasures: signed, without content, and kept in the database and beside it.

The sealed file beside the database notices a restored older one: what a receipt says is erased is
erased again. A receipt names people and channels only by a keyed hash. Until an erasure is finished
the file also has what the stores are still to be searched for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import CorruptDatabase, ErasureBusy
from aico_lab.home.files import held, os_errors, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys

_NONCE: Final = 12  # bytes

ERASURE_ID: Final = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")
"""The form of the ids of erasures; other devices refuse another one."""

NOTHING_KNOWN: Final[dict[str, Any]] = {
    "ids": {}, "names": [], "sentences": [], "rows": {}, "lost": True,
}  # fmt: skip
"""The patterns of an erasure whose entry in the sealed file is lost: there are none."""


def new_erasure_id() -> str:
    """Return an id of an erasure that begins now."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


@contextmanager
def erasing_alone(home: Home) -> Iterator[None]:
    """Exclude other erasures of a home.

    Raises:
        ErasureBusy: There is one.
    """

    def busy(who: str) -> ErasureBusy:
        return ErasureBusy(f"An erasure is being carried out by {who}: try again when it is done.")

    with held(home.temporary / "forget.lock", 0, busy):
        yield


def receipt_key(home: Home, keys: Keys) -> bytes:
    """Return the key that signs the receipts of a home.

    A home without encryption has no secret, so there the signature only shows damage.
    """
    derived = keys.receipts()
    if derived is not None:
        return derived
    return hashlib.sha256(f"aico-lab/receipts/{home.read_marker()['home_id']}".encode()).digest()


def signed(receipt: dict[str, Any], key: bytes) -> dict[str, Any]:
    """Return a receipt with its signature: HMAC-SHA256 of its canonical JSON."""
    return {**receipt, "signature": _signature(receipt, key)}


def is_authentic(receipt: Any, key: bytes) -> bool:
    """Return whether a receipt is one of this home, and unchanged."""
    try:
        given = str(receipt["signature"]).encode()
        return hmac.compare_digest(given, _signature(receipt, key).encode())
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):  # no receipt at all
        return False


def _signature(receipt: dict[str, Any], key: bytes) -> str:
    content = {name: value for name, value in receipt.items() if name != "signature"}
    said = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


@dataclass(slots=True)
class KeptErasure:
    """An erasure in the sealed file.

    Attributes:
        erasure_id: Its id.
        scope: What it erases, with a keyed hash instead of an id.
        wanted: What the stores are still to be searched for; None when it is finished.
        receipt: The receipt of a finished one, for a restored database that has nothing of it.
        repeats: The id of the first erasure, if this one repeats it in a restored database.
        asked: What the person's other devices are asked, for a restored database that has lost it.
    """

    erasure_id: str
    scope: dict[str, str]
    wanted: dict[str, Any] | None = field(default=None, repr=False)
    receipt: dict[str, Any] | None = None
    repeats: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list, repr=False)


class SealedErasures:
    """The file of the erasures of a home, encrypted if the home is."""

    def __init__(self, home: Home, keys: Keys) -> None:
        self._path = home.erasures
        self._key = keys.receipts()

    def read(self) -> list[KeptErasure]:
        """Return the erasures, oldest first; none if there is no file.

        Raises:
            CorruptDatabase: The file is damaged, or of another home.
        """
        try:
            with os_errors(self._path):
                content = self._path.read_bytes() if self._path.exists() else b""
            if not content:
                return []
            if self._key is not None:
                content = self._cipher().decrypt(content[:_NONCE], content[_NONCE:], None)
            return [KeptErasure(**one) for one in json.loads(content)]
        except Exception as damage:
            from cryptography.exceptions import InvalidTag

            if not isinstance(damage, InvalidTag | ValueError | TypeError):
                raise
            raise CorruptDatabase(
                f"{self._path.name} is damaged or of another home, so that a restored backup would "
                "not be erased again: take that file from a copy of the home, or remove it, so "
                "that it is written again from the receipts in aico.db, which are all there unless "
                "aico.db was replaced since."
            ) from damage

    def keep(self, erasure: KeptErasure) -> None:
        """Add an erasure, or replace the one with its id; durably."""
        others = [one for one in self.read() if one.erasure_id != erasure.erasure_id]
        content = json.dumps([asdict(one) for one in [*others, erasure]]).encode()
        if self._key is not None:
            nonce = secrets.token_bytes(_NONCE)
            content = nonce + self._cipher().encrypt(nonce, content, None)
        with os_errors(self._path):
            write_atomically(self._path, content)

    def lacking(self, receipts: Iterable[str | None], key: bytes) -> list[KeptErasure]:
        """Return the erasures of a database that the file lacks.

        Args:
            receipts: The receipts in that database, of unfinished erasures their beginning.
            key: The key of receipts.
        """
        kept = {one.erasure_id for one in self.read()}
        authentic = (
            receipt for text in receipts if is_authentic(receipt := json.loads(text or "null"), key)
        )
        return [
            KeptErasure(one["erasure_id"], one["scope"], receipt=one, repeats=one.get("repeats"))
            if "finished_at" in one
            else KeptErasure(
                one["erasure_id"], one["scope"], NOTHING_KNOWN, repeats=one.get("repeats")
            )
            for one in authentic
            if one["erasure_id"] not in kept
        ]

    def _cipher(self) -> Any:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._key or b"")
