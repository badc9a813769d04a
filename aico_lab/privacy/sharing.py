"""Export conversations for others: Parquet, ConvoKit's corpus format, counts, and a data sheet."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.age import read_recipients
from aico_lab.errors import InvalidValue
from aico_lab.home.files import held, os_errors, private_files
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
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import date
    from pathlib import Path

    from aico_lab.storage import Storage

LEAST_PEOPLE: Final = 5
_AT_ONCE: Final = 10_000  # messages
_SECOND_US: Final = 1_000_000

_KINDS: Final = frozenset(
    {
        "animation", "audio", "call", "card", "contact", "document", "embed", "file", "gif",
        "image", "link", "location", "music", "other", "photo", "picture", "poll", "sticker",
        "text", "video", "voice", "voice_message", "video_message",
    }
)  # fmt: skip
_SUBTYPES: Final = frozenset(
    {
        "3gpp", "aac", "avif", "bmp", "csv", "flac", "gif", "heic", "heif", "html", "jpeg", "jpg",
        "json", "m4a", "markdown", "mov", "mp3", "mp4", "mpeg", "ogg", "opus", "pdf", "plain",
        "png", "quicktime", "svg+xml", "tiff", "wav", "webm", "webp", "x-m4a", "x-wav", "zip",
    }
)  # fmt: skip
_MOST_REACTIONS: Final = 1000
"""The number from which a count of reactions may be another number, as that of a phone."""

_LONGEST_EMOJI: Final = 16  # code points


def _is_kind(value: Any) -> bool:
    """Return whether a value is a kind of media, as `photo` or `image/png`."""
    if not isinstance(value, str):
        return False
    kind, slash, subtype = value.partition("/")
    return kind in _KINDS and (not slash or subtype in _SUBTYPES)


def _is_emoji(value: Any) -> bool:
    """Return whether a text has symbols only, and none of the letters of a name."""
    return (
        isinstance(value, str) and len(value) <= _LONGEST_EMOJI and not any(map(str.isalnum, value))
    )


_SAFE_METADATA: Final[dict[str, Any]] = {
    "attachments": {"kind": _is_kind},
    "reactions": {
        "emoji": _is_emoji,
        "count": lambda value: type(value) is int and 0 <= value < _MOST_REACTIONS,
    },
    "media": _is_kind,
    "timestamp_estimated": lambda value: value is True,
}
"""The metadata that do not tell who wrote, with the check of each value."""

_NO_NAMES: Final = frozenset(WORDS) | {"unknown", "nobody", "anonymous", "everyone"}
"""Ids of people that are words, such as `me` and `user`."""

_QUERY: Final = """
    SELECT m.message_id, m.conversation_id, m.channel_id, m.user_id, m.role, m.content,
        epoch_us(m.timestamp) AS at_us, m.sentiment_score, m.response_time, m.reply_to, m.metadata,
        t.n_words, length(m.content) AS n_characters, coalesce(t.user_id, m.user_id) AS person
    FROM raw.messages m LEFT JOIN mart.messages t USING (id)
        LEFT JOIN (SELECT unnest($order) AS named, generate_subscripts($order, 1) AS place) AS o
            ON o.named = m.conversation_id
    WHERE ($since IS NULL OR epoch_ms(m.timestamp) >= $since)
        AND ($people IS NULL OR list_contains($people, coalesce(t.user_id, m.user_id)))
    ORDER BY o.place, m.id
"""
"""The messages; `$order` has the conversations in the order of their pseudonyms, else nothing."""


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
            message_id=named("message", message.message_id),
            conversation_id=named("conversation", message.conversation_id),
            channel_id=named("channel", message.channel_id),
            user_id=message.user_id and named("person", message.user_id),
            person=message.person and named("person", message.person),
            reply_to=message.reply_to and named("message", message.reply_to),
            content=text,
            at_us=self._moment(message),
            metadata=self._metadata(message.metadata),
        )

    def _moment(self, message: SharedMessage) -> int:
        if not self.shift:
            return message.at_us
        # Fractions of a second would tell messages of two studies that are the same.
        at_us = message.at_us + self.shifts.get(message.conversation_id, 0) * 1000
        return at_us - at_us % _SECOND_US

    def order(self, conversations: Iterable[str]) -> list[str]:
        """Return conversations in the order of their pseudonyms; none if the order is the home's.

        The order of the home is the same in all studies, and would tell who is who.
        """
        if self.study is None:
            return []
        return sorted(conversations, key=lambda one: self._pseudonym("conversation", one))

    def _pseudonym(self, kind: str, id_: str) -> str:
        return id_ if self.study is None else self.study.pseudonym(kind, id_)

    def _metadata(self, stored: str | None) -> str | None:
        if stored is None or (self.study is None and self.content == "full"):
            return stored
        facts = json.loads(stored)
        if not isinstance(facts, dict):
            return None
        self.dropped.update(name for name in facts if name not in _SAFE_METADATA)
        kept = {name: _safe(facts[name], _SAFE_METADATA[name]) for name in _SAFE_METADATA
                if name in facts}  # fmt: skip
        kept = {name: value for name, value in kept.items() if value not in (None, [], {})}
        return json.dumps(kept) if kept else None


def _safe(value: Any, rule: Any) -> Any:
    """Return what is certain to name nobody of a value of metadata, or None."""
    if isinstance(rule, dict):
        if not isinstance(value, list):
            return None
        items = (
            {name: _safe(one[name], rule[name]) for name in rule if name in one}
            for one in value
            if isinstance(one, dict)
        )
        known = ({k: v for k, v in one.items() if v is not None} for one in items)
        return [one for one in known if one]
    return value if rule(value) else None


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
        redactor=TextRedactor(*(_names(storage) if content == "redacted" else ())),
    )
    if rules.study is not None and shift_times:
        rules.shifts = _shifts(storage, rules.study)
    partial = folder.with_name(f".{folder.name}.partial")
    with private_files(), os_errors(folder), _alone(folder, partial):
        _remove_abandoned(partial)
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


@contextlib.contextmanager
def _alone(folder: Path, partial: Path) -> Iterator[None]:
    """Exclude other exports into a folder."""

    def busy(who: str) -> InvalidValue:
        return InvalidValue(f"{folder} is being written by {who}: wait for it, or name another.")

    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = partial.with_name(f".{folder.name}.export.lock")
    with held(lock, 0, busy):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _remove_abandoned(partial: Path) -> None:
    """Remove the folder of an export that was killed.

    Raises:
        InvalidValue: It has other files.
    """
    ours = ("messages.parquet", "days.parquet", "data_sheet.json", "data_sheet.md", "corpus")
    if partial.exists() and any(
        path.name.removesuffix(".age") not in ours for path in partial.iterdir()
    ):
        raise InvalidValue(f"{partial} has files that no export made: move them elsewhere.")
    shutil.rmtree(partial, ignore_errors=True)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InvalidValue(f"{folder} is a file: name a new folder.")
    if folder.exists() and any(folder.iterdir()):
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


def _names(storage: Storage) -> tuple[list[str], list[str]]:
    """Return names of people with ids like names, and other ids and names of channels."""
    names = _ask(
        storage,
        "SELECT name FROM raw.users UNION SELECT other FROM raw.relationships UNION "
        "SELECT user_id FROM raw.users WHERE regexp_full_match(user_id, '\\p{L}{3,}( \\p{L}+)*"
        "|[\\p{Han}\\p{Hangul}\\p{Hiragana}\\p{Katakana}]{2}')",
    )
    ids = _ask(
        storage,
        "SELECT id FROM (SELECT user_id AS id, TRUE AS is_person FROM raw.users UNION ALL "
        "SELECT DISTINCT unnest([channel_id, conversation_id]), FALSE FROM raw.messages UNION ALL "
        "SELECT name, FALSE FROM raw.channels) "
        "WHERE length(id) > 3 AND regexp_matches(id, '\\p{L}') "
        # A channel named by a word, as `general`, says nothing.
        "AND (is_person OR regexp_matches(id, '[^\\p{L}]'))",
    )
    known = [name for (name,) in names if name and name.casefold() not in _NO_NAMES]
    return known, [id_ for (id_,) in ids if id_.casefold() not in _NO_NAMES]


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
        known = _ask(storage, "SELECT DISTINCT conversation_id FROM raw.messages")
        order = rules.order(conversation for (conversation,) in known)
        for messages in _messages(storage, *chosen, order):
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
    storage: Storage, since: int | None, people: list[str] | None, order: list[str]
) -> Iterator[list[SharedMessage]]:
    relation = storage.reader.sql(_QUERY, {"since": since, "people": people, "order": order})
    assert relation is not None  # noqa: S101 - for the types
    for batch in relation.to_arrow_reader(_AT_ONCE):
        yield [
            SharedMessage(*row) for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)
        ]
