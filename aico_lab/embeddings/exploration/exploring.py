"""The methods of `lab.embeddings` that find themes and place new passages among them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from aico_lab.domain.values import now, to_timestamp
from aico_lab.embeddings.exploration import stored
from aico_lab.embeddings.exploration.arguments import checked
from aico_lab.embeddings.exploration.drift_views import DriftViews
from aico_lab.embeddings.exploration.passage_views import PassageViews
from aico_lab.embeddings.exploration.reading import GONE, LEFT
from aico_lab.embeddings.exploration.theme_views import ThemeViews
from aico_lab.embeddings.exploration.themes import ThemeParameters, find_themes, nearest_theme
from aico_lab.errors import NeverExplored, NeverSynced, NotPermitted
from aico_lab.home.files import private_files

if TYPE_CHECKING:
    from aico_lab.embeddings.exploration.clusters import Vectors
    from aico_lab.embeddings.exploration.passages import ExploredPassages
    from aico_lab.embeddings.exploration.reading import Progress
    from aico_lab.embeddings.exploration.views import View


class Explorer(ThemeViews, PassageViews, DriftViews):
    """Finds the themes of passages, draws a map of them, and compares periods and models.

    A passage is a segment of a conversation.
    """

    @private_files()
    @checked
    def explore(
        self,
        parameters: ThemeParameters | None = None,
        *,
        themes: int | None = None,
        seed: int | None = None,
        min_people: int | None = None,
        model: str | None = None,
        renew: bool = False,
        progress: Progress | None = None,
    ) -> View:
        """Find the themes of all passages, draw the map of them, and store both.

        If an exploration of the same model and parameters is stored, its themes stay, and new
        passages are placed into it, unless less than half of its passages are left. The exploration
        becomes the current one, which all other methods and `mart` show. Call `update()` before, so
        that new messages are in a passage, and `lab.sync()` after, so that SQL sees the themes.

        Args:
            parameters: All parameters; None for the default ones.
            themes: The number of themes before similar ones are merged; by default it is chosen
                by stability.
            seed: The seed of the random numbers.
            min_people: The minimum number of people who use a word that names a theme; by default
                5. In a home of fewer people, all of them use it.
            model: The model, by default the home's; see `aico_lab.embeddings.encoders`.
            renew: Find themes again if passages were added, edited or removed.
            progress: Called with "texts", the number of encoded texts, and their total.

        Raises:
            NeverExplored: There are no passages.
            InvalidValue: A parameter is out of range.
            UnknownName: There is no such kind of model.
            ModelMissing: The model is not on this machine.
        """
        from aico_lab.embeddings.exploration import map_layout
        from aico_lab.embeddings.exploration.theme_names import words_of
        from aico_lab.embeddings.home_model import remember_name

        given: dict[str, Any] = {"themes": themes, "seed": seed, "min_people": min_people}
        chosen = replace(
            parameters or ThemeParameters(), **{k: v for k, v in given.items() if v is not None}
        )
        encoder = self._encoder(model)
        passages, vectors = self._passages(encoder, progress)
        exploration_id = stored.id_of(encoder.model, chosen, passages)
        primary = self._storage.primary
        known = stored.find_alike(primary, encoder.model, chosen)
        gone = known is not None and self._place_new(known, passages, vectors) is None
        if known is None or gone or (renew and known != exploration_id):
            remember_name(primary, encoder)
            found = find_themes(vectors, words_of(passages.messages), chosen)
            coordinates = map_layout.lay_out(found.space.place(vectors), seed=chosen.seed)
            stored.write(
                primary, exploration_id, created_at=to_timestamp(now()), model=encoder.model,
                parameters=chosen, generation=self._generation(), passages=passages, themes=found,
                coordinates=coordinates,
            )  # fmt: skip
            known = exploration_id
        with contextlib.suppress(NotPermitted):  # a home that is only read keeps its current one
            stored.choose(primary, known, to_timestamp(now()))
        return self.themes(exploration_id=known)

    @private_files()
    @checked
    def place_new(self, *, exploration_id: str | None = None) -> int:
        """Place new and edited passages into the stored exploration, and return their number.

        The themes, their centres, and the coordinates of all other passages stay.

        Raises:
            NeverExplored: There is no exploration, or most of its passages are gone.
            ModelMissing: Its model is not on this machine.
        """
        found = self._exploration(exploration_id)
        passages, vectors = self._passages(self._encoder_of(found))
        number = self._place_new(found.exploration_id, passages, vectors)
        if number is None:
            raise NeverExplored(GONE)
        return number

    def _place_new(
        self, exploration_id: str, passages: ExploredPassages, vectors: Vectors
    ) -> int | None:
        """Place new and edited passages; None, without a change, if too few others are left."""
        from aico_lab.embeddings.exploration import map_layout

        found = self._exploration(exploration_id)
        points = found.space.place(vectors)
        theme, distance = nearest_theme(points, found.centres)
        before = {row[0]: row for row in found.places.iter_rows()}
        is_new = np.array(
            [
                segment not in before or abs(before[segment][2] - far) > 1e-4  # noqa: PLR2004
                for segment, far in zip(passages.ids, distance.tolist(), strict=True)
            ],
            bool,
        )
        new, old = np.flatnonzero(is_new), np.flatnonzero(~is_new)
        if len(old) < LEFT * found.explored:
            return None
        if not len(new):
            return 0
        coordinates = np.array(
            [before[passages.ids[at]][4:6] for at in old.tolist()], np.float32
        ).reshape(-1, 2)
        stored.write_places(
            self._storage.primary, found.exploration_id, [passages.ids[at] for at in new.tolist()],
            theme[new], distance[new], distance[new] >= found.far,
            map_layout.place_among(points[new], points[old], coordinates),
        )  # fmt: skip
        return len(new)

    def _generation(self) -> int | None:
        """Return the generation of the newest snapshot, or None if there is none."""
        try:
            return self._storage.reader.generation
        except NeverSynced:
            return None
