"""Compute the place of each message in its conversation: its person, turn, session and silences.

Everything follows from the order of the messages, so one sort and a few passes over columns of
numbers suffice; SQL windows, which sort once each, took five times as long. The places are defined
in `aico_lab.mart.definitions.MESSAGES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from aico_lab.constants import ROW_GROUP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]
    Truths = NDArray[np.bool_]

SESSION_GAP_MS: Final = 30 * 60 * 1000
"""A longer silence ends a session, and with it a turn. Thirty minutes are the convention of web
analytics and chat-analytics; the metric `sessions` can be given another silence."""

COLUMNS: Final = (
    "id", "conversation", "author", "by_user", "earlier", "is_estimated", "ts_us", "ts_ms"
)  # fmt: skip
"""Columns of the messages to be placed, which are those of the user's and the companion's side.

Conversations and people are numbers; person 0 is nobody. `author` is the person the message names.

`earlier` messages already have a place, from which the others count on: in each conversation, the
last message by each person and the last message to each person. `ts_us` and `id` sort them before
all others, and `author` is their person.
"""


def place_people(talk: pa.Table) -> pa.Table:
    """Return the messages of whole conversations with their places, and their `person` by name.

    Args:
        talk: `COLUMNS` with names in `user_id` instead of numbers in `author`.
    """
    named = talk["user_id"].combine_chunks().dictionary_encode()
    author = named.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    placed = places(talk.append_column("author", pa.array(author)))
    person = placed["person"].to_numpy() - 1
    people = pa.array(person, pa.int32(), mask=person < 0)
    made = placed.set_column(
        placed.column_names.index("person"),
        "person",
        pa.DictionaryArray.from_arrays(people, named.dictionary),
    )
    for column in set(talk.column_names) - set(made.column_names):
        made = made.append_column(column, talk[column])
    return pa.Table.from_batches(made.combine_chunks().to_batches(ROW_GROUP), made.schema)


def places(messages: pa.Table) -> pa.Table:
    """Return the places of the messages that are not `earlier`, in the order of the rows.

    Messages, turns and sessions after the earlier ones count from 0; a message that continues the
    last earlier turn or session has -1.

    Args:
        messages: `COLUMNS` without NULL; the rows are in any order.
    """
    columns = {name: messages[name].to_numpy() for name in COLUMNS}
    order = np.lexsort((columns["id"], columns["ts_us"], columns["conversation"]))
    conversation, author, by_user, earlier, ts_ms = (
        columns[name][order] for name in ("conversation", "author", "by_user", "earlier", "ts_ms")
    )
    here = np.arange(len(order))
    begins = _differs(conversation)
    first = np.maximum.accumulate(np.where(begins, here, 0))  # of the same conversation
    before = np.maximum(here - 1, 0)
    gap_ms = ts_ms - ts_ms[before]

    names = by_user | _addressed(conversation, author, by_user, earlier)
    # The last person who wrote; before anybody has, the one the conversation's first message names.
    writer = author[np.maximum.accumulate(np.where(by_user | begins, here, 0))]
    person = np.where(names, author, writer)
    # Nobody writes between two messages of the companion, so both have the same writer.
    person_before = np.where(names[before], author[before], writer)

    starts_session = begins | (gap_ms > SESSION_GAP_MS)
    starts_turn = starts_session | (by_user != by_user[before]) | (person != person_before)
    last, replies = _replies(conversation, person, begins, by_user)
    is_first = by_user & (_count(by_user, first) == 0)
    last = np.where(is_first, before, last)
    replies = np.where(is_first, ~begins, replies)
    reply_ms = ts_ms - ts_ms[last]
    is_estimated = columns["is_estimated"][order]
    guessed = replies & (is_estimated | is_estimated[last])
    new = ~earlier
    back = np.empty_like(order)
    back[order] = here
    back = back[~columns["earlier"]]
    return pa.table(
        {
            "id": columns["id"][~columns["earlier"]],
            "conversation": conversation[back],
            "person": person[back],
            "msg_idx": _count(new, first)[back],
            "turn_idx": _count(starts_turn & new, first)[back],
            "session_idx": _count(starts_session & new, first)[back],
            "gap_ms": pa.array(gap_ms[back], mask=begins[back]),
            "reply_ms": pa.array(reply_ms[back], mask=~(replies & ~guessed)[back]),
            "reply_is_estimated": guessed[back],
        }
    )


def _addressed(conversation: Numbers, author: Numbers, by_user: Truths, earlier: Truths) -> Truths:
    """Return which of the companion's messages name an earlier writer of the conversation."""
    addressed = earlier & ~by_user
    naming = np.flatnonzero(~by_user & ~earlier & (author > 0))
    if not len(naming):
        return addressed
    key = conversation * (author.max() + 1) + author
    wrote = np.flatnonzero(by_user)
    writers, at = np.unique(key[wrote], return_index=True)
    if len(writers):
        found = np.minimum(np.searchsorted(writers, key[naming]), len(writers) - 1)
        has_written = (writers[found] == key[naming]) & (wrote[at[found]] < naming)
        addressed[naming[has_written]] = True
    return addressed


def _replies(
    conversation: Numbers, person: Numbers, begins: Truths, by_user: Truths
) -> tuple[Numbers, Truths]:
    """Return the previous message between the same person and the companion.

    Returns:
        Its index, 0 if there is none, and whether it was by the other side.
    """
    here = np.arange(len(person))
    last, alone = here - 1, begins.copy()
    changes = ~begins & (person != person[np.maximum(last, 0)])
    if changes.any():  # messages of several people alternate
        several = np.flatnonzero(np.isin(conversation, conversation[changes]))
        by_person = several[np.lexsort((person[several], conversation[several]))]
        last[by_person[1:]] = by_person[:-1]
        alone[by_person] = _differs(conversation[by_person]) | _differs(person[by_person])
    last[alone] = 0
    return last, ~alone & (by_user != by_user[last])


def _differs(values: Numbers) -> Truths:
    """Return which values differ from the value before; the first value counts as different."""
    differs = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=differs[1:])
    return differs


def _count(what: Truths, first: Numbers) -> Numbers:
    """Count the true values up to each message of a conversation, the message included, minus 1."""
    so_far = np.cumsum(what, dtype=np.int64)
    return so_far - so_far[first] + what[first] - 1
