"""Tiny models that tests build themselves, in ONNX's and in sentence-transformers' format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

WORDS = (
    "[PAD]", "[UNK]", "the", "time", "i", "felt", "homesick", "missed", "my", "family", "abroad",
    "a", "recipe", "for", "onion", "soup", "one", "two", "long", "lost",
)  # fmt: skip
DIMENSIONS = 8
INT64, FLOAT = 7, 1


def vectors_of_words(dimensions: int = DIMENSIONS) -> np.ndarray:
    """Return invented vectors; the one of "lost" is not a number, those of [PAD] are huge."""
    made = np.random.default_rng(7).normal(size=(len(WORDS), dimensions)).astype("<f4")
    made[WORDS.index("homesick")] = made[WORDS.index("missed")] + 0.1
    made[WORDS.index("lost")] = np.nan
    made[0] = 1e6  # a padding that counts would be noticed
    return made


def write_tokenizer(folder: Path, *, words: tuple[str, ...] = WORDS) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(words)}, "[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_onnx(
    folder: Path, *, first_token: bool = False, output: str = "Gather", vectors=None
) -> Path:
    """Write a model that looks up the vector of each token.

    Args:
        folder: The folder.
        first_token: Whether its configuration says that the first token's vector is the text's.
        output: The operator that makes the output: 'Gather' for a vector for each token,
            'Flatten' for a matrix without a fixed number of columns.
        vectors: The vectors of the tokens.
    """
    write_tokenizer(folder)
    table = vectors_of_words() if vectors is None else vectors
    nodes = [_node("Gather", ["table", "input_ids"], "looked up")]
    if output == "Flatten":
        nodes.append(_node("Flatten", ["looked up"], "out"))
    else:
        nodes.append(_node("Identity", ["looked up"], "out"))
    dims = _packed([*table.shape])
    initializer = dims + _number(2, FLOAT) + _text(8, "table") + _bytes(9, table.tobytes())
    graph = (
        b"".join(_bytes(1, node) for node in nodes)
        + _text(2, "tiny")
        + _bytes(5, initializer)
        + _bytes(11, _value("input_ids", INT64, ["batch", "tokens"]))
        + _bytes(11, _value("attention_mask", INT64, ["batch", "tokens"]))
        + _bytes(12, _value("out", FLOAT, None))
    )
    opset = _number(2, 13)
    (folder / "model.onnx").write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, opset))
    if first_token:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(
            json.dumps({"pooling_mode_cls_token": True})
        )
    return folder


# The wire format of protocol buffers, in which ONNX files are written: each field is its number and
# kind, then a whole number, or a length and as many bytes.


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _packed(values: list[int]) -> bytes:
    return b"".join(_number(1, value) for value in values)


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    return b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(4, operator)


def _value(name: str, kind: int, shape: list[str] | None) -> bytes:
    tensor = _number(1, kind)
    if shape is not None:
        tensor += _bytes(2, b"".join(_bytes(1, _text(2, axis)) for axis in shape))
    return _text(1, name) + _bytes(2, _bytes(1, tensor))
