"""Pseudonyms and shifts of time that are keyed by a study, for what is shared.

The key of a study is random and stays in the home: within a study a person always has the same
pseudonym, and pseudonyms of two studies do not show that they are one person's. What people do
shows it: intervals between messages and their lengths are the same in both.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.libsql import NOW
from aico_lab.constants import MS_PER_DAY
from aico_lab.errors import InvalidValue

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection

_NAME: Final = re.compile(r"[\w.-]{1,64}")
_KEY_BYTES: Final = 32
_LETTERS: Final = 12  # of a pseudonym: 60 bits
_MOST_WEEKS: Final = 26


class Study:
    """The pseudonyms of a study."""

    def __init__(self, key: bytes) -> None:
        """Make the pseudonyms of a key of 32 bytes."""
        self._key = key

    @classmethod
    def of(cls, primary: Connection, name: str) -> Study:
        """Return a study of a home, whose key is made the first time.

        Raises:
            InvalidValue: The name has other characters than letters, digits, `.`, `-` and `_`.
        """
        if not _NAME.fullmatch(name):
            raise InvalidValue(
                f"A study's name has letters, digits, '.', '-' and '_', not {name!r}."
            )
        where = f"study:{name}"
        with primary.transaction():
            row = primary.fetch_one("SELECT value FROM system_state WHERE key = ?", [where])
            if row is None:
                row = (secrets.token_hex(_KEY_BYTES),)
                primary.execute(f"INSERT INTO system_state VALUES (?, ?, {NOW})", [where, row[0]])
        return cls(bytes.fromhex(row[0]))

    def pseudonym(self, kind: str, id_: str) -> str:
        """Return the pseudonym of a person, channel, conversation or message.

        Args:
            kind: 'person', 'channel', 'conversation' or 'message'.
            id_: Its id in the home.
        """
        code = base64.b32encode(self._digest(kind, id_)).decode().lower()[:_LETTERS]
        return f"{kind}-{code}"

    def shift_ms(self, id_: str) -> int:
        """Return by how many milliseconds times are shifted: whole weeks, at most 26, not none.

        Weekdays and hours (in UTC) stay as they are.
        """
        number = int.from_bytes(self._digest("shift", id_)[:8]) % (2 * _MOST_WEEKS)
        weeks = number - _MOST_WEEKS + (number >= _MOST_WEEKS)
        return weeks * 7 * MS_PER_DAY

    def _digest(self, kind: str, id_: str) -> bytes:
        return hashlib.blake2b(f"{kind}\0{id_}".encode(), key=self._key, digest_size=20).digest()
