"""Messages of usual and unusual homes, for each of which a report must be readable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2024, 1, 8, 9, tzinfo=UTC)  # a Monday
TEXTS = (
    "I love this wonderful day", "what shall we cook tonight?", "that was a terrible film",
    "fine, thanks", "the garden needs water, and so do the tomatoes", "do you remember the lake?",
    "maybe tomorrow", "I am so happy about it!", "no idea", "tell me more about the old house",
)  # fmt: skip

HOSTILE = ("<script>alert(1)</script>", '🦊 fox & "friend"', "</bdi></p><h1>x", "$a$ and `b`")
RIGHT_TO_LEFT = ("דנה", "ليلى", "שרה כהן", "\u202eevil")
CROWD = tuple(f"person {number}" for number in range(12))


def talk(
    *people: str,
    days: int = 21,
    every: int = 1,
    channel: str | None = None,
    start: datetime = START,
    a_day: int = 6,
) -> list[dict[str, Any]]:
    """Return messages as lines of JSONL, between each person and the companion.

    Args:
        people: The names of the people.
        days: The number of days.
        every: The number of days from one day with messages to the next.
        channel: The channel of all people; by default each has one.
        start: The time of the first message.
        a_day: The number of messages of a person on a day.
    """
    lines = []
    for day in range(0, days, every):
        for number, person in enumerate(people):
            if (day + number) % (1 + number % 3):
                continue
            for turn in range(a_day):
                at = start + timedelta(days=day, hours=(number * 5 + turn // 4) % 14)
                at += timedelta(seconds=40 * turn + number + (7 * day + turn) % 23)
                lines.append(
                    {
                        "content": TEXTS[(day + number + turn) % len(TEXTS)],
                        "timestamp": at.isoformat(),
                        "role": "assistant" if turn % 2 else "user",
                        "user_id": person,
                        "conversation_id": channel or f"with {person}",
                        "channel_id": channel or f"with {person}",
                    }
                )
    return lines


LATER = START + timedelta(days=150)
LONG_MONTH = datetime(2025, 9, 22, 9, tzinfo=UTC)
SITUATIONS: dict[str, list[dict[str, Any]]] = {
    "one person": talk("ada"),
    "two people": talk("ada", "bob"),
    "a group channel": talk(*CROWD, channel="the allotment"),
    "days with long names": talk("ada", "bob", days=3, start=LONG_MONTH),
    "one day": talk("ada", "bob", days=1),
    "four empty months": talk(*CROWD, days=14) + talk(*CROWD, days=14, start=LATER),
    "nothing": [],
    "hostile names": talk(*HOSTILE, channel="<b>bold</b> & 🎉"),
    "right to left": talk(*RIGHT_TO_LEFT, channel="משפחה"),
    "one message": talk("ada", days=1, a_day=1),
}
