"""Models in the ONNX format, in a folder; ONNX Runtime and the tokenizers come with ChromaDB."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aico_lab.embeddings.encoders.base import Encoder, version_of
from aico_lab.errors import ModelMissing, ModelUnusable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aico_lab.embeddings.encoders.base import Vectors

WEIGHTS, TOKENIZER = "model.onnx", "tokenizer.json"
POOLING = Path("1_Pooling", "config.json")
"""The file, in exports of sentence-transformers, that tells how vectors of tokens are pooled."""

MAX_TOKENS = 512
"""The tokens of a text that count, unless the tokenizer has its own limit."""

BATCH = 64
"""Texts that the model reads at a time; they are padded to the longest."""


class Onnx(Encoder):
    """Encodes texts with a model in a folder, on the processor.

    The model reads `input_ids` and, if it wants them, `attention_mask` and `token_type_ids`. Its
    first output is either one vector for each text, or one for each token, which are averaged.
    """

    def __init__(self, folder: Path | str) -> None:
        """Open a model.

        Args:
            folder: The folder with `model.onnx` and `tokenizer.json`.

        Raises:
            ModelMissing: The folder does not contain them.
            ModelUnusable: They cannot be read, or do not fit together.
        """
        import onnxruntime
        from tokenizers import Tokenizer

        place = Path(folder).expanduser()
        for name in (WEIGHTS, TOKENIZER):
            if not (place / name).is_file():
                raise ModelMissing(
                    f"The folder {place} has no {name}: put the model's files there; nothing is "
                    "downloaded."
                )
        self.name = f"onnx:{place.resolve()}"
        try:
            self.model = f"onnx:{place.resolve().name}@{version_of(_files(place))}"
            self._tokenizer = Tokenizer.from_file(str(place / TOKENIZER))
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # errors are raised, so they need not be printed, too
            self._session = onnxruntime.InferenceSession(
                place / WEIGHTS, options, providers=["CPUExecutionProvider"]
            )
            self._first_token = _pools_first_token(place)
        except Exception as error:  # both libraries raise many kinds, some of them plain Exception
            raise ModelUnusable(
                f"The model in {place} cannot be opened ({type(error).__name__}): export it again."
            ) from error
        limit = self._tokenizer.truncation
        self._tokenizer.enable_truncation(limit["max_length"] if limit else MAX_TOKENS)
        self._tokenizer.enable_padding(**(self._tokenizer.padding or {}) | {"length": None})
        self._inputs = [one.name for one in self._session.get_inputs()]
        self.dimensions = self._run(["dimensions"]).shape[1]

    def _encode(self, texts: list[str]) -> Vectors:
        # Texts of similar lengths together, so that little is padded.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found = np.empty((len(texts), self.dimensions), np.float32)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            made = self._run([texts[place] for place in places])
            found[places] = self._checked(made, len(places))
        return found

    def _run(self, texts: list[str]) -> Vectors:
        encoded = self._tokenizer.encode_batch(texts)
        mask = np.array([one.attention_mask for one in encoded], np.int64)
        given = {
            "input_ids": np.array([one.ids for one in encoded], np.int64),
            "attention_mask": mask,
            "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
        }
        try:
            outputs: list[Any] = self._session.run(
                None, {name: given[name] for name in self._inputs}
            )
        except Exception as error:  # as above
            raise ModelUnusable(
                f"The model {self.model} cannot read its tokenizer's tokens: export both again."
            ) from error
        return self._pool(outputs[0], mask)

    def _pool(self, output: NDArray[np.float32], mask: NDArray[np.int64]) -> Vectors:
        if output.ndim == 2:  # noqa: PLR2004 - texts and dimensions
            return output
        if output.ndim != 3:  # noqa: PLR2004 - texts, tokens and dimensions
            raise ModelUnusable(f"The model {self.model} returns no vectors: use another model.")
        if self._first_token:
            return output[:, 0]
        weights = mask[:, :, None].astype(np.float32)
        means: Vectors = (output * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
        return means


def _files(folder: Path) -> list[Path]:
    """Return the files on which vectors depend, and which exist."""
    names = (WEIGHTS, f"{WEIGHTS}_data", f"{WEIGHTS}.data", TOKENIZER, POOLING)
    return [folder / name for name in names if (folder / name).is_file()]


def _pools_first_token(folder: Path) -> bool:
    path = folder / POOLING
    return path.is_file() and bool(json.loads(path.read_bytes()).get("pooling_mode_cls_token"))
