"""How memories lie in the vector store: one entry, and so one vector, for each distinct text.

An index by a graph of neighbours (HNSW) loses everything else behind many equal vectors: with 6,000
times the same text, the exact text of another memory was found in none of 200 queries. So an entry
is a text, and its metadata name the memories that have it. They are JSON, since Chroma takes no
lists of some thousand values.
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
"""The ids of a memory and of the person whose it is."""


def key_of(text: str) -> str:
    """Return the id of a text's entry."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def to_metadata(holders: Iterable[Holder]) -> Metadata:
    """Return the metadata of an entry whose text these memories have."""
    return {"memories": json.dumps(sorted(holders), separators=(",", ":"))}


def holders_of(entry_id: str, metadata: Mapping[str, object]) -> list[Holder]:
    """Return the memories that have the text of an entry, by id.

    In a store of an earlier version an entry is a memory: it is its own only holder.
    """
    written = metadata.get("memories")
    if isinstance(written, str):
        return [(memory_id, user_id) for memory_id, user_id in json.loads(written)]
    return [(entry_id, str(metadata.get("user_id", "")))]
