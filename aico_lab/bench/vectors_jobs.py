"""The jobs of the benchmark of vectors.

The peer gets the same texts and vectors as an unencrypted store, with the texts as documents.
"""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aico_lab.adapters.libsql import NOW
from aico_lab.bench.etl_jobs import import_, write_input
from aico_lab.bench.harness import expect, run_job
from aico_lab.embeddings import text_index, texts
from aico_lab.embeddings.encoders import open_encoder
from aico_lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUERIES: Final = 200
NEAREST: Final = 10
BATCH: Final = 1_000  # entries in one call of the plain loop
ADDED: Final = 20
MANY: Final = 100_000


def prepare(folder: Path, rows: int) -> float:
    """Import real messages."""
    write_input(folder, rows)
    return import_(folder, rows)


def whole(folder: Path, rows: int) -> float:
    """Time segments, vectors and index of all messages, in a copy of the home."""
    shutil.rmtree(folder / "whole", ignore_errors=True)
    shutil.copytree(folder / "home", folder / "whole")
    with Lab.open(folder / "whole") as lab:
        blank = lab.primary.fetch_all("SELECT count(*) FROM messages WHERE trim(content) = ''")
        started = time.perf_counter()
        made = lab.embeddings.update()
        lab.sync_vectors()
        seconds = time.perf_counter() - started
    expect(made.messages + blank[0][0], rows)
    return seconds


def index(folder: Path, _rows: int) -> float:
    """Time the index alone, of texts that have vectors; it is sealed in the end."""
    import chromadb  # noqa: F401 - before the clock starts, as for the peer

    (folder / "whole" / "vectors.age").unlink(missing_ok=True)
    with Lab.open(folder / "whole") as lab:
        lab.primary  # noqa: B018
        started = time.perf_counter()
        lab.sync_vectors()
        return time.perf_counter() - started


def add_loop(folder: Path, _rows: int) -> float:
    """Time a plain loop of ChromaDB's `collection.add` with the same vectors and texts."""
    ids, contents, vectors = _texts(folder)
    np.save(folder / "vectors.npy", vectors)
    (folder / "texts.json").write_text(json.dumps([ids, contents]), encoding="utf-8")
    shutil.rmtree(folder / "bare", ignore_errors=True)
    client = _client(folder)
    started = time.perf_counter()
    collection = client.create_collection(
        "segments", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    )
    for start in range(0, len(ids), BATCH):
        part = slice(start, start + BATCH)
        collection.add(ids=ids[part], embeddings=vectors[part], documents=contents[part])
    client.close()
    return time.perf_counter() - started


def bare_query(folder: Path, _rows: int) -> float:
    """Time queries of ChromaDB alone, by vectors."""
    _, _, vectors = _queries(folder)
    collection = _client(folder).get_collection("segments", embedding_function=None)

    def ask(vector: Any) -> None:
        collection.query(query_embeddings=vector[np.newaxis], n_results=NEAREST)

    return _timed(ask, vectors)


def search(folder: Path, _rows: int) -> float:
    """Time searches of the index by text, which encode the text."""
    _, contents, _ = _queries(folder)
    with Lab.open(folder / "whole") as lab:
        found = lab.memories.index
        return _timed(lambda text: found.nearest(text, NEAREST, texts.SEGMENTS), contents)


def lab_search(folder: Path, _rows: int) -> float:
    """Time searches by meaning that return passages with their transcripts."""
    _, contents, _ = _queries(folder)
    with Lab.open(folder / "whole") as lab:
        return _timed(lambda text: lab.search(text, mode="semantic", k=NEAREST), contents)


def hybrid(folder: Path, _rows: int) -> float:
    """Time searches by meaning and by words for messages, which return transcripts."""
    contents = [text.split("\n")[0] for text in _queries(folder)[1]]
    with Lab.open(folder / "whole") as lab:
        return _timed(lambda text: lab.search(text, k=NEAREST), contents)


def many(folder: Path, _rows: int) -> dict[str, float]:
    """Return the milliseconds of searches for messages among 100,000, as memories of a person."""
    queries = [text.split("\n")[0] for text in _queries(folder)[1]]
    stored = json.loads((folder / "texts.json").read_text(encoding="utf-8"))[1]
    contents = [line for text in stored for line in text.split("\n")]
    shutil.rmtree(folder / "many", ignore_errors=True)
    shutil.copytree(folder / "home", folder / "many")
    with Lab.open(folder / "many") as lab:
        with lab.primary.transaction():
            lab.primary.execute_many(
                "INSERT INTO memories SELECT ?, user_id, ?, 'episodic', 0.5, created_at, NULL "
                "FROM users LIMIT 1",
                [(f"{n}", f"{contents[n % len(contents)]} {n}") for n in range(MANY)],
            )
        text_index.refresh(lab.primary, open_encoder())
        index_ = lab.memories.index
        seconds = {
            "semantic": _timed(lambda text: index_.nearest(text, NEAREST, texts.MEMORIES), queries),
            "hybrid": _timed(lambda text: lab.search(text, source="memories"), queries),
        }
    shutil.rmtree(folder / "many")
    return {f"ms, {mode}, {MANY:,}": 1000 * s / len(queries) for mode, s in seconds.items()}


def increment(folder: Path, _rows: int) -> float:
    """Time the update after 20 new messages of one conversation."""
    import chromadb  # noqa: F401 - before the clock starts, as for the peer

    with Lab.open(folder / "whole") as lab:
        lab.primary.execute(
            "INSERT INTO messages (message_id, channel_id, conversation_id, user_id, role, content,"
            f" timestamp) SELECT hex(randomblob(8)), channel_id, conversation_id, user_id, role, "
            f"content, {NOW} FROM messages ORDER BY id LIMIT {ADDED}"
        )
        started = time.perf_counter()
        lab.embeddings.update()
        lab.sync_vectors()
        return time.perf_counter() - started


def recall(folder: Path, _rows: int) -> dict[str, float]:
    """Return the recall of the ten nearest passages, by a search and by Chroma's index."""
    with Lab.open(folder / "whole") as lab:
        audit = lab.embeddings.audit()
    segments = next(one for one in audit.collections if one.collection == texts.SEGMENTS)
    return {
        "passages": segments.items,
        "recall@10": segments.recall or 0,
        "recall@10 of Chroma": segments.recall_of_chroma or 0,
        "recall@10, filtered": segments.recall_filtered or 0,
        "MB on disk": audit.bytes / 1e6,
    }


def _texts(folder: Path) -> tuple[list[str], list[str], Any]:
    """Return the ids, texts and vectors of the distinct passages."""
    with Lab.open(folder / "whole") as lab:
        found = {
            text: item_id
            for item_id, text in texts.read_all(lab.primary, texts.SEGMENTS)
            if text.strip()
        }
        vectors, usable = open_encoder().encode_usable(list(found))
    kept = [(id_, text) for (text, id_), use in zip(found.items(), usable, strict=True) if use]
    return [id_ for id_, _ in kept], [text for _, text in kept], vectors


def _queries(folder: Path) -> tuple[list[str], list[str], Any]:
    """Return the ids, texts and vectors of some passages to search for."""
    ids, contents = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    vectors = np.load(folder / "vectors.npy")
    step = max(1, len(ids) // QUERIES)
    part = slice(0, step * QUERIES, step)
    return ids[part], contents[part], vectors[part]


def _timed(ask: Callable[[Any], object], queries: Any) -> float:
    """Return the seconds of all queries, after the first ones have opened everything."""
    for query in queries[:2]:
        ask(query)
    started = time.perf_counter()
    for query in queries:
        ask(query)
    return time.perf_counter() - started


def _client(folder: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(str(folder / "bare"), Settings(anonymized_telemetry=False))


SETUP: dict[str, Callable[[Path, int], float]] = {"prepare": prepare}
JOBS: dict[str, Callable[[Path, int], float | dict[str, float]]] = {
    "whole": whole,
    "index": index,
    "add-loop": add_loop,
    "bare-query": bare_query,
    "search": search,
    "lab-search": lab_search,
    "hybrid": hybrid,
    "many": many,
    "recall": recall,
    "increment": increment,
}

if __name__ == "__main__":
    run_job(SETUP | JOBS)
