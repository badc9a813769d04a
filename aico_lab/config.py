"""Settings of a home: its folder and credentials. Only this module reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    from collections.abc import Mapping

HOME_VARIABLE = "AICO_LAB_HOME"
KEY_FILE_VARIABLE = "AICO_LAB_KEY_FILE"
PASSPHRASE_VARIABLE = "AICO_LAB_PASSPHRASE"  # noqa: S105 - the name of a variable, not a secret

KEYRING_VARIABLE = "AICO_LAB_KEYRING"
"""The environment variable that is 1 if the operating system's keyring may be asked."""

NEW_PASSPHRASE_VARIABLE = "AICO_LAB_NEW_PASSPHRASE"  # noqa: S105 - the name of a variable
"""The environment variable with a passphrase that `aico-lab keys add` adds."""

KEY_DESCRIPTOR_VARIABLE = "AICO_LAB_KEY_DESCRIPTOR"
"""The environment variable with the number of the open file that hands over a key."""

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""The environment variable with the folder of a service's credentials, which systemd sets."""

PASSPHRASE_CREDENTIAL = "aico-lab.passphrase"  # noqa: S105 - the name of a file
KEY_CREDENTIAL = "aico-lab.key"

SOURCE_KEY_VARIABLE = "AICO_LAB_SOURCE_KEY"
"""The environment variable with the key of another program's encrypted database."""

KEEP_ANSWERS_VARIABLE = "AICO_LAB_KEEP_ANSWERS"
"""The environment variable that switches off, by `no`, that answers of metrics are kept."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The resolved settings of a command or notebook.

    Attributes:
        home: The lab's folder.
        key_file: The given key file, or None for the home's usual one.
        passphrase: The given passphrase, or None.
        keyring: Whether the operating system's keyring may be asked for a passphrase.
        keyring_secret: The secret of a slot that the keyring returned, or None.
    """

    home: Path
    key_file: Path | None = None
    passphrase: str | None = field(default=None, repr=False)
    keyring: bool = False
    keyring_secret: bytes | None = field(default=None, repr=False)

    @classmethod
    def resolve(
        cls,
        *,
        home: Path | str | None = None,
        key_file: Path | str | None = None,
        passphrase: str | None = None,
        keyring: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """Return settings from arguments, or else the environment, or else the platform's defaults.

        A credential that systemd hands over counts as the environment.

        Args:
            home: The lab's folder.
            key_file: The key file.
            passphrase: The passphrase; '' means none, even if the environment has one.
            keyring: Whether the keyring may be asked; if not, the environment decides.
            environment: The variables to read; by default the process's own.
        """
        env = os.environ if environment is None else environment
        named_home = home or env.get(HOME_VARIABLE) or usual_home()
        named_key_file = key_file or env.get(KEY_FILE_VARIABLE) or _credential(env, KEY_CREDENTIAL)
        if passphrase is None:
            passphrase = env.get(PASSPHRASE_VARIABLE)
        handed_over = _credential(env, PASSPHRASE_CREDENTIAL)
        if passphrase is None and handed_over is not None:
            passphrase = handed_over.read_text(encoding="utf-8", errors="replace").rstrip("\r\n")
        return cls(
            home=Path(named_home).expanduser().absolute(),
            key_file=Path(named_key_file).expanduser().absolute() if named_key_file else None,
            passphrase=passphrase,
            keyring=keyring or env.get(KEYRING_VARIABLE) == "1",
        )

    def environment(self) -> dict[str, str]:
        """Return an environment in which another process resolves the same settings.

        It has no secret; `aico_lab.home.handover` hands over the key.
        """
        given = {
            HOME_VARIABLE: str(self.home),
            KEY_FILE_VARIABLE: str(self.key_file) if self.key_file else None,
            KEYRING_VARIABLE: "1" if self.keyring else None,
        }
        others = {name: value for name, value in without_secrets().items() if name not in given}
        return others | {name: value for name, value in given.items() if value is not None}


def without_secrets() -> dict[str, str]:
    """Return the environment of a child process that opens no home."""
    secret = {
        PASSPHRASE_VARIABLE, NEW_PASSPHRASE_VARIABLE, KEY_DESCRIPTOR_VARIABLE, SOURCE_KEY_VARIABLE,
    }  # fmt: skip
    return {name: value for name, value in os.environ.items() if name not in secret}


def _credential(env: Mapping[str, str], name: str) -> Path | None:
    """Return the file of a credential that systemd hands over, or None."""
    folder = env.get(CREDENTIALS)
    path = Path(folder, name) if folder else None
    return path if path is not None and path.is_file() else None


def key_descriptor() -> int | None:
    """Return the number of the open file that hands over a key; None from the second call on.

    The number means nothing to processes below, which do not inherit the file.
    """
    number = os.environ.pop(KEY_DESCRIPTOR_VARIABLE, "")
    return int(number) if number.isdecimal() else None


def new_passphrase_given() -> str | None:
    """Return the passphrase to add to a home, or None if it is not set."""
    return os.environ.get(NEW_PASSPHRASE_VARIABLE) or None


def source_key() -> str | None:
    """Return the key of another program's encrypted database, or None if it is not set."""
    return os.environ.get(SOURCE_KEY_VARIABLE) or None


def keeps_answers() -> bool:
    """Return whether answers of metrics are kept for the next time."""
    return os.environ.get(KEEP_ANSWERS_VARIABLE, "").lower() not in {"no", "false", "0", "off"}


def usual_home(name: str = "aico-lab") -> Path:
    """Return the default folder of a home, in the platform's data folder."""
    return platformdirs.user_data_path(name)


def usual_key_file(home_id: str) -> Path:
    """Return the default path of a home's key file.

    It is outside the home, so that a copied or stolen home does not contain its own key.
    """
    return config_folder() / "keys" / f"{home_id}.key"


def config_folder() -> Path:
    """Return the folder of this package in the platform's folder for configurations."""
    return platformdirs.user_config_path("aico-lab")
