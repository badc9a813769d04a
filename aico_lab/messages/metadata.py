"""The names in a message's `metadata` that have a meaning for everybody.

Importers translate what their format knows into these names, and the view `mart.extras` reads them.
Other names are kept and have no meaning here. Emoji, links and mentions in a message's text are
found there and need no metadata.

    {
      "reactions": [{"emoji": "👍", "count": 2}],
      "attachments": [{"kind": "photo"}],
      "mentions": ["ada"],
      "edited_at": "2024-05-01T12:30:00Z",
      "timestamp_estimated": true,
      "missing_since": "2024-06-01T08:00:00Z"
    }
"""

from __future__ import annotations

from typing import Final

REACTIONS: Final = "reactions"
"""A list of objects with `emoji`, the emoji or its name, and `count`, 1 if it is left out."""

ATTACHMENTS: Final = "attachments"
"""A list of objects with `kind`, such as 'photo', 'video', 'audio', 'sticker' or 'file'."""

MEDIA: Final = "media"
"""The kind of a message's only attachment; ignored if there are `attachments`."""

EDITED_AT: Final = "edited_at"
"""When the message was edited last, in ISO 8601."""

TIMESTAMP_ESTIMATED: Final = "timestamp_estimated"
"""True if the source has no time for the message, so that its timestamp is a guess."""

MISSING_SINCE: Final = "missing_since"
"""When an import noticed, in ISO 8601, that a later export of the conversation no longer has the
message. Metrics leave such messages out."""

MENTIONS: Final = "mentions"
"""A list of mentioned people: ids or names. Without it, mentions such as `@ada` are found in the
text."""
