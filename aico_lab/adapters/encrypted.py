"""One encrypted libSQL file, opened by a password, independent of any home."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from filelock import FileLock

from aico_lab.adapters.libsql import BUSY_TIMEOUT, Connection, LibSQLAdapter
from aico_lab.config import Settings
from aico_lab.errors import HomeMissing, KeyMissing, WrongKey
from aico_lab.home.files import os_errors, private_files, write_atomically
from aico_lab.home.keys import create_keys, kinds_of, open_keys


class EncryptedLibSQLConnection(Connection):
    """A connection to a database protected by a master password; created if it does not exist.

    Beside the file is `<name>.key.json`: the salt and cost parameters of Argon2id, and the file's
    random key, wrapped with the key that Argon2id derives from the password. Without it, the file
    cannot be opened.
    """

    def __init__(self, db_path: Path | str, *, master_password: str) -> None:
        """Open the database.

        Args:
            db_path: The file; `~` is the user's home folder.
            master_password: 8 characters or more.

        Raises:
            WrongKey: The password is wrong.
            KeyMissing: The password is missing, or `<name>.key.json` beside an existing file.
            InvalidValue: The password of a new database is too short.
            StorageError: The file cannot be opened.
        """
        path = Path(db_path).expanduser().absolute()
        key = _key(path, Settings(home=path, passphrase=master_password))
        LibSQLAdapter(path, key).connect().close()  # creates the file, or detects a wrong key
        super().__init__(path, key, busy_timeout=BUSY_TIMEOUT)


@private_files()
def _key(path: Path, settings: Settings) -> str | None:
    slot = path.with_name(f"{path.name}.key.json")
    with os_errors(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two processes that create the same database must not write two different keys.
        with FileLock(slot.with_name(f"{slot.name}.lock")):
            if slot.exists():
                return _open(path, slot, settings)
            if path.exists():
                raise KeyMissing(f"{slot} is missing: restore it, it holds the key of {path.name}.")
            database_id = secrets.token_hex(16)
            keys, marker = create_keys(database_id, "passphrase", settings)
            write_atomically(slot, json.dumps(marker, indent=2).encode() + b"\n")
            return keys.libsql()


def _open(path: Path, slot: Path, settings: Settings) -> str | None:
    try:
        marker = json.loads(slot.read_text(encoding="utf-8"))
    except ValueError:
        marker = {}
    damaged = KeyMissing(f"{slot} is damaged: restore it, it holds the key of {path.name}.")
    # Any other protection would open an unencrypted file that somebody put in its place.
    if not isinstance(marker, dict) or kinds_of(marker) != {"passphrase"}:
        raise damaged
    try:
        return open_keys(marker, settings).libsql()
    except WrongKey:
        raise WrongKey(f"The master password does not open {path}: use the right one.") from None
    except HomeMissing:
        raise damaged from None
