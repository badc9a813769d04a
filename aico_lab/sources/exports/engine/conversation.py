"""The conversations that a format reads from an export, before they become records.

A format turns its file into these objects and decides nothing else: which zone a time without a
zone is in, who the companion is, what an id becomes and how a missing time is estimated is the same
for all formats, in `aico_lab.sources.exports.engine.records`.
"""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self

from aico_lab.errors import InvalidValue
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Mapping
    from zoneinfo import ZoneInfo

_YEAR: Final = 366 * 86_400

ALTERNATIVES: Final = "alternatives"
"""The metadata key of the number of other versions of a message, such as regenerated answers."""

EDITED: Final = "edited"
"""The metadata key of a message that was edited at a time that its export does not have."""

MODEL: Final = "model"
"""The metadata key of the model that wrote a message."""


@dataclass(frozen=True, slots=True)
class Traits:
    """The peculiarities of a format.

    Attributes:
        leaves_roles_open: Whether the format may leave open which author is the companion.
        ends_known: Whether its conversations have all messages. Those of other formats may be of a
            part of the time, chosen by the person who exports, or as much as the product keeps.
        damage_is_near: Whether damage of a conversation is reported right before or after it.
        has_twins: Whether the product keeps a message in two places under two ids, of which either
            may be missing.
    """

    leaves_roles_open: bool = False
    ends_known: bool = False
    damage_is_near: bool = False
    has_twins: bool = False


@dataclass(slots=True)
class Rating:
    """A rating that somebody gave a message, which becomes a feedback event.

    Attributes:
        name: The rating in the words of the product, such as 'thumbs_up'.
        value: -1 to 1, or None if the rating has no such value.
        time: The time of the rating; None means that of the message.
        author: The person's id in the file; None means the person whose export it is.
    """

    name: str
    value: float | None = None
    time: datetime | None = None
    author: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The style or skill that a companion chose for a message, which becomes a decision.

    Attributes:
        arm: The style or skill.
        context: The context bucket, if the export says it.
        policy: The id of the policy that chose, if there is one.
    """

    arm: str
    context: str | None = None
    policy: str | None = None


@dataclass(slots=True)
class Said:
    """One message as its export has it.

    Attributes:
        content: The text that was said; empty if the message is, for example, a picture.
        time: When the message was first sent: with a zone, or without one as a local time of
            `Options.zone`; None if the file does not say.
        role: 'user', 'assistant' or 'system'; None if `Options` decide it by the author.
        author: The author's id in the file, else the name; None if the format has none.
        author_name: The author's name, if the file has one beside the id.
        message_id: The message's id, unique within its conversation; None to derive one.
        reply_to: The `message_id` of the message that this one answers, in the same conversation.
        metadata: Anything else to keep, under the keys of `aico_lab.messages.metadata` and of this
            module where one fits.
        ratings: Ratings of the message.
        chosen: The style or skill that the companion chose for it, if the file says it.
        first: The time and the text of the first version, by which a message without an id is
            known; None if they are `time` and `content`.
        is_settled: Whether the file shows that the message was never edited, or how it was.
    """

    content: str
    time: datetime | None
    role: str | None = None
    author: str | None = None
    author_name: str | None = None
    message_id: str | None = None
    reply_to: str | None = None
    metadata: dict[str, object] = field(default_factory=dict)
    ratings: list[Rating] = field(default_factory=list)
    chosen: Chosen | None = None
    first: tuple[datetime, str] | None = None
    is_settled: bool = False


@dataclass(slots=True)
class ExportedConversation:
    """One conversation of an export.

    Attributes:
        conversation_id: The id in the export, the same in later exports.
        messages: The messages in the order in which the conversation went; may be read lazily.
        title: The title, or None.
        channel_id: The id of its character, chat partner or channel, the same in all exports; None
            if the conversation is its own channel.
        channel_name: The name of the channel; the title if there is none.
        started: When the conversation began: the time of messages before the first one with a time.
        is_group: Whether several people may write beside the companion.
        names_person: Whether the authors of what a person said tell people apart; False if the
            format has the same word for everybody, such as 'Me'.
        has_seconds: Whether the times are exact to the second for sure, also on full minutes.
        global_ids: Digests of the ids of messages, if the product gives an id to one message only;
            a stored conversation of the format that has such messages is the same one.
        other_ids: Other ids that the conversation may have in earlier exports; if most messages are
            stored under one of them, it is the same one.
        shared_id: The id in the export, if other people's exports may have it for their own
            conversation, as that of a bot; then `conversation_id` has the person, too.
        person: Spellings of the person whose conversation it is; empty if they are not known.
        off_path: The ids of messages of other branches than the one that the conversation took, at
            least of those that an earlier export may have had on its path.
        authors: Messages by author, if they are known before `messages` are read.
        metadata: Anything to keep with the channel.
        also_there: The ids of messages that cannot be read; may grow while `messages` are read.
        skipped: Counts items that are no messages, by reason, such as 'system prompt'; may grow
            while `messages` are read.
    """

    conversation_id: str
    messages: Iterable[Said]
    title: str | None = None
    channel_id: str | None = None
    channel_name: str | None = None
    started: datetime | None = None
    is_group: bool = False
    names_person: bool = True
    has_seconds: bool = False
    global_ids: array[int] | None = None
    other_ids: tuple[str, ...] = ()
    shared_id: str | None = None
    person: tuple[str, ...] = ()
    off_path: frozenset[str] = frozenset()
    authors: Counter[str] | None = None
    metadata: dict[str, object] = field(default_factory=dict)
    also_there: set[str] = field(default_factory=set)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Kept:
    """A memory that a companion keeps about a person, which becomes a row of `memories`.

    Attributes:
        memory_id: The id of the memory in the export.
        person: The person's id in the export.
        content: The text.
        kind: One of the values of `aico_lab.domain.MemoryType`.
        importance: From 0 to 1.
        time: When the memory was made; None if the export does not say.
        metadata: Anything else to keep.
    """

    memory_id: str
    person: str
    content: str
    kind: str
    importance: float
    time: datetime | None
    metadata: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Learned:
    """A person's liking of styles, as a companion learned it, which becomes a policy.

    Attributes:
        policy: The id of the policy.
        person: The person's id in the export.
        arms: The styles or skills, with the steps of traits that they stand for.
        contexts: The parameters of a beta distribution, by context and arm.
        preferences: What the person prefers, by context and dimension.
        changed: When it last changed; None if the export does not say.
    """

    policy: str
    person: str
    arms: dict[str, dict[str, float]] = field(default_factory=dict)
    contexts: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    preferences: dict[str, dict[str, float]] = field(default_factory=dict)
    changed: datetime | None = None

    def note(self, changed: datetime) -> None:
        """Note the time of a change; without a zone it is UTC."""
        moment = changed if changed.tzinfo else changed.replace(tzinfo=UTC)
        self.changed = moment if self.changed is None else max(self.changed, moment)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A part of an export that could not be read, while the rest was.

    Attributes:
        where: The part, such as "conversation 3" or "line 17"; never the text of a message.
        reason: The reason, without a value of the file.
    """

    where: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The answers that an export cannot give by itself.

    Attributes:
        zone: The zone of times without one; None is UTC, and the result says so.
        me: The name or id of the person whose export it is.
        companion: The names or ids of the companion.
        start: The first time for files that have no times at all; None refuses such files.
        step: The time between two messages of such files.
        day_first: Whether the day comes before the month in dates that could be read either way;
            None refuses such files.
        known_day_first: Whether the day comes before the month in the dates by which the messages
            are stored, if an earlier import read them in the other order; no answer of the user.
        known_conversations: The stored conversations of training files, with the number and the
            digest of their messages; no answer of the user.
        trust_times: Whether to take times that all lie within a few seconds for real.
        columns: For a table, columns by field of a message, such as `{"content": "Text"}`; a time
            in two columns is named `Date+Time`.
        role_map: For a table, roles by the values of its column of roles or authors.
    """

    zone: ZoneInfo | None = None
    me: str | None = None
    companion: tuple[str, ...] = ()
    start: datetime | None = None
    step: timedelta | None = None
    day_first: bool | None = None
    known_day_first: bool | None = None
    known_conversations: Mapping[str, tuple[int, bytes]] = field(default_factory=dict)
    trust_times: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    role_map: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate the names.

        Raises:
            InvalidValue: The person is the companion.
        """
        companions = {folded_name(name) for name in self.companion}
        if self.me is not None and folded_name(self.me) in companions:
            raise InvalidValue(
                f"{self.me} cannot be both the person (--me) and the companion (--companion)."
            )

    @classmethod
    def read(
        cls,
        *,
        timezone: str | None = None,
        me: str | None = None,
        companion: str | Iterable[str] = (),
        start: str | datetime | None = None,
        step: float | None = None,
        day_first: bool | None = None,
        trust_times: bool = False,
        map: Mapping[str, str] | None = None,  # noqa: A002 - the name of the option
        role_map: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the options as a person writes them: zones by name, times as text, seconds.

        Raises:
            InvalidValue: There is no such zone, or the time or the step is invalid.
        """
        begins = start if isinstance(start, datetime) else None
        if isinstance(start, str):
            try:
                begins = datetime.fromisoformat(start)
            except ValueError:
                raise InvalidValue(
                    f"The start is a time such as 2024-05-01T12:30:00, not {start!r}."
                ) from None
        if step is not None and not 0 <= step < _YEAR:
            raise InvalidValue("The step is a number of seconds from 0 to less than a year.")
        return cls(
            zone=None if timezone is None else get_zone(timezone),
            me=me,
            companion=(companion,) if isinstance(companion, str) else tuple(companion),
            start=begins,
            step=None if step is None else timedelta(seconds=step),
            day_first=day_first,
            trust_times=trust_times,
            columns=dict(map or {}),
            role_map=dict(role_map or {}),
        )


ANSWERS: Final = tuple(inspect.signature(Options.read).parameters)
"""The answers of a user by the names that commands, pipelines and saved imports give them."""


def folded_name(name: str) -> str:
    """Return a name for comparison: without capitals, blanks, and WhatsApp's tilde before some."""
    return " ".join(name.split()).casefold().removeprefix("~ ")
