"""Messages, who wants them, and delivery within this process.

`MessageBus.publish` delivers at once and remembers nothing: an event that must survive a crash goes
through the outbox instead (see `aico_lab.repositories.outbox` and `aico_lab.bus.relay`). Both
deliver to the same subscriptions.
"""

from __future__ import annotations

import copy
import inspect
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from aico_lab.bus.topics import check_pattern, matches
from aico_lab.domain import values
from aico_lab.errors import HandlerFailed, InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class BusMessage:
    """Something that happened, or that is asked for.

    Attributes:
        topic: What it is about.
        payload: What is to be known; every handler gets a copy of its own. Never part of the repr:
            it may hold what people said.
        id: The same however often the message is delivered.
        created_at: When it was published, UTC.
    """

    topic: str
    payload: Mapping[str, Any] = field(repr=False)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


Handler = Callable[[BusMessage], Awaitable[Any]]
HandlerType = TypeVar("HandlerType", bound=Handler)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A consumer: one handler, and the patterns of what it wants.

    Attributes:
        consumer: Its name, by which the relay remembers how far it has come.
        handler: What is called with each message.
        patterns: A message that several of them cover is delivered once.
    """

    consumer: str
    handler: Handler
    patterns: tuple[str, ...]

    def wants(self, topic: str) -> bool:
        """Say whether messages of a topic are for this consumer."""
        return any(matches(pattern, topic) for pattern in self.patterns)


class HandlerRegistry:
    """An explicit set of subscriptions, in order of registration."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, Subscription] = {}

    def subscribe(
        self, pattern: str, *, consumer: str | None = None
    ) -> Callable[[HandlerType], HandlerType]:
        """Register the async function that is decorated, and leave it as it is.

        Args:
            pattern: Which topics it handles (see `aico_lab.bus.topics`).
            consumer: Its name; by default its module and qualified name. A function that gets
                another name is another consumer: it knows nothing of what the old one handled.

        Raises:
            InvalidTopic: The pattern is malformed.
            InvalidValue: It is no async function, the name is another function's, or it has this
                pattern already.
        """
        checked = check_pattern(pattern)

        def register(handler: HandlerType) -> HandlerType:
            self._add(checked, handler, consumer or _name_of(handler))
            return handler

        return register

    def _add(self, pattern: str, handler: Handler, consumer: str) -> None:
        if not inspect.iscoroutinefunction(handler):
            raise InvalidValue(f"The handler {consumer} must be a function made by `async def`.")
        known = self._subscriptions.get(consumer, Subscription(consumer, handler, ()))
        if known.handler != handler:
            raise InvalidValue(
                f"Another handler is named {consumer!r}: give this one a name with "
                "subscribe(pattern, consumer=...)."
            )
        if pattern in known.patterns:
            raise InvalidValue(f"The handler {consumer} is subscribed to {pattern!r} already.")
        self._subscriptions[consumer] = replace(known, patterns=(*known.patterns, pattern))

    def __iter__(self) -> Iterator[Subscription]:
        """Give the subscriptions in order of registration."""
        return iter(tuple(self._subscriptions.values()))


def _name_of(handler: Handler) -> str:
    try:
        return f"{handler.__module__}.{handler.__qualname__}"
    except AttributeError:
        raise InvalidValue(
            "This handler has no name of its own: give it one with "
            "subscribe(pattern, consumer=...)."
        ) from None


HANDLERS = HandlerRegistry()
"""The registry that `subscribe` fills; it does nothing until a bus or a relay is given it."""

subscribe = HANDLERS.subscribe


class MessageBus:
    """Delivers messages to the handlers of this process, at once and one after the other."""

    def __init__(self, registry: HandlerRegistry) -> None:
        self._registry = registry

    async def publish(self, topic: str, payload: Mapping[str, Any]) -> None:
        """Call every handler that wants the topic, in order of registration.

        All of them run, whatever the others raise. They run in the caller's task, and so in its
        transaction where it has one open.

        Raises:
            InvalidTopic: The topic is malformed; nothing was called.
            HandlerFailed: Some handlers raised. Its cause is a group of what they raised.
        """
        message = BusMessage(values.topic(topic), payload)
        failed: dict[str, Exception] = {}
        for subscription in self._registry:
            if not subscription.wants(topic):
                continue
            try:
                await subscription.handler(replace(message, payload=copy.deepcopy(payload)))
            except Exception as error:  # noqa: BLE001 - whatever it is, the others must run
                failed[subscription.consumer] = error
        if failed:
            who = ", ".join(f"{name} ({type(error).__name__})" for name, error in failed.items())
            raise HandlerFailed(
                f"{topic} was not handled by {who}: mend them, or what was published."
            ) from ExceptionGroup(f"handlers of {topic}", list(failed.values()))
