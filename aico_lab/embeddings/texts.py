"""The layout of memories in the vector store: one entry, and so one vector, per distinct text.

With many equal vectors, a graph index (HNSW) does not find the others: with 6,000 copies of one
text, 200 queries for the exact text of another memory all failed. So an entry is a text, and its
metadata list the memories that have it, as JSON because Chroma does not take lists of thousands of
values.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aico_lab.adapters.chroma_collection import Metadata

COLLECTION = "memories"

Holder = tuple[str, str]
"""The ids of a memory and of its user."""


def key_of(text: str) -> str:
    """Return the id of a text's entry."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def to_metadata(holders: Iterable[Holder]) -> Metadata:
    """Return the metadata of the entry for the text of these memories."""
    return {"memories": json.dumps(sorted(holders), separators=(",", ":"))}


def holders_of(entry_id: str, metadata: Mapping[str, object]) -> list[Holder]:
    """Return the memories that have the text of an entry, ordered by id.

    In a store of an earlier version an entry is a memory, and so its own only holder.
    """
    written = metadata.get("memories")
    if isinstance(written, str):
        return [(memory_id, user_id) for memory_id, user_id in json.loads(written)]
    return [(entry_id, str(metadata.get("user_id", "")))]
