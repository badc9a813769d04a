"""The core tables of a lab: the data model of both source documents in one set of tables.

The ETL relies on the declared types, which keep SQLite's affinity: `TIMESTAMP TEXT` is UTC, ISO
8601 with microseconds and `Z` (fixed width, so that text order is time order), `JSON TEXT` is JSON,
`BOOLEAN INTEGER` is 0 or 1.
"""

from aico_lab.schema.core import (
    conversations,
    embeddings,
    federation,
    integrity,
    item_words,
    operations,
    people,
    personality,
    pipelines,
    privacy,
    search,
    text_index,
)
from aico_lab.schema.registry import SchemaRegistry

CORE = SchemaRegistry()
"""The registry of this package's own schemas."""

CORE.register("system", "core", people.SYSTEM, priority=0)
CORE.register("users", "core", people.USERS, priority=1)
CORE.register("conversations", "core", conversations.CONVERSATIONS, priority=2)
CORE.register("memories", "core", people.MEMORIES, priority=3)
CORE.register("personality", "core", personality.PERSONALITY, priority=4)
CORE.register("operations", "core", operations.OPERATIONS, priority=5)
CORE.register("bus", "core", operations.BUS, priority=6)
CORE.register("search", "core", search.SEARCH, priority=7)
CORE.register("embeddings", "core", embeddings.EMBEDDINGS, priority=8)
CORE.register("text_index", "core", text_index.TEXT_INDEX, priority=9)
CORE.register("pipelines", "core", pipelines.PIPELINES, priority=10)
CORE.register("item_words", "core", item_words.ITEM_WORDS, priority=11)
CORE.register("imports", "core", privacy.IMPORTS, priority=12)
CORE.register("erasures", "core", privacy.ERASURES, priority=13)
CORE.register("integrity", "core", integrity.INTEGRITY, priority=14)
CORE.register("federation", "core", federation.FEDERATION, priority=20)
