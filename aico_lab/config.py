"""Where things are and how they are opened: the only reader of the process's environment."""

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

SOURCE_KEY_VARIABLE = "AICO_LAB_SOURCE_KEY"
"""The key of another program's encrypted database."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a command or a notebook was told, resolved.

    Attributes:
        home: The lab's folder.
        key_file: The key file that was named, or None for the home's usual one.
        passphrase: The passphrase that was given, or None.
    """

    home: Path
    key_file: Path | None = None
    passphrase: str | None = field(default=None, repr=False)

    @classmethod
    def resolve(
        cls,
        *,
        home: Path | str | None = None,
        key_file: Path | str | None = None,
        passphrase: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """Take what was given, else the environment, else the platform's usual folder.

        Args:
            home: The lab's folder.
            key_file: A key file.
            passphrase: A passphrase; '' for none, whatever the environment has.
            environment: Variables to read; the process's own by default.
        """
        env = os.environ if environment is None else environment
        named_home = home or env.get(HOME_VARIABLE) or usual_home()
        named_key_file = key_file or env.get(KEY_FILE_VARIABLE)
        return cls(
            home=Path(named_home).expanduser().absolute(),
            key_file=Path(named_key_file).expanduser().absolute() if named_key_file else None,
            passphrase=env.get(PASSPHRASE_VARIABLE) if passphrase is None else passphrase,
        )

    def environment(self) -> dict[str, str]:
        """Give the environment in which another process resolves the same settings.

        A key must not be a notebook's parameter, since those are written into the executed
        notebook; a variable of the environment is not.
        """
        given = {
            HOME_VARIABLE: str(self.home),
            KEY_FILE_VARIABLE: str(self.key_file) if self.key_file else None,
            PASSPHRASE_VARIABLE: self.passphrase,
            SOURCE_KEY_VARIABLE: None,  # a notebook reads the warehouse only
        }
        others = {name: value for name, value in os.environ.items() if name not in given}
        return others | {name: value for name, value in given.items() if value is not None}


def source_key() -> str | None:
    """Give the key of another program's encrypted database, or None where none was set."""
    return os.environ.get(SOURCE_KEY_VARIABLE) or None


def usual_home(name: str = "aico-lab") -> Path:
    """Give a home's place in the platform's data folder, where none was named."""
    return platformdirs.user_data_path(name)


def usual_key_file(home_id: str) -> Path:
    """Give the place of a home's key file where none was named.

    It lies outside the home, so that a copied or stolen home does not bring its own key.
    """
    return platformdirs.user_config_path("aico-lab") / "keys" / f"{home_id}.key"
