"""The message bus: topics, subscriptions, direct delivery, and the relay of durable events.

::

    MessageBus.publish ──────────────────────▶ handlers    at once, in this process, not stored
    UnitOfWork.publish ──▶ outbox ──▶ Relay ─▶ handlers    at least once, in order, survives a crash
                             ▲
    change_log ──────────────┘
"""

from aico_lab.bus.messages import (
    HANDLERS,
    BusMessage,
    HandlerRegistry,
    MessageBus,
    Subscription,
    subscribe,
)
from aico_lab.bus.outbox import DeadLetter, dead_letters, forget
from aico_lab.bus.relay import Relay

__all__ = [
    "HANDLERS",
    "BusMessage",
    "DeadLetter",
    "HandlerRegistry",
    "MessageBus",
    "Relay",
    "Subscription",
    "dead_letters",
    "forget",
    "subscribe",
]
