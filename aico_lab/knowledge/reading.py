"""Read the chunks of Markdown, text and PDF files."""

from __future__ import annotations

import codecs
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import SourceMissing, SourceUnreadable
from aico_lab.knowledge import chunks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.knowledge.chunks import Chunk

KINDS: Final = {
    ".md": "markdown", ".markdown": "markdown", ".txt": "text", ".text": "text", ".pdf": "pdf",
}  # fmt: skip
"""The kinds of documents by the suffixes of their files, in lower case."""

LARGEST: Final = 100 << 20
"""The size in bytes of the largest file that is read."""

_BOMS: Final = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def content_of(path: Path) -> bytes:
    """Return the bytes of a document.

    Raises:
        SourceMissing: There is no such file.
        SourceUnreadable: The file is no regular file, of no known kind, too large, empty, or cannot
            be read.
    """
    if not path.exists():
        raise SourceMissing(f"There is no file {path}: name an existing one.")
    if not path.is_file():  # reading a named pipe waits for another program, without end
        raise SourceUnreadable(f"{path.name} is not a regular file: copy its content into one.")
    if path.suffix.lower() not in KINDS:
        raise SourceUnreadable(
            f"{path.name} is neither Markdown (.md), text (.txt) nor PDF (.pdf): convert it first."
        )
    try:
        if path.stat().st_size > LARGEST:
            raise SourceUnreadable(
                f"{path.name} is larger than {LARGEST >> 20} MB: split it into smaller files."
            )
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SourceUnreadable(
            f"{path.name} cannot be read ({reason}): check its permissions and the disk."
        ) from error
    if not content.strip():
        raise SourceUnreadable(f"{path.name} is empty: there is nothing to find in it.")
    return content


def read(name: str, kind: str, content: bytes) -> list[Chunk]:
    """Return the chunks of a document.

    Args:
        name: The file's name, for errors.
        kind: 'markdown', 'text' or 'pdf'.
        content: The file's bytes.

    Raises:
        SourceUnreadable: The document is damaged, encrypted, not text, or has no text.
    """
    if kind == "pdf":
        return _pdf(name, content)
    text = _decoded(name, content)
    found = list(chunks.of_markdown(text) if kind == "markdown" else chunks.of_text(text))
    if not found:
        raise SourceUnreadable(f"{name} has no text: there is nothing to find in it.")
    return found


def _decoded(name: str, content: bytes) -> str:
    encoding = next((code for bom, code in _BOMS.items() if content.startswith(bom)), None)
    try:
        if encoding is None and b"\0" in content:
            raise SourceUnreadable(f"{name} is not text: name a Markdown, text or PDF file.")
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        if encoding is not None:
            raise SourceUnreadable(f"{name} is damaged: save it again as UTF-8.") from None
        text = content.decode("cp1252", errors="replace")
    return _UNSTORABLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def _pdf(name: str, content: bytes) -> list[Chunk]:
    import io

    import pypdf
    from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it logs every flaw of a file
    locked = f"{name} is encrypted: save a copy of it without a password first."
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise SourceUnreadable(locked)
        pages = len(reader.pages)
        found = [
            chunk
            for number, text in _texts(reader)
            for chunk in chunks.of_text(_UNSTORABLE.sub("", text), f"page {number}")
        ]
    except (SourceUnreadable, MemoryError):
        raise
    except (DependencyError, FileNotDecryptedError):
        raise SourceUnreadable(locked) from None
    except Exception as error:
        if isinstance(error, LimitReachedError):
            raise SourceUnreadable(
                f"{name} holds more than can be read (a compressed part is too large when it is "
                "opened): split it into smaller files."
            ) from error
        raise SourceUnreadable(f"{name} is damaged: export the PDF again.") from error
    if not pages:
        raise SourceUnreadable(f"{name} has no pages: there is nothing to find in it.")
    if not found:
        raise SourceUnreadable(
            f"{name} has pages without text, such as scanned ones: make its text searchable (OCR) "
            "first."
        )
    return found


def _texts(reader: Any) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each page."""
    for number, page in enumerate(reader.pages, 1):
        yield number, page.extract_text()
