"""`lab.knowledge`: people's own documents."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aico_lab.adapters.libsql import NOW
from aico_lab.errors import SourceError, SourceMissing, UnknownName, did_you_mean
from aico_lab.home.files import private_files
from aico_lab.knowledge import reading
from aico_lab.messages.simulated import refuse_if_simulated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.knowledge.chunks import Chunk
    from aico_lab.storage import Storage


@dataclass(frozen=True, slots=True)
class Document:
    """A document.

    Attributes:
        document_id: The id, derived from the path.
        name: The name of the file.
        kind: 'markdown', 'text' or 'pdf'.
        added_at: The time at which its newest version was added, in UTC, ISO 8601.
        chunks: The number of its chunks.
        path: The path of the file; None if another program stored the document without one.
    """

    document_id: str
    name: str
    kind: str
    added_at: str
    chunks: int
    path: str | None


@dataclass(frozen=True, slots=True)
class Added:
    """The result of adding a file.

    Attributes:
        path: The file.
        outcome: 'added', 'replaced' if another version of the file was known, 'unchanged', or
            'failed'.
        chunks: The number of its chunks.
        error: The reason of a failure, with a remedy; None if there is none.
    """

    path: str
    outcome: Literal["added", "replaced", "unchanged", "failed"]
    chunks: int = 0
    error: str | None = None


class Knowledge:
    """Adds documents, lists and removes them; `lab.search(TEXT, source="knowledge")` finds them."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @private_files()
    def add(self, *paths: Path | str) -> list[Added]:
        """Add files, or replace the chunks of those that changed.

        A file is known by its content, wherever it is, and a new version of it by its path. For a
        file that does not exist or cannot be read, the outcome is 'failed'; the others are added.

        Args:
            paths: Markdown, text and PDF files, or folders with some.

        Raises:
            SourceMissing: There is no document in a folder; then nothing is added.
            WrongUse: The data of the home are simulated.
        """
        primary = self._storage.primary
        refuse_if_simulated(primary)
        return [_add(primary, path) for path in list(_files(paths))]

    def list(self) -> list[Document]:
        """Return the documents, by name."""
        rows = self._storage.primary.fetch_all(
            "SELECT document_id, name, kind, added_at, (SELECT count(*) FROM knowledge_chunks AS c "
            "WHERE c.document_id = d.document_id), metadata FROM knowledge_documents AS d "
            "ORDER BY name, document_id"
        )
        return [
            Document(id_, name, kind, added_at, chunks, json.loads(metadata or "{}").get("path"))
            for id_, name, kind, added_at, chunks, metadata in rows
        ]

    @private_files()
    def remove(self, name: str) -> Document:
        """Remove a document, given by its name, its path or its id, and return it.

        Raises:
            UnknownName: No document has that name, path or id, or several have that name.
        """
        known = Knowledge.list(self)
        found = [one for one in known if name in (one.document_id, one.path)]
        found = found or [one for one in known if one.name == name]
        if not found:
            end = did_you_mean(
                name, [one.name for one in known], ": see `aico-lab knowledge list`."
            )
            raise UnknownName(f"There is no document {name!r}{end}")
        if len(found) > 1:
            raise UnknownName(
                f"{len(found)} documents have the name {name!r}: give the id of one, see "
                "`aico-lab knowledge list`."
            )
        self._storage.primary.execute(
            "DELETE FROM knowledge_documents WHERE document_id = ?", [found[0].document_id]
        )
        return found[0]

    def __repr__(self) -> str:
        return "<Knowledge: .add(FILE, …), .list() and .remove(NAME) of documents>"


def _files(paths: Iterable[Path | str]) -> Iterable[Path]:
    """Yield the files, those of a folder in order of their paths."""
    for given in paths:
        path = Path(given).expanduser().absolute()
        if not path.is_dir():
            yield path
            continue
        found = sorted(
            one
            for one in path.rglob("*")
            if one.suffix.lower() in reading.KINDS and one.is_file() and one.name[0] != "."
        )
        if not found:
            raise SourceMissing(f"There is no .md, .txt or .pdf file in {path}: name another one.")
        yield from found


def _add(primary: Connection, path: Path) -> Added:
    document_id = hashlib.sha256(str(path).encode(errors="surrogateescape")).hexdigest()[:16]
    try:
        content = reading.content_of(path)
        sha256 = hashlib.sha256(content).hexdigest()
        known = primary.fetch_all(
            "SELECT document_id, sha256, (SELECT count(*) FROM knowledge_chunks AS c "
            "WHERE c.document_id = d.document_id), metadata FROM knowledge_documents AS d "
            "WHERE document_id = ? OR sha256 = ?",
            [document_id, sha256],
        )
        is_known = any(id_ == document_id for id_, *_ in known)
        # The content of another file does not make a new version of this one unnecessary: each
        # file has the text that it has on the disk.
        for id_, stored, chunks_, metadata in known:
            is_this = id_ == document_id
            if stored == sha256 and (is_this or not (is_known or _is_other_now(metadata, sha256))):
                return Added(str(path), "unchanged", chunks_)
        kind = reading.KINDS[path.suffix.lower()]
        chunks = reading.read(path.name, kind, content)
    except SourceError as error:
        return Added(str(path), "failed", error=str(error))
    with primary.transaction():
        _write(primary, document_id, path, sha256, chunks)
    return Added(str(path), "replaced" if is_known else "added", len(chunks))


def _is_other_now(metadata: str | None, sha256: str) -> bool:
    """Return whether the file of a document exists with another content than the stored one."""
    path = json.loads(metadata or "{}").get("path")
    try:
        content = reading.content_of(Path(path)) if path else None
    except SourceError:  # it was moved, for example
        return False
    return content is not None and hashlib.sha256(content).hexdigest() != sha256


def _write(
    primary: Connection, document_id: str, path: Path, sha256: str, chunks: Sequence[Chunk]
) -> None:
    """Write a document and its new chunks, and delete the chunks that it no longer has."""
    kind = reading.KINDS[path.suffix.lower()]
    shown = str(path).encode(errors="replace").decode()
    primary.execute(
        "INSERT INTO knowledge_documents (document_id, name, kind, sha256, added_at, metadata) "
        f"VALUES (?, ?, ?, ?, {NOW}, ?) ON CONFLICT (document_id) DO UPDATE SET "
        "sha256 = excluded.sha256, added_at = excluded.added_at",
        [document_id, Path(shown).name, kind, sha256, json.dumps({"path": shown})],
    )
    rows = {
        _chunk_id(document_id, position, chunk): (position, chunk.place, chunk.content)
        for position, chunk in enumerate(chunks)
    }
    there = {
        chunk_id
        for (chunk_id,) in primary.fetch_all(
            "SELECT chunk_id FROM knowledge_chunks WHERE document_id = ?", [document_id]
        )
    }
    primary.execute_many(
        "DELETE FROM knowledge_chunks WHERE chunk_id = ?", [(id_,) for id_ in there - rows.keys()]
    )
    primary.insert_many(
        "knowledge_chunks",
        ("chunk_id", "document_id", "position", "place", "content"),
        [(id_, document_id, *row) for id_, row in rows.items() if id_ not in there],
    )


def _chunk_id(document_id: str, position: int, chunk: Chunk) -> str:
    parts = json.dumps([position, chunk.place, chunk.content])
    return f"{document_id}-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"
