"""The methods of `lab.embeddings` that show passages: the nearest to a text, and duplicates."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.embeddings.exploration import tables
from aico_lab.embeddings.exploration.arguments import checked
from aico_lab.embeddings.exploration.captions import only
from aico_lab.embeddings.exploration.reading import PassageReader
from aico_lab.embeddings.exploration.selection import NOTHING
from aico_lab.embeddings.exploration.views import TEXT, View
from aico_lab.errors import InvalidValue
from aico_lab.home.files import private_files
from aico_lab.metrics.engine.claims import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.period import Moment


_SHORT: Final = 80
"""The maximum number of characters of the text that is repeated in the result."""


class PassageViews(PassageReader):
    """Shows passages that are alike."""

    @private_files()
    @checked
    def neighbours(
        self,
        text: str,
        *,
        k: int = 10,
        user: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        content: bool | None = None,
        exploration_id: str | None = None,
    ) -> View:
        """Return the passages that are nearest to a text, by the exploration's model.

        Args:
            text: Any text; or the id of a passage, which is then left out of the result.
            k: The number of passages.
            user: Only passages with a message of these people: ids or names.
            since: The first day or moment, or a span back from the last passage, such as '30d'.
            until: The last day, which is included, or a moment.
            content: Whether texts, and times of day, are shown; None shows them except in reports.
            exploration_id: Another exploration than the current one.

        Raises:
            NeverExplored: There is no exploration.
            InvalidValue: The text is blank, `k` is below 1, a bound is not a time, or the period
                ends before it begins.
            UnknownName: There is no such person.
        """
        from aico_lab.embeddings.exploration.neighbours import nearest

        found = self._exploration(exploration_id)
        encoder = self._encoder_of(found)
        passages, vectors = self._passages(encoder)
        chosen = self._select(passages, user=user, since=since, until=until)
        place = {segment: at for at, segment in enumerate(passages.ids)}
        asked = np.array([place[text]]) if text in place else None
        query = vectors[asked] if asked is not None else encoder.encode_usable([text])[0]
        if not len(query):
            raise InvalidValue("The text is blank: write what to look for.")
        own = None if asked is None else np.flatnonzero(chosen.places == asked)
        places, cosines = nearest(
            query, vectors[chosen.places], k, own=own if own is not None and len(own) else None
        )
        zone = self._storage.timezone
        rows = tables.of_neighbours(found, chosen.passages, places[0], cosines[0], zone)
        among = counted(len(chosen.passages), "passages")
        nearest_ones = f"The {rows.height} nearest of" if rows.height > 1 else "The nearest of"
        to = (
            f"passage {text}"
            if asked is not None
            else f"“{textwrap.shorten(text, _SHORT, placeholder='…')}”"
        )
        return View(
            "Which passages are nearest?",
            f"{nearest_ones} {among} to {to}." if rows.height else NOTHING,
            f"{only(chosen)}Cosine of the vectors of {found.model}, compared with all of them.",
            rows,
            {
                "cosine": "Cosine", "started": f"Time ({zone})", "name": "Theme", TEXT: "Text",
                "segment_id": "Passage",
            },
            content,
        )  # fmt: skip

    @private_files()
    @checked
    def duplicates(
        self,
        *,
        near: float = 0.95,
        user: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        content: bool | None = None,
        model: str | None = None,
    ) -> View:
        """Return groups of passages with the same text, or with nearly the same.

        Args:
            near: The minimum cosine of near duplicates with the first text of their group; above 1
                for exact ones only.
            user: Only passages with a message of these people: ids or names.
            since: The first day or moment, or a span back from the last passage, such as '30d'.
            until: The last day, which is included, or a moment.
            content: Whether texts are shown; None shows them except in reports.
            model: The model, by default the home's; see `aico_lab.embeddings.encoders`.

        Raises:
            NeverExplored: There are no passages.
            InvalidValue: `near` is not a number, a bound is not a time, or the period ends before
                it begins.
            UnknownName: There is no such person, or no such kind of model.
            ModelMissing: The model is not on this machine.
        """
        from aico_lab.embeddings.exploration.duplicates import find_duplicates

        encoder = self._encoder(model)
        passages, vectors = self._passages(encoder)
        chosen = self._select(passages, user=user, since=since, until=until)
        some = chosen.passages
        found = find_duplicates(some.texts, vectors[chosen.places], near=near)
        copies = sum(len(one.passages) - 1 for one in found)
        groups = f"{counted(len(found), 'groups')} of duplicates"
        finding = (
            f"{groups}; {copies:,} of {counted(len(some), 'passages')} "
            f"{'repeats' if copies == 1 else 'repeat'} another."
            if copies
            else f"None of {counted(len(some), 'passages')} repeats another."
        )
        return View(
            "Which passages are there several times?",
            finding if len(some) else NOTHING,
            f"{only(chosen)}{encoder.model}, cosine of at least {near:g} with the group's first "
            "text; texts that differ only in case and spaces are the same, with a cosine of 1.",
            tables.of_duplicates(found, some),
            {
                "passages": "Passages", "is_exact": "Exact", "cosine": "Least cosine",
                TEXT: "First text",
            },
            content,
        )  # fmt: skip
