"""Publish the files of a report, sealed for its recipients if there are any, and open them.

A sealed report is made in a private folder in RAM where the platform has a RAM disk, as Linux does;
elsewhere in a private folder among the temporary files.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from aico_lab.errors import InvalidValue
from aico_lab.home.files import os_errors, write_atomically
from aico_lab.reports.records import PRIVATE, SEALED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


@contextmanager
def workplace(destination: Path, *, sealed: bool) -> Iterator[Path]:
    """Yield a private folder to make a report in, which is removed after the block.

    Args:
        destination: The folder of the run, which holds the private one unless it is sealed.
        sealed: Whether the report is sealed, so that its plain text reaches no disk.
    """
    if not sealed:
        with (
            os_errors(destination),
            TemporaryDirectory(prefix=PRIVATE, dir=destination) as private,
        ):
            yield Path(private)
        return
    with _private_folder() as private:
        yield private


@contextmanager
def _private_folder() -> Iterator[Path]:
    from aico_lab.adapters.sealed import PrivateFolder

    folder = PrivateFolder()
    try:
        with os_errors(folder.path):
            yield folder.path
    finally:
        folder.remove()


def publish(file: Path, destination: Path, recipients: Collection[str]) -> Path:
    """Move a file into the folder of its run, and return its path there.

    Args:
        file: The finished file in the `workplace`.
        destination: The folder of the run.
        recipients: For whom the file is sealed; its name then ends in `.age`. None for plain text.
    """
    target = destination / file.name
    with os_errors(destination):
        if not recipients:
            return file.replace(target)
        from aico_lab.adapters.age import encrypt

        target = target.with_name(target.name + SEALED)
        write_atomically(target, encrypt(file.read_bytes(), recipients))
    return target


@contextmanager
def opened_page(page: Path, identity: Path | None) -> Iterator[Path]:
    """Yield the path of a page that a browser can open, decrypted if the page is sealed.

    A decrypted page is removed after the block.

    Args:
        page: The page of a run.
        identity: The identity file of one of the recipients of a sealed page.

    Raises:
        InvalidValue: The page is sealed, and no identity file is given.
        WrongKey: The identity file cannot be read, or has no key, or none that opens the page.
        CorruptDatabase: The sealed page is damaged.
        HomeNotWritable: The sealed page cannot be read.
    """
    if page.suffix != SEALED:
        yield page
        return
    if identity is None:
        raise InvalidValue(
            f"{page.name} is sealed: name the identity file of one of its recipients with "
            "--identity."
        )
    from aico_lab.adapters.age import decrypt

    content = decrypt(page, identity)
    with _private_folder() as private:
        plain = private / page.name.removesuffix(SEALED)
        write_atomically(plain, content)
        yield plain
