"""Hand the opened key of a home to a process that this one starts.

A passphrase in an environment variable can be read in `/proc`, is inherited by every process below,
and may be printed by a cell of a notebook. So a kernel, a step of a pipeline or its command
inherits an open file without a name instead, which holds the unwrapped key; the environment has
only its number. On Linux it is a file in memory, which can be read several times, by all commands
of a script; elsewhere a pipe, which the first reader empties.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aico_lab.config import KEY_DESCRIPTOR_VARIABLE, PASSPHRASE_VARIABLE, key_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.config import Settings
    from aico_lab.home.keys import Keys

_MOST: Final = 4096  # bytes; a pipe holds them without a reader
_MARK: Final = "aico-lab key"


@dataclass(frozen=True, slots=True)
class HandedKey:
    """The key that the parent of this process handed over.

    Attributes:
        home_id: The id of the home.
        master: The master key.
        former: The master key before, while a rotation is unfinished.
    """

    home_id: str
    master: bytes = field(repr=False)
    former: bytes | None = field(repr=False)


_received: list[HandedKey] = []


@contextlib.contextmanager
def inheritable(
    home_id: str, keys: Keys, settings: Settings
) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """Open the file for a process that is started in the block.

    Args:
        home_id: The id of the home.
        keys: The opened keys.
        settings: The settings of the home.

    Yields:
        The environment of the process, and the descriptors that it inherits. On Windows a process
        inherits no file by its number, so its environment has the passphrase.
    """
    environment = settings.environment()
    if keys.master is None or os.name != "posix":
        if settings.passphrase:
            environment[PASSPHRASE_VARIABLE] = settings.passphrase
        yield environment, ()
        return
    former = keys.former.hex() if keys.former else None
    handed = {"mark": _MARK, "home_id": home_id, "master": keys.master.hex(), "former": former}
    content = json.dumps(handed).encode()
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("aico-lab", os.MFD_CLOEXEC)
        os.write(descriptor, content)
    else:
        descriptor, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
    try:
        yield environment | {KEY_DESCRIPTOR_VARIABLE: str(descriptor)}, (descriptor,)
    finally:
        os.close(descriptor)


def received(home_id: str) -> HandedKey | None:
    """Return the key of a home that the parent of this process handed over, or None."""
    receive()
    return next((one for one in _received if one.home_id == home_id), None)


def receive() -> None:
    """Read and close the file, if there is one, so that no process below inherits it."""
    if (descriptor := key_descriptor()) is None:
        return
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(_read(descriptor))
        if found["mark"] != _MARK:
            return
        os.close(descriptor)
        master, former = (
            bytes.fromhex(found[name]) if found[name] else b"" for name in ("master", "former")
        )
        _received.append(HandedKey(found["home_id"], master, former or None))


def _read(descriptor: int) -> bytes:
    """Return the content of the file, which is left as it is in memory, and emptied as a pipe.

    Raises:
        OSError: The number is that of no such file, as below a process that did not pass it on.
    """
    if hasattr(os, "memfd_create"):
        return os.pread(descriptor, _MOST, 0)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):  # reading might wait for ever
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return os.read(descriptor, _MOST)
