"""The decisions by which an applied change of the personality is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aico_lab.errors import NeverSynced, UnknownName
from aico_lab.metrics.engine.filters import Filters
from aico_lab.personality.candidates import of_context
from aico_lab.personality.log import read_log
from aico_lab.personality.proposals import GUARDRAILS
from aico_lab.zones import to_ms

if TYPE_CHECKING:
    from aico_lab.domain import PersonalityChange
    from aico_lab.etl.reader import Reader
    from aico_lab.personality.log import Log


def change_logs(reader: Reader, change: PersonalityChange) -> list[Log]:
    """Return the decisions of a change with its goal, and again with each guardrail.

    Args:
        reader: The reader of the snapshot.
        change: An applied change, also one that ended.

    Returns:
        The logs; empty without a snapshot, or if no decision was made where the change reaches.
    """
    goal = str(change.proposal.get("goal", "satisfaction"))
    who = Filters(user=change.user_id)
    try:
        return [
            of_change(read_log(reader, name, who), change)
            for name in dict.fromkeys((goal, *GUARDRAILS))
        ]
    except (NeverSynced, UnknownName):
        return []


def of_change(log: Log, change: PersonalityChange) -> Log:
    """Return the decisions under the version before a change and under its own.

    Those after a rollback are none of them: the version before may apply again.

    Raises:
        UnknownName: No decision was made in the context of the change.
    """
    log = of_context(log, change.context)
    versions = {change.old_profile_id, change.new_profile_id}
    kept = np.array([one in versions for one in log.profiles], np.bool_)[log.profile]
    if change.status == "rolled back" and change.ended_at is not None:
        kept &= log.time_ms < to_ms(change.ended_at)
    return log.choose(kept)
