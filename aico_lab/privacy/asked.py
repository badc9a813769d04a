"""Carry out the erasures that other devices ask for, and ask them for this device's own.

See `federation.erasures`.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

from aico_lab.errors import AicoLabError, ErasureIncomplete
from aico_lab.federation import erasures
from aico_lab.federation.bundles import Decision
from aico_lab.federation.syncing import Federation
from aico_lab.federation.taken_in import had
from aico_lab.privacy.scope import found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.federation.erasures import AskedErasure, ErasedForDevice
    from aico_lab.federation.replica import Replica
    from aico_lab.home.receipts import KeptErasure
    from aico_lab.privacy.deleting import Deleted
    from aico_lab.privacy.forgetting import ErasureResult, Forgetting
    from aico_lab.privacy.scope import Scope
    from aico_lab.storage import Storage


def erase_asked(storage: Storage, forgetting: Forgetting) -> list[ErasedForDevice]:
    """Carry out what other devices asked for, or go on with it, and return the results.

    What is unfinished here is finished first, as nothing is taken in until then. If an erasure
    fails after others, their results are returned, and the next call goes on with it.

    Raises:
        ErasureIncomplete: An erasure could not begin, or not be finished; another call goes on.
    """
    federation = Federation.existing(storage)
    if federation is None:
        return []
    replica = federation.replica
    try:
        resumed = forgetting.resume()
    except AicoLabError as error:
        failed = forgetting.unfinished()[:1]
        begun = (one for one in erasures.asked(replica) if one.erasure_id in failed)
        raise _incomplete(error, replica, next(begun, None)) from error
    done: list[ErasedForDevice] = []
    for one in erasures.asked(replica):
        try:
            if one.is_begun:  # by a process that was killed, or by a person who erased the same
                rows, left = _finished(one, storage, resumed)
            else:
                rows, left = _carry_out(one, replica, storage, forgetting)
        except AicoLabError as error:
            if done:
                break
            raise _incomplete(error, replica, one) from error
        done.append(erasures.end(replica, one, rows, left))
    return done


def _incomplete(
    error: AicoLabError, replica: Replica, asked: AskedErasure | None
) -> ErasureIncomplete:
    """Return the error that an erasure, of this or of another device, is not finished."""
    begin = (
        "An erasure is not finished"
        if asked is None
        else f"{erasures.name_of(replica, asked)} asked for an erasure, which is not finished"
    )
    return ErasureIncomplete(f"{begin}, so nothing was taken in since: {error}")


def _carry_out(
    asked: AskedErasure, replica: Replica, storage: Storage, forgetting: Forgetting
) -> tuple[int, list[str]]:
    """Erase what a device asked for, unless it is unknown, has come back, or was never erased.

    Returns:
        The number of rows, and a sentence for each place outside of what an erasure reaches.
    """
    scope = found(storage.primary, asked.scope, asked.key)
    if scope is None:
        return 0, []
    if asked.cl is not None and erasures.length(replica, scope.kind, scope.value) > asked.cl:
        return 0, []
    if not erasures.concerns(replica, asked, scope.kind, scope.value):
        return 0, []
    if asked.cl is None and _was_begun_anew(asked, replica, scope):
        return 0, []
    result = forgetting.forget(scope)
    return sum(result.rows.values()), result.left


def _was_begun_anew(asked: AskedErasure, replica: Replica, scope: Scope) -> bool:
    """Return whether a conversation that was erased before was begun anew here.

    It has a message of a person from after an earlier erasure, and the asking device knew neither
    that erasure nor the message.
    """
    waiting = {one.erasure_id for one in erasures.asked(replica)}
    before = {one["erasure_id"] for one in _known(replica, scope)}
    if not before - waiting - {asked.erasure_id, *asked.after}:
        return False
    return any(
        stream is None or not had(replica, asked.ctx, stream, n)
        for stream, n in replica.connection.fetch_all(
            "SELECT DISTINCT stream, n FROM messages LEFT JOIN sync_rows "
            "ON table_name = 'messages' AND row_key = message_id "
            "LEFT JOIN sync_streams USING (stream_id) WHERE conversation_id = ? AND role = 'user'",
            [scope.value],
        )
    )


def _finished(
    asked: AskedErasure, storage: Storage, resumed: Sequence[ErasureResult]
) -> tuple[int, list[str]]:
    """Return the same as `_carry_out` for an erasure whose rows are deleted already."""
    left = [text for one in resumed if one.erasure_id == asked.erasure_id for text in one.left]
    receipts = storage.primary.fetch_all(
        "SELECT receipt FROM erasures WHERE erasure_id = ? AND finished_at IS NOT NULL",
        [asked.erasure_id],
    )
    rows = sum(sum(json.loads(text)["erased"]["aico.db"].values()) for (text,) in receipts)
    return rows, left


def asked_of(replica: Replica, scope: Scope) -> list[AskedErasure]:
    """Return the erasures of a scope that other devices asked for."""
    return [one for one in erasures.asked(replica) if scope.hashed(one.key) == one.scope]


def _known(replica: Replica, scope: Scope) -> list[dict[str, Any]]:
    """Return the statements on erasures of a scope, of this device and of others."""
    return [
        one
        for one in erasures.known(replica)
        if scope.hashed(bytes.fromhex(one["key"])) == one["scope"]
    ]


def tell_devices(replica: Replica, erasure: KeptErasure, scope: Scope, deleted: Deleted) -> None:
    """Ask the other devices to erase the same, unless one of them asked for it.

    Conflicts that were erased here end on them, too, even if a device finds them only later. A
    repetition keeps the id of the first erasure, so that devices which carried that out do nothing.
    """
    if asked := asked_of(replica, scope):
        erasures.begin(replica, asked)
        ids = [one.erasure_id for one in asked]
    elif scope.kind in erasures.ROW_OF:
        ids = [erasure.repeats or erasure.erasure_id]
        erasures.note(replica, erasure.asked)
        key = secrets.token_bytes(32)
        after = [one["erasure_id"] for one in _known(replica, scope)]
        erasures.ask(replica, ids[0], key, scope.hashed(key), scope.value, after=after)
    else:
        return
    erasures.mark_deleted(replica, ids[0], deleted.since)
    erasure.asked = erasure.asked or erasures.statements(replica, ids)
    erasures.decide(replica, ids[0], [Decision.of(*one) for one in deleted.conflicts])
