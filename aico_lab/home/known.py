"""The list of encrypted homes that is stored outside of them, on each machine.

Whoever can write the files of a home could exchange its `lab.json` for one that says that the home
is not encrypted; every later message would then be stored in plain text. So a file beside the key
files notes which homes are encrypted, and how often the key of each was changed.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aico_lab.config import config_folder, usual_key_file
from aico_lab.errors import AicoLabError, MarkerAltered
from aico_lab.home.files import private_files, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def note_encrypted(marker: Mapping[str, Any]) -> None:
    """Note that a home is encrypted; a folder that cannot be written is left as it is."""
    file, rotations = _file(marker), int(marker.get("rotations", 0))
    if rotations <= _noted(marker):
        return
    with suppress(OSError, AicoLabError), private_files():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, json.dumps({"rotations": rotations}).encode() + b"\n")


def is_older(marker: Mapping[str, Any]) -> bool:
    """Return whether a marker is older than the last change of the key of its home."""
    return int(marker.get("rotations", 0)) < _noted(marker)


def _noted(marker: Mapping[str, Any]) -> int:
    """Return how often the key of a home was changed, as it was noted; -1 if nothing was."""
    try:
        return int(json.loads(_file(marker).read_bytes())["rotations"])
    except FileNotFoundError:
        return -1
    except (OSError, ValueError, TypeError, KeyError):
        return 0


def refuse_plain(marker: Mapping[str, Any], home: Path) -> None:
    """Refuse a home whose marker says that it is not encrypted, if it was.

    Raises:
        MarkerAltered: This machine has a key file of the home, or has opened it with a key.
    """
    for file in (usual_key_file(str(marker.get("home_id"))), _file(marker)):
        if file.exists():
            raise MarkerAltered(
                f"The lab.json of {home} says that it is not encrypted, but it was, as {file} "
                "shows: restore lab.json from a backup, or remove that file if you know better."
            )


def _file(marker: Mapping[str, Any]) -> Path:
    return config_folder() / "keys" / f"{marker.get('home_id')}.encrypted"
