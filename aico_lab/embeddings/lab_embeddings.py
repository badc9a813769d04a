"""What a lab makes of its texts with vectors, `lab.embeddings`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.home.files import private_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.embeddings.segmenting import Parameters, Segmented
    from aico_lab.storage import Storage


class Embeddings:
    """Keeps the segments of messages up to date."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @private_files()
    def update(
        self,
        parameters: Parameters | None = None,
        *,
        progress: Callable[[str, int, int | None], None] | None = None,
    ) -> Segmented:
        """Bring the segments up to date with the messages.

        ::

            from aico_lab.embeddings.segmenting import Parameters

            lab.embeddings.update(Parameters(pause=1800))

        What was done before an interruption is kept. `lab.sync()` then copies the segments into
        the warehouse.

        Args:
            parameters: Where segments end. Other ones than before replace all segments that this
                program wrote. None means those of the update before, or the usual ones.
            progress: Called with "messages", the number of changed messages done, and their total.
        """
        from aico_lab.embeddings.encoders import open_encoder
        from aico_lab.embeddings.segmenting import update_segments

        return update_segments(self._storage.primary, open_encoder(), parameters, progress=progress)

    def __repr__(self) -> str:
        return "<Embeddings: .update() groups messages into segments>"
