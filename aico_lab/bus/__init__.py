"""The message bus: topics, subscriptions, direct delivery, and the relay of what must not be lost.

::

    publish ─────────────────────────▶ handlers    at once, in this process, not kept
    enqueue ───▶ outbox ──▶ Relay ───▶ handlers    at least once, in order, survives a crash
                   ▲
    change_log ────┘
"""

from aico_lab.bus.messages import (
    HANDLERS,
    HandlerRegistry,
    Message,
    MessageBus,
    Subscription,
    subscribe,
)
from aico_lab.bus.outbox import DeadLetter, Outbox, dead_letters, forget
from aico_lab.bus.relay import Relay
from aico_lab.repositories.outbox import enqueue

__all__ = [
    "HANDLERS",
    "DeadLetter",
    "HandlerRegistry",
    "Message",
    "MessageBus",
    "Outbox",
    "Relay",
    "Subscription",
    "dead_letters",
    "enqueue",
    "forget",
    "subscribe",
]
