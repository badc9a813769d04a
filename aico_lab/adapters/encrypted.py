"""One encrypted libSQL file and the password that opens it, without a home around them."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from filelock import FileLock

from aico_lab.adapters.libsql import BUSY_TIMEOUT, Connection, LibSQLAdapter
from aico_lab.config import Settings
from aico_lab.errors import HomeMissing, KeyMissing, WrongKey
from aico_lab.home import os_errors, private_files, write_atomically
from aico_lab.keys import create_keys, open_keys, protection_of


class EncryptedLibSQLConnection(Connection):
    """A connection to a database that a master password opens; made where there is none.

    Beside the file lies `<name>.key.json`: the salt and the costs of Argon2id, and the file's
    random key, wrapped by what Argon2id makes of the password. Without it nothing opens the file.
    """

    def __init__(self, db_path: Path | str, *, master_password: str) -> None:
        """Open the database.

        Args:
            db_path: The file; `~` is the person's own folder.
            master_password: 8 characters or more.

        Raises:
            WrongKey: The password does not open it.
            KeyMissing: There is no password, or no `<name>.key.json` beside an existing file.
            InvalidValue: The password of a new database is too short.
            StorageError: The file cannot be opened.
        """
        path = Path(db_path).expanduser().absolute()
        key = _key(path, Settings(home=path, passphrase=master_password))
        LibSQLAdapter(path, key).connect().close()  # makes the file, and tells a wrong key
        super().__init__(path, key, busy_timeout=BUSY_TIMEOUT)


@private_files()
def _key(path: Path, settings: Settings) -> str | None:
    slot = path.with_name(f"{path.name}.key.json")
    with os_errors(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two processes that make the same database must not each wrap a key of their own.
        with FileLock(slot.with_name(f"{slot.name}.lock")):
            if slot.exists():
                return _open(path, slot, settings)
            if path.exists():
                raise KeyMissing(f"{slot} is missing: restore it, it holds the key of {path.name}.")
            database_id = secrets.token_hex(16)
            keys, wrapped = create_keys(database_id, "passphrase", settings)
            marker = {"home_id": database_id, "key": wrapped}
            write_atomically(slot, json.dumps(marker, indent=2).encode() + b"\n")
            return keys.libsql()


def _open(path: Path, slot: Path, settings: Settings) -> str | None:
    try:
        marker = json.loads(slot.read_text(encoding="utf-8"))
    except ValueError:
        marker = {}
    damaged = KeyMissing(f"{slot} is damaged: restore it, it holds the key of {path.name}.")
    # Anything else would open a file that somebody exchanged for one without encryption.
    if not isinstance(marker, dict) or protection_of(marker) != "passphrase":
        raise damaged
    try:
        return open_keys(marker, settings).libsql()
    except WrongKey:
        raise WrongKey(f"The master password does not open {path}: give the right one.") from None
    except HomeMissing:
        raise damaged from None
