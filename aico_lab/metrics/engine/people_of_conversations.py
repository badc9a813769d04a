"""The person of a conversation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import ibis
from ibis import _

from aico_lab.metrics.engine.filters import Filters

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.talk import Talk


def people_of_conversations(talk: Talk) -> ir.Table:
    """Return the person of each conversation, ignoring the filters; NULL if it has several."""
    everything = replace(talk, filters=Filters(timezone=talk.filters.timezone))
    people = everything.messages.group_by("conversation_id").agg(
        first=_.user_id.min(), last=_.user_id.max()
    )
    return people.select(
        "conversation_id", person=ibis.ifelse(people.first == people.last, people.first, None)
    )
