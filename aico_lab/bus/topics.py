"""Names of topics, and patterns over them.

A topic is lower-case words with dots between them: `memory.store.request`. In a pattern `*` stands
for exactly one word, and `#` (or `**`) at the end for any number of them, none included.
"""

from __future__ import annotations

import re

from aico_lab.errors import InvalidTopic

_PATTERN = re.compile(r"(#|([a-z0-9_-]+|\*)(\.([a-z0-9_-]+|\*))*(\.#)?)")


def check_pattern(pattern: str) -> str:
    """Give the pattern in its one spelling, with `#` for `**` at the end.

    Raises:
        InvalidTopic: It is no pattern.
    """
    spelled = re.sub(r"(^|\.)\*\*$", r"\1#", pattern) if isinstance(pattern, str) else ""
    if not _PATTERN.fullmatch(spelled):
        raise InvalidTopic(
            f"{pattern!r} is no pattern of topics: use lower-case words with dots between them, "
            "'*' for one word and '#' at the end for any number."
        )
    return spelled


def matches(pattern: str, topic: str) -> bool:
    """Say whether a checked pattern covers a topic."""
    wanted, given = pattern.split("."), topic.split(".")
    if wanted[-1] == "#":
        wanted.pop()
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(
        one in ("*", other) for one, other in zip(wanted, given, strict=True)
    )
