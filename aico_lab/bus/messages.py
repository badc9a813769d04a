"""Messages, subscriptions, and delivery within this process.

`MessageBus.publish` delivers at once and stores nothing. An event that must survive a crash goes
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
    """An event or a request.

    Attributes:
        topic: The topic of the message.
        payload: The data of the message; every handler gets a copy. It is not part of the repr,
            because it may contain the words of people.
        id: The id of the message, the same at every delivery.
        created_at: When the message was published, UTC.
    """

    topic: str
    payload: Mapping[str, Any] = field(repr=False)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


Handler = Callable[[BusMessage], Awaitable[Any]]
HandlerType = TypeVar("HandlerType", bound=Handler)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A consumer: one handler and the patterns of the topics that it handles.

    Attributes:
        consumer: The name under which the relay stores the position of the consumer.
        handler: The function that is called with each message.
        patterns: A message that matches several patterns is delivered once.
    """

    consumer: str
    handler: Handler
    patterns: tuple[str, ...]

    def wants(self, topic: str) -> bool:
        """Return whether a pattern of this consumer matches a topic."""
        return any(matches(pattern, topic) for pattern in self.patterns)


class HandlerRegistry:
    """An explicit set of subscriptions, in order of registration."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, Subscription] = {}

    def subscribe(
        self, pattern: str, *, consumer: str | None = None
    ) -> Callable[[HandlerType], HandlerType]:
        """Register the decorated async function as a handler, and return it unchanged.

        Args:
            pattern: The topics that it handles (see `aico_lab.bus.topics`).
            consumer: The name of the consumer; by default the module and qualified name of the
                function. A renamed consumer is a new one, without the position of the old one.

        Raises:
            InvalidTopic: The pattern is malformed.
            InvalidValue: The handler is not an async function, another handler has the name, or
                the handler is subscribed to the pattern already.
        """
        checked = check_pattern(pattern)

        def register(handler: HandlerType) -> HandlerType:
            self._add(checked, handler, consumer or _name_of(handler))
            return handler

        return register

    def _add(self, pattern: str, handler: Handler, consumer: str) -> None:
        if not inspect.iscoroutinefunction(handler):
            raise InvalidValue(f"The handler {consumer} must be an `async def` function.")
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
        """Iterate over the subscriptions in order of registration."""
        return iter(tuple(self._subscriptions.values()))


def _name_of(handler: Handler) -> str:
    try:
        return f"{handler.__module__}.{handler.__qualname__}"
    except AttributeError:
        raise InvalidValue(
            "This handler has no name: give it one with subscribe(pattern, consumer=...)."
        ) from None


HANDLERS = HandlerRegistry()
"""The registry that `subscribe` fills; it has no effect until passed to a bus or a relay."""

subscribe = HANDLERS.subscribe


class MessageBus:
    """Delivers messages to the handlers of this process, at once and one after another."""

    def __init__(self, registry: HandlerRegistry) -> None:
        self._registry = registry

    async def publish(self, topic: str, payload: Mapping[str, Any]) -> None:
        """Call every handler subscribed to the topic, in order of registration.

        An exception of one handler does not stop the others. Handlers run in the caller's task, and
        so in its open transaction, if there is one.

        Raises:
            InvalidTopic: The topic is malformed; no handler was called.
            HandlerFailed: Some handlers raised; its cause is the group of their exceptions.
        """
        message = BusMessage(values.topic(topic), payload)
        failed: dict[str, Exception] = {}
        for subscription in self._registry:
            if not subscription.wants(topic):
                continue
            try:
                await subscription.handler(replace(message, payload=copy.deepcopy(payload)))
            except Exception as error:  # noqa: BLE001 - the other handlers must run in any case
                failed[subscription.consumer] = error
        if failed:
            who = ", ".join(f"{name} ({type(error).__name__})" for name, error in failed.items())
            raise HandlerFailed(
                f"{topic} was not handled by {who}: fix these handlers, or the payload."
            ) from ExceptionGroup(f"handlers of {topic}", list(failed.values()))
