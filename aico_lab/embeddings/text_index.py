"""Keep the table `text_index` up to date: the hash of each item's text.

The hash is the key of the text's vector in `text_vectors`. The table follows the change feed; it
and its cursor are in the primary database and are written in one transaction. Searches compare
these vectors, and Chroma is brought to their state.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aico_lab.embeddings import segment_words, texts
from aico_lab.embeddings.segment_words import REMEDY
from aico_lab.embeddings.stored_vectors import BATCH, StoredVectors, read_vectors, text_sha256
from aico_lab.errors import OtherModel
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Mapping

    from aico_lab.adapters.libsql import Connection
    from aico_lab.embeddings.encoders import Encoder

REPAIR = "run `aico-lab sync --only vectors`"
"""The end of a sentence about vectors that are missing or damaged."""

# The vectors of all models, also of texts that only an exploration knew.
_FORGET = (
    "DELETE FROM text_vectors WHERE NOT EXISTS "
    "(SELECT 1 FROM text_index AS i WHERE i.text_sha256 = text_vectors.text_sha256)"
)
_STATE = "SELECT model, seq, anchor FROM text_index_state"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The result of an update of `text_index`.

    Attributes:
        mode: 'full' if every text was read, 'increment' if only changed ones were, 'nothing' if no
            item changed.
        written: The number of items added, or whose text changed.
        deleted: The number of items removed.
        skipped: The number of items read that have no vector, because they are blank.
        cursor: The position in the change feed up to which the table is current.
    """

    mode: Literal["full", "increment", "nothing"]
    written: int
    deleted: int
    skipped: int
    cursor: feed.Cursor


@dataclass(slots=True)
class _Change:
    """The texts of a collection that were read.

    Attributes:
        found: The hashes of the texts that were read, by item.
        stored: The hashes in the table of these items, and of items that no longer exist.
        read: The number of items that were read.
    """

    found: dict[str, bytes]
    stored: dict[str, bytes]
    read: int


def cursor(primary: Connection) -> feed.Cursor | None:
    """Return the position of `text_index` in the change feed, or None if it was never filled."""
    model, seq, anchor = primary.fetch_all(_STATE)[0]
    return None if model is None else feed.Cursor(feed.head(primary).database_id, seq, anchor)


def model(primary: Connection) -> str | None:
    """Return the model of the index, or None if it was never filled."""
    found: str | None = primary.fetch_all(_STATE)[0][0]
    return found


def check_model(primary: Connection, encoder: Encoder) -> None:
    """Raise OtherModel if the index has vectors of another model than the encoder's."""
    stored = model(primary)
    if stored not in (None, encoder.model):
        raise OtherModel(
            f"The index has vectors of the model {stored}, which cannot be compared with those of "
            f"{encoder.model}: {REMEDY} to encode all texts with {encoder.model}."
        )


def lacks_vectors(primary: Connection, encoder: Encoder) -> bool:
    """Return whether a text of the index has no vector of the encoder's model and dimensions.

    The numbers of the vectors are not read.
    """
    return bool(
        primary.fetch_all(
            "SELECT 1 FROM text_index AS i WHERE NOT EXISTS (SELECT 1 FROM text_vectors AS v "
            "WHERE v.model = ? AND v.text_sha256 = i.text_sha256 AND typeof(v.vector) = 'blob' "
            "AND length(v.vector) = ?) LIMIT 1",
            [encoder.model, 4 * encoder.dimensions],
        )
    )


def is_complete(primary: Connection, encoder: Encoder) -> bool:
    """Return whether the index has all texts that it should have, each with a readable vector.

    Args:
        primary: The primary database; the index is up to date with the change feed.
        encoder: The encoder of the index's model.
    """
    for collection in texts.COLLECTIONS:
        ids, stored = texts.read_ids(primary, collection), _stored(primary, collection)
        if stored.keys() - ids:
            return False
        absent = texts.read_some(primary, collection, ids - stored.keys())
        if any(encoder.encode_usable([one.text for one in absent])[1]):
            return False
    rows = primary.fetch_all("SELECT DISTINCT text_sha256 FROM text_index")
    keys = [key for (key,) in rows]
    parts = (keys[start : start + BATCH] for start in range(0, len(keys), BATCH))
    return all(
        len(read_vectors(primary, encoder.model, encoder.dimensions, part)) == len(part)
        for part in parts
    )


def refresh(
    primary: Connection,
    encoder: Encoder,
    *,
    full: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Refreshed:
    """Bring `text_index` up to date, store the vectors of its texts, and index segments by words.

    Args:
        primary: The primary database, outside a snapshot.
        encoder: Encodes the texts.
        full: Read every text, and accept another model than before.
        progress: Called with the number of encoded texts and their total.

    Raises:
        OtherModel: The index was made with another model, and `full` is False.
    """
    if not full:
        check_model(primary, encoder)
    while True:
        with primary.snapshot():
            before = primary.fetch_all(_STATE)[0]
            known = cursor(primary)
            target = feed.head(primary)
            follows = not full and known is not None and feed.continues(primary, known)
            needed: dict[bytes, str] = {}
            changes = {
                collection: _compare(
                    primary, collection, known.seq if follows and known else None, target, needed
                )
                for collection in texts.COLLECTIONS
            }
        _, usable = StoredVectors(primary, encoder).of(list(needed.values()), progress)
        unusable = {key for key, use in zip(needed, usable, strict=True) if not use}
        with primary.transaction():
            if primary.fetch_all(_STATE)[0] != before:
                continue  # another process has updated the index meanwhile
            written, deleted, skipped = _write(primary, changes, unusable)
            read = any(change.read or change.stored for change in changes.values())
            if read or not follows:  # a vector can be inverted to something close to its text
                primary.execute(_FORGET)
            primary.execute(
                "UPDATE text_index_state SET model = ?, seq = ?, anchor = ?",
                [encoder.model, target.seq, target.anchor],
            )
        segment_words.refresh(primary, full=full)  # before the feed is pruned up to here
        mode: Literal["full", "increment", "nothing"] = (
            "full" if not follows else "increment" if read else "nothing"
        )
        return Refreshed(mode, written, deleted, skipped, target)


def _compare(
    primary: Connection,
    collection: str,
    since: int | None,
    target: feed.Cursor,
    needed: dict[bytes, str],
) -> _Change:
    """Return the differences between a collection's texts and the table.

    Args:
        primary: The primary database, in a snapshot.
        collection: One of `texts.COLLECTIONS`.
        since: The last change of the feed that the table has; None to read all items.
        target: The end of the feed.
        needed: Receives the texts whose vectors are needed, by hash.
    """
    if since is None:
        items = texts.read_all(primary, collection)
        stored = _stored(primary, collection)
    else:
        ids = texts.changed(primary, collection, since, target.seq)
        items = texts.read_some(primary, collection, ids)
        stored = _stored(primary, collection, ids)
    change = _Change({}, stored, 0)
    for item_id, text in items:
        change.read += 1
        if text.strip():
            change.found[item_id] = key = text_sha256(text)
            if since is None or stored.get(item_id) != key:
                needed[key] = text
    return change


def _stored(
    primary: Connection, collection: str, ids: Collection[str] | None = None
) -> dict[str, bytes]:
    """Return the hashes in the table, by item, of all items of a collection or of some."""
    some = "" if ids is None else "AND item_id IN (SELECT value FROM json_each(?))"
    return dict(
        primary.fetch_all(
            f"SELECT item_id, text_sha256 FROM text_index WHERE collection = ? {some}",
            [collection] if ids is None else [collection, json.dumps(sorted(ids))],
        )
    )


def _write(
    primary: Connection, changes: Mapping[str, _Change], unusable: Container[bytes]
) -> tuple[int, int, int]:
    """Write the differences.

    Args:
        primary: The primary database, in a transaction.
        changes: The texts that were read, by collection.
        unusable: The hashes of texts that have no vector.

    Returns:
        The numbers of items written, deleted, and without a vector.
    """
    written = deleted = skipped = 0
    for collection, change in changes.items():
        usable = {id_: key for id_, key in change.found.items() if key not in unusable}
        new = {id_: key for id_, key in usable.items() if change.stored.get(id_) != key}
        gone = [id_ for id_ in change.stored if id_ not in usable]
        primary.insert_many(
            "text_index",
            ("collection", "item_id", "text_sha256"),
            [(collection, id_, key) for id_, key in new.items()],
            on_conflict="ON CONFLICT (collection, item_id) DO UPDATE "
            "SET text_sha256 = excluded.text_sha256",
        )
        primary.execute_many(
            "DELETE FROM text_index WHERE collection = ? AND item_id = ?",
            [(collection, id_) for id_ in gone],
        )
        written += len(new)
        deleted += sum(id_ not in change.found for id_ in gone)
        skipped += change.read - len(usable)
    return written, deleted, skipped
