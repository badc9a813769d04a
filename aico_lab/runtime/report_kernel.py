"""Whether this process executes a report, which shows no text of messages unless it is asked to."""

from __future__ import annotations

_marked: list[bool] = []


def mark() -> None:
    """Note that this process is the kernel of a report."""
    _marked.append(True)


def is_report() -> bool:
    """Return whether this process is the kernel of a report."""
    return bool(_marked)
