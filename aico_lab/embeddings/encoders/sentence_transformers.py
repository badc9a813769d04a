"""Models that the library sentence-transformers runs, from a folder or from its cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aico_lab.embeddings.encoders.base import Encoder, version_of
from aico_lab.errors import LibraryMissing, ModelMissing, ModelUnusable

if TYPE_CHECKING:
    from aico_lab.embeddings.encoders.base import Vectors

MARK = "modules.json"
"""The file by which a folder is recognised as a model of sentence-transformers."""

BATCH = 64


class SentenceTransformers(Encoder):
    """Encodes texts with a model that is on this machine."""

    def __init__(self, name: Path | str) -> None:
        """Open a model.

        Args:
            name: The folder of the model, or the name of one that is in Hugging Face's cache.

        Raises:
            LibraryMissing: sentence-transformers is not installed.
            ModelMissing: The model is not on this machine.
            ModelUnusable: Its files cannot be read, or do not fit together.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise LibraryMissing(
                "This model needs sentence-transformers: "
                "pip install 'aico-lab[sentence-transformers]'."
            ) from error
        folder = _folder(name)
        self.name = f"sentence-transformers:{folder.resolve() if Path(name).is_dir() else name}"
        try:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            self.model = f"sentence-transformers:{Path(name).name}@{version_of(files)}"
            # On the processor: other devices round differently.
            self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
            self.dimensions = self._encode(["dimensions"]).shape[1]
        except Exception as error:  # of many libraries
            raise ModelUnusable(
                f"The model {name} cannot be opened ({type(error).__name__}): export it again."
            ) from error

    def _encode(self, texts: list[str]) -> Vectors:
        found = self._model.encode(
            texts, batch_size=BATCH, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(found, np.float32)


def _folder(name: Path | str) -> Path:
    """Return the folder of a model; its name in the cache is looked up without the network."""
    place = Path(name).expanduser()
    if (place / MARK).is_file():
        return place
    if place.exists():
        raise ModelMissing(f"The folder {place} has no {MARK}: put the model's files there.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise ModelMissing(
            f"The model {name} is not on this machine, and nothing is downloaded: download it "
            "beforehand, or use the folder of a model."
        ) from error
