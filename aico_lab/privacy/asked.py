"""Carry out the erasures that the person's other devices ask for; see `federation.erasures`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aico_lab.errors import AicoLabError
from aico_lab.federation import erasures
from aico_lab.federation.syncing import Federation
from aico_lab.privacy.scope import found

if TYPE_CHECKING:
    from aico_lab.federation.erasures import AskedErasure, ErasedForDevice
    from aico_lab.federation.replica import Replica
    from aico_lab.privacy.forgetting import Forgetting
    from aico_lab.storage import Storage


def erase_asked(storage: Storage, forgetting: Forgetting) -> list[ErasedForDevice]:
    """Carry out what other devices asked for, or go on with it, and return the results.

    Whose rows are deleted here is not in the way of the exchange, even if other stores have to
    wait: `forget` and `sync` finish these.

    Raises:
        AicoLabError: An erasure could not begin, as for `forget`.
    """
    federation = Federation.existing(storage)
    if federation is None:
        return []
    replica, done = federation.replica, []
    for one in erasures.asked(replica):
        try:
            if one.is_begun:  # by a process that was killed, or by a person who erased the same
                rows, left = _go_on(one, storage, forgetting)
            else:
                rows, left = _carry_out(one, replica, storage, forgetting)
        except AicoLabError as error:
            if erasures.is_waiting(replica, one):
                raise
            done.append(erasures.end(replica, one, problem=str(error)))
        else:
            done.append(erasures.end(replica, one, rows, left))
    return done


def _carry_out(
    asked: AskedErasure, replica: Replica, storage: Storage, forgetting: Forgetting
) -> tuple[int, list[str]]:
    """Erase what a device asked for, unless it is unknown here, or has come back.

    Returns:
        The number of rows, and a sentence for each place outside of what an erasure reaches.
    """
    scope = found(storage.primary, asked.scope, asked.key)
    if scope is None:
        return 0, []
    if asked.cl is not None and erasures.length(replica, scope.kind, scope.value) > asked.cl:
        return 0, []
    result = forgetting.forget(scope)
    return sum(result.rows.values()), result.left


def _go_on(asked: AskedErasure, storage: Storage, forgetting: Forgetting) -> tuple[int, list[str]]:
    """Finish an erasure whose rows are deleted, unless that was done; return as `_carry_out`."""
    resumed = forgetting.resume() if asked.erasure_id in forgetting.unfinished() else []
    left = [text for one in resumed if one.erasure_id == asked.erasure_id for text in one.left]
    receipts = storage.primary.fetch_all(
        "SELECT receipt FROM erasures WHERE erasure_id = ? AND finished_at IS NOT NULL",
        [asked.erasure_id],
    )
    rows = sum(sum(json.loads(text)["erased"]["aico.db"].values()) for (text,) in receipts)
    return rows, left
