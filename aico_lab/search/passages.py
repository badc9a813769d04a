"""Passages that a search found, with their messages and the messages around them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any, Final, overload

from aico_lab.embeddings import texts
from aico_lab.runtime.report_kernel import is_report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import polars as pl

    from aico_lab.adapters.libsql import Connection, Row
    from aico_lab.embeddings.known_texts import Found

AROUND: Final = 3
"""The number of messages of the conversation that are shown before, and after, a passage."""

SHOWN: Final = 200
"""The maximum number of characters of a passage in a list of several."""

UNSEGMENTED: Final = "messages:"
"""The prefix of the id of a passage whose messages are in no segment yet."""

_MESSAGE: Final = """CAST(m.message_id AS BLOB), CAST(coalesce(u.name, m.user_id) AS BLOB),
    CAST(m.user_id AS BLOB), CAST(m.role AS BLOB), CAST(m.timestamp AS BLOB),
    CAST(m.content AS BLOB), m.id, CAST(m.channel_id AS BLOB), CAST(m.conversation_id AS BLOB)"""
_WHO: Final = "LEFT JOIN users AS u ON u.user_id = m.user_id"


@dataclass(frozen=True, slots=True)
class Line:
    """A message in a transcript.

    Attributes:
        message_id: The id of the message.
        name: The name of the person, or the id if there is no name; None if unknown.
        user_id: The id of the person; None if unknown.
        role: 'user', 'assistant' or 'system'.
        timestamp: The time in UTC, as the database stores it.
        content: The text.
    """

    message_id: str
    name: str | None
    user_id: str | None
    role: str
    timestamp: str
    content: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that a search found.

    Attributes:
        id: The id of the segment, memory or chunk of a document.
        source: 'conversations', 'memories' or 'knowledge'.
        text: The text.
        score: The higher, the better: in a semantic search the cosine similarity, in a keyword
            search BM25, in a hybrid search the sum of reciprocal ranks; with `decay`, multiplied by
            its factor.
        metadata: The origin: conversation, channel, people and times, or document and place.
        before: The messages of the conversation before the passage.
        messages: The messages of the passage; none for a memory or a document.
        after: The messages of the conversation after the passage.
    """

    id: str
    source: str
    text: str
    score: float
    metadata: dict[str, Any]
    before: tuple[Line, ...] = ()
    messages: tuple[Line, ...] = ()
    after: tuple[Line, ...] = ()

    def transcript(self) -> str:
        """Return the messages as text, one per line; `>` marks those of the passage."""
        if not self.messages:
            return self.text
        parts = ((" ", self.before), (">", self.messages), (" ", self.after))
        return "\n".join(
            f"{mark} {line.timestamp[:16].replace('T', ' ')} {_speaker(line)}: {line.content}"
            for mark, lines in parts
            for line in lines
        )

    def __repr__(self) -> str:
        if is_report():
            return f"<Passage {self.id}, score {self.score:.3f}, its text is not shown in reports>"
        return f"{_where(self)}, score {self.score:.3f}\n{self.transcript()}"

    def _repr_html_(self) -> str:
        if is_report():
            return f"<p>{escape(repr(self))}</p>"
        return _html(self)


@dataclass(frozen=True, slots=True)
class Passages(Sequence[Passage]):
    """The passages that a search found, the best first.

    Notebooks display them with the messages around them, reports only with `content=True`.

    Attributes:
        query: The text that was searched for.
        mode: 'semantic', 'keyword' or 'hybrid'.
        found: The passages.
        notes: Remarks about the search.
        content: Whether a report shows the texts.
    """

    query: str
    mode: str
    found: tuple[Passage, ...]
    notes: tuple[str, ...] = field(default=())
    content: bool = False

    @overload
    def __getitem__(self, place: int) -> Passage: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Passage]: ...
    def __getitem__(self, place: int | slice) -> Passage | Sequence[Passage]:
        return self.found[place]

    def __len__(self) -> int:
        return len(self.found)

    def objects(self) -> list[dict[str, Any]]:
        """Return the passages as dictionaries with `id`, `text`, `score` and `metadata`."""
        return [
            {"id": one.id, "text": one.text, "score": one.score, "metadata": one.metadata}
            for one in self.found
        ]

    def pl(self) -> pl.DataFrame:
        """Return a polars table with `id`, `source`, `score`, `text` and `metadata` (JSON)."""
        import polars as pl

        rows = [
            (one.id, one.source, one.score, one.text, json.dumps(one.metadata, ensure_ascii=False))
            for one in self.found
        ]
        columns = {
            "id": pl.String, "source": pl.String, "score": pl.Float64,
            "text": pl.String, "metadata": pl.String,
        }  # fmt: skip
        return pl.DataFrame(rows, schema=columns, orient="row")

    def __repr__(self) -> str:
        if self._is_hidden():
            return f"<{self._summary()} Their texts are shown in reports with content=True.>"
        lines = [self._summary()]
        for number, one in enumerate(self.found, 1):
            short = " / ".join(one.text.split("\n"))
            cut = f"{short[: SHOWN - 1]}…" if len(short) > SHOWN else short
            lines.append(f"{number:>3}. {one.score:.3f}  {_where(one)}\n     {cut}")
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        if self._is_hidden():
            return f"<p>{escape(repr(self)[1:-1])}</p>{said}"
        return f"<p>{escape(self._summary())}</p>{''.join(map(_html, self.found))}{said}"

    def _is_hidden(self) -> bool:
        return is_report() and not self.content

    def _summary(self) -> str:
        count = len(self.found)
        return f"{count} passage{'' if count == 1 else 's'} found ({self.mode} search)."


def read(
    primary: Connection, found: Iterable[tuple[str, Found]], around: int = AROUND
) -> list[Passage]:
    """Return the passages of items that a search found, in the same order.

    Items that were deleted meanwhile are left out.

    Args:
        primary: The primary database.
        found: The items found, each with its collection.
        around: The number of messages before, and after, each passage.
    """
    wanted = list(found)
    read_ = {
        texts.SEGMENTS: _segments,
        texts.MEMORIES: _memories,
        texts.KNOWLEDGE: _chunks,
    }
    passages: dict[tuple[str, str], Passage] = {}
    for collection, reader in read_.items():
        ids = [item.item_id for name, item in wanted if name == collection]
        if ids:
            for passage in reader(primary, ids, around):
                passages[collection, passage.id] = passage
    return [
        replace(passages[name, item.item_id], score=item.score)
        for name, item in wanted
        if (name, item.item_id) in passages
    ]


def of_messages(
    primary: Connection, rows: Sequence[Row], score: float, around: int = AROUND
) -> Passage:
    """Return a passage of messages in no segment, from rows with the columns of `columns`."""
    id_ = f"{UNSEGMENTED}{_line(rows[0]).message_id}"
    (passage,) = _surrounded(primary, [(id_, rows, {})], around)
    return replace(passage, score=score)


def columns() -> tuple[str, str]:
    """Return the columns and the join that select a message `m` for `of_messages`."""
    return _MESSAGE, _WHO


def _segments(primary: Connection, ids: Sequence[str], around: int) -> Iterable[Passage]:
    rows = primary.fetch_all(
        f"SELECT CAST(s.segment_id AS BLOB), CAST(s.summary AS BLOB), s.coherence, {_MESSAGE} "
        "FROM json_each(?) AS hit CROSS JOIN conversation_segments AS s "
        "ON s.segment_id = hit.value "
        "CROSS JOIN segment_messages AS sm ON sm.segment_id = s.segment_id "
        f"CROSS JOIN messages AS m ON m.message_id = sm.message_id {_WHO} "
        "ORDER BY hit.key, sm.position, m.timestamp, m.id",
        [json.dumps(ids)],
    )
    groups: dict[bytes, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[0], []).append(row)
    made = [
        (
            _text(key) or "",
            [row[3:] for row in group],
            {"summary": _text(group[0][1]), "coherence": group[0][2]},
        )
        for key, group in groups.items()
    ]
    yield from _surrounded(primary, made, around)


def _surrounded(
    primary: Connection, passages: Sequence[tuple[str, Sequence[Row], dict[str, Any]]], around: int
) -> Iterator[Passage]:
    """Yield passages, given by id, messages and further facts, with the messages around each."""
    before = _next_to(primary, [rows[0][6] for _, rows, _ in passages], "<", "DESC", around)
    after = _next_to(primary, [rows[-1][6] for _, rows, _ in passages], ">", "ASC", around)
    for id_, rows, more in passages:
        lines = tuple(map(_line, rows))
        people = dict.fromkeys(line.user_id for line in lines if line.user_id is not None)
        metadata = {
            "source": "conversations",
            "channel_id": _text(rows[0][7]),
            "conversation_id": _text(rows[0][8]),
            "people": list(people),
            "roles": list(dict.fromkeys(line.role for line in lines)),
            "started_at": lines[0].timestamp,
            "ended_at": lines[-1].timestamp,
            "message_ids": [line.message_id for line in lines],
            **more,
        }
        yield Passage(
            id_,
            "conversations",
            "\n".join(line.content for line in lines if line.content.strip()),
            0.0,
            metadata,
            before.get(rows[0][6], ()),
            lines,
            after.get(rows[-1][6], ()),
        )


def _next_to(
    primary: Connection, edges: Sequence[int], side: str, order: str, around: int
) -> dict[int, tuple[Line, ...]]:
    """Return the messages of the conversation next to each of some messages, in order."""
    if not around:
        return {}
    rows = primary.fetch_all(
        f"SELECT {_MESSAGE}, edge.id FROM json_each(?) AS hit "
        "CROSS JOIN messages AS edge ON edge.id = hit.value CROSS JOIN messages AS m ON m.id IN "
        "(SELECT n.id FROM messages AS n WHERE n.channel_id = edge.channel_id "
        "AND n.conversation_id = edge.conversation_id "
        f"AND (n.timestamp, n.id) {side} (edge.timestamp, edge.id) "
        f"ORDER BY n.timestamp {order}, n.id {order} LIMIT ?) {_WHO} "
        "ORDER BY m.timestamp, m.id",
        [json.dumps(edges), around],
    )
    found: dict[int, list[Line]] = {}
    for row in rows:
        found.setdefault(row[9], []).append(_line(row))
    return {edge: tuple(lines) for edge, lines in found.items()}


def _memories(primary: Connection, ids: Sequence[str], _around: int) -> Iterable[Passage]:
    rows = primary.fetch_all(
        "SELECT CAST(memory_id AS BLOB), CAST(content AS BLOB), CAST(user_id AS BLOB), "
        "CAST(memory_type AS BLOB), importance, CAST(created_at AS BLOB) "
        "FROM json_each(?) AS hit CROSS JOIN memories ON memory_id = hit.value",
        [json.dumps(ids)],
    )
    for id_, content, user_id, kind, importance, created_at in rows:
        metadata = {
            "source": "memories",
            "user_id": _text(user_id),
            "memory_type": _text(kind),
            "importance": importance,
            "created_at": _text(created_at),
        }
        yield Passage(_text(id_) or "", "memories", _text(content) or "", 0.0, metadata)


def _chunks(primary: Connection, ids: Sequence[str], _around: int) -> Iterable[Passage]:
    rows = primary.fetch_all(
        "SELECT CAST(chunk_id AS BLOB), CAST(content AS BLOB), CAST(d.document_id AS BLOB), "
        "CAST(d.name AS BLOB), CAST(place AS BLOB), position, CAST(d.added_at AS BLOB) "
        "FROM json_each(?) AS hit CROSS JOIN knowledge_chunks AS c ON c.chunk_id = hit.value "
        "CROSS JOIN knowledge_documents AS d ON d.document_id = c.document_id",
        [json.dumps(ids)],
    )
    for id_, content, document_id, name, place, position, added_at in rows:
        metadata = {
            "source": "knowledge",
            "document_id": _text(document_id),
            "document": _text(name),
            "place": _text(place),
            "position": position,
            "added_at": _text(added_at),
        }
        yield Passage(_text(id_) or "", "knowledge", _text(content) or "", 0.0, metadata)


def _line(row: Row) -> Line:
    message_id, name, user_id, role, timestamp, content = map(_text, row[:6])
    return Line(message_id or "", name, user_id, role or "", timestamp or "", content or "")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _speaker(line: Line) -> str:
    return line.role if line.role != "user" else line.name or "nobody"


def _where(passage: Passage) -> str:
    facts = passage.metadata
    if passage.source == "knowledge":
        return ", ".join(filter(None, [facts["document"], facts["place"]]))
    if passage.source == "memories":
        return f"memory of {facts['user_id']}, {str(facts['created_at'])[:10]}"
    start = passage.messages[0].timestamp[:16].replace("T", " ")
    return f"{start} UTC, {facts['conversation_id']}"


def _html(passage: Passage) -> str:
    head = f"<b>{passage.score:.3f}</b> {escape(_where(passage))}"
    if not passage.messages:
        body = f"<p style='white-space: pre-wrap'>{escape(passage.text)}</p>"
    else:
        parts = ((0.6, passage.before), (1.0, passage.messages), (0.6, passage.after))
        body = "".join(
            f"<div style='opacity: {opacity}; white-space: pre-wrap'>"
            f"<small>{escape(line.timestamp[:16].replace('T', ' '))}</small> "
            f"<b>{escape(_speaker(line))}</b> {escape(line.content)}</div>"
            for opacity, lines in parts
            for line in lines
        )
    return (
        "<section style='margin: 0 0 1em; padding-left: .7em; border-left: 3px solid #8888'>"
        f"<div>{head}</div>{body}</section>"
    )
