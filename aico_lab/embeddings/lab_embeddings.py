"""`lab.embeddings`: segments, their themes, and the audit of the index."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aico_lab.embeddings.exploration.arguments import checked
from aico_lab.embeddings.exploration.exploring import Explorer
from aico_lab.errors import DatabaseLocked, NotPermitted
from aico_lab.home.files import private_files
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.embeddings.audit import IndexAudit
    from aico_lab.embeddings.segmenting import Segmented, SegmentParameters
    from aico_lab.storage import Storage


class Embeddings(Explorer):
    """Keeps the segments of messages up to date, explores them, and audits the index."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @private_files()
    def update(
        self,
        parameters: SegmentParameters | None = None,
        *,
        progress: Callable[[str, int, int | None], None] | None = None,
    ) -> Segmented:
        """Bring the segments up to date with the messages.

        ::

            from aico_lab.embeddings.segmenting import SegmentParameters

            lab.embeddings.update(SegmentParameters(pause=1800))

        Segments that were written before an interruption are kept. `lab.sync()` then copies the
        segments into the warehouse.

        Args:
            parameters: Where segments end. If they differ from those of the update before, all
                segments that this program wrote are made again. None means the parameters of the
                update before, or the default ones.
            progress: Called with "messages", the number of changed messages done, and their total.
        """
        from aico_lab.embeddings.encoders import open_encoder
        from aico_lab.embeddings.segmenting import update_segments

        return update_segments(self._storage.primary, open_encoder(), parameters, progress=progress)

    @private_files()
    def refresh(self, *, progress: Callable[[str, int, int | None], None] | None = None) -> None:
        """Make segments of new messages, and store the vectors of all texts that are searched.

        If the home cannot be written, or another connection writes for longer than
        `feed.PATIENCE`, the rest is not stored: a search then encodes new texts itself.

        Args:
            progress: Called with "messages" or "texts", the number done, and their total.

        Raises:
            OtherModel: The index has vectors of another model.
        """
        from aico_lab.embeddings.home_model import open_home_encoder
        from aico_lab.embeddings.text_index import refresh

        def show(done: int, total: int) -> None:
            if progress is not None:
                progress("texts", done, total)

        primary = self._storage.primary
        patience, primary.busy_timeout = primary.busy_timeout, feed.PATIENCE
        try:
            with contextlib.suppress(NotPermitted, DatabaseLocked):
                self.update(progress=progress)
                refresh(primary, open_home_encoder(primary), progress=show)
        finally:
            primary.busy_timeout = patience

    @private_files()
    def audit(self) -> IndexAudit:
        """Measure the recall of searches, and check the files of the vector store.

        Raises:
            OtherModel: The index has vectors of another model.
        """
        from aico_lab.embeddings.audit import audit
        from aico_lab.embeddings.home_model import open_home_encoder
        from aico_lab.embeddings.index import open_index

        storage = self._storage
        encoder = open_home_encoder(storage.primary)
        with open_index(storage.open_primary, storage.home, storage.keys, encoder) as index:
            return audit(index)

    @checked
    def use_model(self, name: str) -> bool:
        """Make the vectors of this home with another model from now on.

        ::

            if lab.embeddings.use_model("onnx:~/models/multilingual"):
                lab.sync_vectors(full=True)

        Segments keep their boundaries, which WordLlama finds. A lab that is open elsewhere uses
        the model once it is opened again.

        Args:
            name: The model; see `aico_lab.embeddings.encoders`.

        Returns:
            Whether the home used another model before.

        Raises:
            UnknownName: There is no such kind of model.
            ModelMissing: The model is not on this machine.
            ModelUnusable: The model's files cannot be read, or do not fit together.
            LibraryMissing: The library that runs the model is not installed.
        """
        from aico_lab.embeddings.home_model import choose_model

        return choose_model(self._storage.primary, name)

    def __repr__(self) -> str:
        return (
            "<Embeddings: .update() groups messages into segments, .explore() finds their themes, "
            ".themes(), .picture(), .over_time(), .by_person(), .neighbours(), .duplicates() and "
            ".drift() show them, .audit() measures the index>"
        )
