"""Export conversations for others: Parquet, ConvoKit's corpus format, counts, and a data sheet."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.age import read_recipients
from aico_lab.errors import InvalidValue
from aico_lab.home.files import os_errors, private_files
from aico_lab.home.folder import Home
from aico_lab.messages.named import find_ids
from aico_lab.period import start_of
from aico_lab.privacy.data_sheet import as_text, data_sheet
from aico_lab.privacy.redaction import TextRedactor
from aico_lab.privacy.shared_files import (
    Content,
    CorpusWriter,
    ExportFiles,
    SharedCounts,
    SharedMessage,
    schema_of,
    value_of,
    write_days,
)
from aico_lab.privacy.study import Study
from aico_lab.sources.tables.roles import WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date
    from pathlib import Path

    from aico_lab.storage import Storage

LEAST_PEOPLE: Final = 5
_AT_ONCE: Final = 10_000  # messages

_SAFE_METADATA: Final = {
    "attachments": ("kind",),
    "reactions": ("emoji", "count"),
    "media": (),
    "timestamp_estimated": (),
}
"""What says nothing about who wrote, with the fields of its items, where not all is shared."""

_NO_NAMES: Final = frozenset(WORDS) | {"unknown", "nobody", "anonymous", "everyone"}
"""Ids of people that are words, such as `me` and `user`."""

_QUERY: Final = """
    SELECT m.message_id, m.conversation_id, m.channel_id, m.user_id, m.role, m.content,
        epoch_us(m.timestamp) AS at_us, m.sentiment_score, m.response_time, m.reply_to, m.metadata,
        t.n_words, length(m.content) AS n_characters, coalesce(t.user_id, m.user_id) AS person
    FROM raw.messages m LEFT JOIN mart.messages t USING (id)
    WHERE ($since IS NULL OR epoch_ms(m.timestamp) >= $since)
        AND ($people IS NULL OR list_contains($people, coalesce(t.user_id, m.user_id)))
    ORDER BY m.id
"""


@dataclass(frozen=True, slots=True)
class SharedExport:
    """The result of an export.

    Attributes:
        folder: The folder with the files.
        files: Their names.
        messages: The number of exported messages.
        people: The number of people who wrote them.
        left_out: The number of messages that the period or the people left out.
        removed: What was removed from texts, by kind: NAME, NUMBER, ADDRESS.
        suppressed: The number of counts that were left out because too few people were in them.
    """

    folder: str
    files: tuple[str, ...]
    messages: int
    people: int
    left_out: int
    removed: dict[str, int]
    suppressed: int


@dataclass(slots=True)
class SharingRules:
    """How messages are changed before they are shared."""

    study: Study | None
    shift: bool
    content: Content
    redactor: TextRedactor
    shifts: dict[str, int] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    def apply(self, message: SharedMessage) -> SharedMessage:
        """Return a message as it is shared."""
        named = self._pseudonym
        text = message.content if self.content == "full" else ""
        if self.content == "redacted":
            text = self.redactor.redact(message.content)
        return message._replace(
            message_id=self._message(message.conversation_id, message.message_id),
            conversation_id=named("conversation", message.conversation_id),
            channel_id=named("channel", message.channel_id),
            user_id=message.user_id and named("person", message.user_id),
            person=message.person and named("person", message.person),
            reply_to=message.reply_to and self._message(message.conversation_id, message.reply_to),
            content=text,
            at_us=message.at_us + self.shifts.get(message.conversation_id, 0) * 1000,
            metadata=self._metadata(message.metadata),
        )

    def _pseudonym(self, kind: str, id_: str) -> str:
        return id_ if self.study is None else self.study.pseudonym(kind, id_)

    def _message(self, conversation: str, id_: str) -> str:
        if self.study is None:
            return id_
        return self.study.pseudonym("message", f"{conversation}\0{id_}")

    def _metadata(self, stored: str | None) -> str | None:
        if stored is None or (self.study is None and self.content == "full"):
            return stored
        facts = json.loads(stored)
        if not isinstance(facts, dict):
            return None
        self.dropped.update(name for name in facts if name not in _SAFE_METADATA)
        kept = {
            name: [
                {part: one[part] for part in parts if part in one}
                for one in facts[name]
                if isinstance(one, dict)
            ]
            if parts and isinstance(facts[name], list)
            else facts[name]
            for name, parts in _SAFE_METADATA.items()
            if name in facts and (parts == () or isinstance(facts[name], list))
        }
        return json.dumps(kept) if kept else None


def share(
    storage: Storage,
    folder: Path,
    *,
    content: Content = "redacted",
    pseudonymise: bool = False,
    study: str = "default",
    shift_times: bool = False,
    since: str | date | None = None,
    user: str | Sequence[str] | None = None,
    min_people: int = LEAST_PEOPLE,
    encrypt: Sequence[str] = (),
) -> SharedExport:
    """Export the messages of the newest (or pinned) snapshot into a new folder.

    Args:
        storage: The opened home.
        folder: The folder, which does not exist or is empty.
        content: 'none' leaves texts out, 'redacted' removes names, numbers and addresses by rules,
            'full' keeps them.
        pseudonymise: Replace the ids of people, channels, conversations and messages.
        study: The name of the study within which pseudonyms stay the same.
        shift_times: Shift the times of each person by whole weeks; only with `pseudonymise`.
        since: The first day or moment, or a span back from the last message: '30d', '4w'.
        user: Only the conversations of these people with the companion: ids or names.
        min_people: Leave out counts of fewer people.
        encrypt: The age recipients for whom the files are encrypted; none for plain text.

    Raises:
        InvalidValue: The folder has files or is inside a home, or an option is invalid.
        UnknownName: There is no such person.
        NeverSynced: There is no snapshot yet.
        DiskFull: There is no room; nothing is left in the folder.
    """
    folder = folder.expanduser().absolute()
    _check_folder(folder)
    if shift_times and not pseudonymise:
        raise InvalidValue("Shifted times hide nothing beside ids: add --pseudonymise.")
    if content not in ("none", "redacted", "full"):
        raise InvalidValue(f"The content is 'none', 'redacted' or 'full', not {content!r}.")
    if min_people < 1:
        raise InvalidValue("The fewest people of a count are 1.")
    if encrypt:
        read_recipients(encrypt)
    ids = None if user is None else list(find_ids(storage.primary, "user", user))
    rules = SharingRules(
        study=Study.of(storage.primary, study) if pseudonymise else None,
        shift=shift_times,
        content=content,
        redactor=TextRedactor(_names(storage) if content == "redacted" else ()),
    )
    if rules.study is not None and shift_times:
        rules.shifts = _shifts(storage, rules.study)
    partial = folder.with_name(f".{folder.name}.partial")
    with private_files(), os_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        try:
            files = ExportFiles(partial, list(encrypt))
            chosen = _start(storage, since), ids
            done = _write(storage, files, rules, chosen, min_people)
            sheet = data_sheet(
                done,
                rules,
                generation=storage.reader.generation,
                total=_ask(storage, "SELECT count(*) FROM raw.messages")[0][0],
                min_people=min_people,
                since=since,
                chosen=ids,
            )
            files.write("data_sheet.json", json.dumps(sheet, indent=2).encode())
            files.write("data_sheet.md", as_text(sheet).encode())
            if folder.exists():
                folder.rmdir()
            partial.replace(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return SharedExport(
        folder=str(folder),
        files=tuple(sorted(files.names)),
        messages=done.messages,
        people=len(done.people),
        left_out=sheet["left_out"],
        removed=dict(rules.redactor.removed),
        suppressed=done.suppressed,
    )


def _check_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidValue(f"{folder} exists and is not empty: name a new folder.")
    for parent in folder.resolve().parents:
        if Home(parent).marker.exists():
            raise InvalidValue(f"{folder} is inside the home {parent}: name a folder elsewhere.")


def _start(storage: Storage, since: str | date | None) -> int | None:
    if since is None:
        return None
    newest = _ask(
        storage, "SELECT max(epoch_ms(timestamp)) FROM raw.messages WHERE timestamp <= now()"
    )[0][0]
    return start_of(since, storage.timezone, newest or 0)


def _ask(storage: Storage, query: str) -> list[tuple[Any, ...]]:
    relation = storage.reader.sql(query)
    assert relation is not None  # noqa: S101 - for the types
    rows: list[tuple[Any, ...]] = relation.fetchall()
    return rows


def _names(storage: Storage) -> list[str]:
    """Return the names of people, and ids that look like names."""
    rows = _ask(
        storage,
        "SELECT name FROM raw.users UNION SELECT other FROM raw.relationships UNION "
        "SELECT user_id FROM raw.users WHERE regexp_full_match(user_id, '\\p{L}{3,}')",
    )
    return [name for (name,) in rows if name and name.casefold() not in _NO_NAMES]


def _shifts(storage: Storage, study: Study) -> dict[str, int]:
    """Return the shift of each conversation: that of its person, or its own if it has several."""
    rows = _ask(
        storage,
        "SELECT conversation_id, count(DISTINCT user_id), min(user_id) FROM raw.messages "
        "WHERE user_id IS NOT NULL GROUP BY 1",
    )
    shifts: dict[str, int] = defaultdict(int)
    for conversation, people, person in rows:
        shifts[conversation] = study.shift_ms(person if people == 1 else f"in {conversation}")
    for (conversation,) in _ask(storage, "SELECT DISTINCT conversation_id FROM raw.messages"):
        if conversation not in shifts:
            shifts[conversation] = study.shift_ms(f"in {conversation}")
    return shifts


def _write(
    storage: Storage,
    files: ExportFiles,
    rules: SharingRules,
    chosen: tuple[int | None, list[str] | None],
    min_people: int,
) -> SharedCounts:
    import pyarrow as pa
    import pyarrow.parquet as pq

    done, schema = SharedCounts(), schema_of(rules.content)
    with (
        files.open("messages.parquet") as table,
        files.open("corpus/utterances.jsonl") as utterances,
        pq.ParquetWriter(table, schema, compression="zstd") as writer,
    ):
        corpus = CorpusWriter(utterances)
        for messages in _messages(storage, *chosen):
            shared = [rules.apply(message) for message in messages]
            for one in shared:
                done.count(one)
                corpus.add(one)
            columns = {name: [value_of(one, name) for one in shared] for name in schema.names}
            writer.write_table(pa.table(columns, schema=schema))
    corpus.finish(files)
    write_days(files, done, min_people)
    return done


def _messages(
    storage: Storage, since: int | None, people: list[str] | None
) -> Iterator[list[SharedMessage]]:
    relation = storage.reader.sql(_QUERY, {"since": since, "people": people})
    assert relation is not None  # noqa: S101 - for the types
    for batch in relation.to_arrow_reader(_AT_ONCE):
        yield [
            SharedMessage(*row) for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)
        ]
