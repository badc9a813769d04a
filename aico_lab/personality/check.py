"""The result of one check of a log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of a log.

    Attributes:
        name: Its name.
        ok: Whether the log meets it.
        value: The measured value; None if there is none.
        needed: The value it must reach, or not exceed; None if there is none.
        sentence: The result in one sentence.
        known: Whether the log tells it; if not, that is no reason against the log, but named.
    """

    name: str
    ok: bool
    value: float | None
    needed: float | None
    sentence: str
    known: bool = True


def counted(n: int, one: str, several: str) -> str:
    """Return a number with a word in the singular or the plural."""
    return f"{n:,} {one if n == 1 else several}"
