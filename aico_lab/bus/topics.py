"""Topics and topic patterns.

A topic is lower-case words separated by dots: `memory.store.request`. In a pattern `*` matches
exactly one word, and `#` (or `**`) at the end matches zero or more words.
"""

from __future__ import annotations

import re

from aico_lab.errors import InvalidTopic

_PATTERN = re.compile(r"(#|([a-z0-9_-]+|\*)(\.([a-z0-9_-]+|\*))*(\.#)?)")


def check_pattern(pattern: str) -> str:
    """Return the pattern in its canonical form, with `#` for `**` at the end.

    Raises:
        InvalidTopic: The pattern is malformed.
    """
    spelled = re.sub(r"(^|\.)\*\*$", r"\1#", pattern) if isinstance(pattern, str) else ""
    if not _PATTERN.fullmatch(spelled):
        raise InvalidTopic(
            f"{pattern!r} is not a topic pattern: use lower-case words separated by dots, "
            "'*' for one word and '#' at the end for any number of words."
        )
    return spelled


def matches(pattern: str, topic: str) -> bool:
    """Return whether a canonical pattern matches a topic."""
    wanted, given = pattern.split("."), topic.split(".")
    if wanted[-1] == "#":
        wanted.pop()
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(
        one in ("*", other) for one, other in zip(wanted, given, strict=True)
    )
