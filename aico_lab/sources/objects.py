"""Turn mappings into batches, for sources that can read their input into mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aico_lab.messages.context import Context
from aico_lab.messages.records import Batch, MessageRecord, NotAMessageError, Rejected
from aico_lab.messages.rules import to_record
from aico_lab.sources.files import batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class _Count:
    """The number of objects consumed."""

    number = 0

    @property
    def position(self) -> int:
        return self.number


def batches_of(
    objects: Iterable[Mapping[str, object]], *, limit: int | None = None, names_users: bool = True
) -> Iterator[Batch]:
    """Yield the messages of objects in batches; invalid objects are rejected.

    Args:
        objects: Mappings with `content`, `timestamp` and the other fields of `to_record`, in the
            order of the source; they are read lazily.
        limit: The most messages to yield.
        names_users: Whether the source names the users. If not, messages without a user, except
            those of the system, belong to one person, 'me'.
    """
    count, context = _Count(), Context(names_users=names_users)

    def outcomes() -> Iterator[tuple[int, MessageRecord | Rejected]]:
        for fields in objects:
            count.number += 1
            outcome: MessageRecord | Rejected
            try:
                outcome = _record(fields, context)
            except NotAMessageError as refusal:
                outcome = Rejected(count.number, str(refusal))
            yield count.number, outcome

    yield from batches(outcomes(), count, context, limit)


def _record(fields: object, context: Context) -> MessageRecord:
    if not isinstance(fields, Mapping):
        raise NotAMessageError("it is not a mapping of fields")
    try:
        return to_record(fields, context)
    except TypeError:  # of the encoder of metadata
        raise NotAMessageError("a field holds a value or a key that JSON does not have") from None
