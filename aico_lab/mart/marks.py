"""SQL that reads the marks of messages from their metadata: an estimated time, or missing since."""

from __future__ import annotations

from typing import Final

from aico_lab.messages.metadata import MISSING_SINCE, TIMESTAMP_ESTIMATED


def _marked(name: str, condition: str) -> str:
    """Return SQL for whether metadata have a value under a name; few contain the name at all."""
    value = f"TRY(json_extract(metadata, '$.{name}'))"
    return f"""CASE WHEN contains(metadata, '"{name}"')
        THEN coalesce({condition.format(value=value)}, false) ELSE false END"""


IS_ESTIMATED: Final = _marked(TIMESTAMP_ESTIMATED, "{value}::VARCHAR = 'true'")
"""Whether a message's time is estimated."""

IS_MISSING: Final = _marked(MISSING_SINCE, "json_type({value}) = 'VARCHAR'")
"""Whether a message was missing from the last export of its conversation that was compared."""
