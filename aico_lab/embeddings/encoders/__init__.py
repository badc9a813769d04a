"""Encode texts as vectors, with a model that is on this machine.

A model is chosen by name:

- `wordllama`: the default, part of its library; English above all.
- `onnx:FOLDER`: a folder with `model.onnx` and `tokenizer.json`.
- `sentence-transformers:NAME_OR_FOLDER`: needs the extra `sentence-transformers`.

Nothing is downloaded.
"""

from __future__ import annotations

from aico_lab.embeddings.encoders.base import Encoder
from aico_lab.errors import InvalidValue, UnknownName, did_you_mean

__all__ = ["KINDS", "Encoder", "open_encoder"]

KINDS = ("wordllama", "onnx", "sentence-transformers")


def open_encoder(name: str | None = None) -> Encoder:
    """Return the encoder of a name; see the module's docstring.

    Args:
        name: The model's name; None means WordLlama.

    Raises:
        UnknownName: There is no such kind of model.
        InvalidValue: The name lacks its folder, or has one too many.
        ModelMissing: The model is not on this machine.
        ModelUnusable: The model's files cannot be read, or do not fit together.
        LibraryMissing: The library that runs the model is not installed.
    """
    kind, colon, place = (name or "wordllama").partition(":")
    if kind not in KINDS:
        advice = did_you_mean(kind, KINDS, f": use {', '.join(KINDS)}.")
        raise UnknownName(f"There is no kind of model named {kind!r}{advice}")
    if kind == "wordllama":
        if colon:
            raise InvalidValue("The model wordllama has no folder: write it without a colon.")
        from aico_lab.embeddings.encoders.wordllama import WordLlama

        return WordLlama()
    if not place.strip():
        raise InvalidValue(f"A model of the kind {kind} has a folder: write {kind}:FOLDER.")
    if kind == "onnx":
        from aico_lab.embeddings.encoders.onnx import Onnx

        return Onnx(place)
    from aico_lab.embeddings.encoders.sentence_transformers import SentenceTransformers

    return SentenceTransformers(place)
