"""Vectors of texts: one contract for every encoder that runs without a download."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from aico_lab.embeddings.encoders import Encoder, open_encoder
from aico_lab.embeddings.encoders.wordllama import DIMENSIONS, MAX_TOKENS, WordLlama
from aico_lab.errors import (
    AicoLabError,
    InvalidValue,
    LibraryMissing,
    ModelMissing,
    ModelUnusable,
    UnknownName,
    UnstorableValue,
)
from tests import models

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TEXTS = ["the time I felt homesick", "I missed my family abroad", "a recipe for onion soup"]


def build(kind: str, folder: Path) -> str:
    """Return the name of a model of a kind; a tiny one is built, unless it comes with a library."""
    if kind == "onnx":
        return f"onnx:{models.write_onnx(folder / 'tiny')}"
    if kind == "sentence-transformers":
        return f"sentence-transformers:{write_sentence_transformers(folder / 'tiny')}"
    return kind


def write_sentence_transformers(folder: Path) -> Path:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer

    models.write_tokenizer(folder / "raw")
    table = np.nan_to_num(models.vectors_of_words())
    tokenizer = Tokenizer.from_file(str(folder / "raw" / "tokenizer.json"))
    static = StaticEmbedding(tokenizer, embedding_weights=table)
    library.SentenceTransformer(modules=[static]).save(str(folder / "model"))
    return folder / "model"


@pytest.fixture(scope="module", params=["wordllama", "onnx", "sentence-transformers"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return open_encoder(build(request.param, tmp_path_factory.mktemp("models")))


def encode(encoder: Encoder, texts: list[str]) -> NDArray[np.float32]:
    return encoder.encode_usable(texts)[0]


class TestEveryEncoder:
    def test_vectors_have_length_one(self, encoder):
        """So cosine similarity is the dot product of two vectors."""
        vectors = encode(encoder, TEXTS)
        assert vectors.shape == (3, encoder.dimensions)
        assert vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)

    def test_what_means_the_same_is_nearer(self, encoder):
        """A text about homesickness is nearer to missing a family than to soup."""
        homesick, missed, soup = encode(encoder, ["homesick", "missed", "onion soup"])
        assert homesick @ missed > homesick @ soup

    def test_a_vector_depends_on_its_text_alone(self, encoder):
        """A replay writes the same vectors, whatever the batch and its padding."""
        together = encode(encoder, [*TEXTS * 50, "long " * 300])
        alone = np.vstack([encode(encoder, [text]) for text in TEXTS])
        assert np.array_equal(together[:3], alone)

    @pytest.mark.parametrize("blank", ["", " ", "\n\t  ", "\u00a0"])
    def test_a_blank_text_is_left_out(self, encoder, blank):
        """WordLlama itself returns NaN, or a vector of the spaces."""
        vectors, usable = encoder.encode_usable(["one", blank, "two"])
        assert usable == [True, False, True]
        assert np.array_equal(vectors, encode(encoder, ["one", "two"]))

    def test_nothing_gives_nothing(self, encoder):
        assert encode(encoder, []).shape == (0, encoder.dimensions)
        assert encoder.encode_usable(["", " "])[1] == [False, False]

    def test_half_a_surrogate_pair_is_refused(self, encoder):
        """It is not valid text, and the error does not repeat it."""
        with pytest.raises(UnstorableValue, match="not valid Unicode"):
            encode(encoder, ["one", "\ud800"])

    def test_a_huge_text_needs_no_huge_memory(self, encoder):
        """Only its beginning counts, because a batch may be padded to its longest text."""
        huge = "long " * 100_000
        vectors = encode(encoder, [huge, *TEXTS])
        beginning = encode(encoder, ["long " * (MAX_TOKENS + 100)])[0]
        assert np.allclose(vectors[0], beginning, atol=1e-3)

    def test_its_name_has_a_version_and_no_path(self, encoder):
        assert any(mark in encoder.model for mark in ("@", "-0.4-"))
        assert "/" not in encoder.model
        assert encoder.model in repr(encoder)


def test_vectors_of_wordllama_are_those_of_the_library():
    """Bit by bit; the library pads each batch, which takes four times as long."""
    from aico_lab.embeddings.encoders import wordllama

    texts = [*TEXTS, "🙂", "x" * 5000, "Grüße, 你好", "long " * 300]
    model = wordllama._model()
    model.tokenizer.enable_padding()
    try:
        theirs = model.embed(texts, batch_size=3)
    finally:
        model.tokenizer.no_padding()
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    assert np.array_equal(encode(WordLlama(), texts), theirs)
    assert theirs.shape == (len(texts), DIMENSIONS)


def test_a_text_whose_vector_is_not_a_number_is_left_out(tmp_path):
    """The other texts of its batch are not."""
    onnx = open_encoder(build("onnx", tmp_path))
    vectors, usable = onnx.encode_usable(["one", "lost one", "two"])
    assert usable == [True, False, True]
    assert np.array_equal(vectors, encode(onnx, ["one", "two"]))


def test_a_folder_says_which_token_is_the_text(tmp_path):
    """The first one, or the mean of all."""
    first = open_encoder(f"onnx:{models.write_onnx(tmp_path / 'first', first_token=True)}")
    mean = open_encoder(f"onnx:{models.write_onnx(tmp_path / 'mean')}")
    one, both = encode(first, ["homesick", "homesick soup"])
    assert np.array_equal(one, both)
    table = models.vectors_of_words()
    expected = table[models.WORDS.index("homesick")] + table[models.WORDS.index("soup")]
    [found] = encode(mean, ["homesick soup"])
    assert np.allclose(found, expected / np.linalg.norm(expected), atol=1e-6)


def test_other_weights_are_another_model_wherever_the_folder_is(tmp_path):
    """A moved folder is the same one."""
    written = models.write_onnx(tmp_path / "a" / "tiny")
    moved = shutil.copytree(written, tmp_path / "b" / "tiny")
    other = models.write_onnx(tmp_path / "c" / "tiny", vectors=models.vectors_of_words() * 2)
    names = [open_encoder(f"onnx:{folder}").model for folder in (written, moved, other)]
    assert names[0] == names[1] != names[2]


def empty(folder: Path) -> None:
    folder.mkdir()


def no_tokenizer(folder: Path) -> None:
    (models.write_onnx(folder) / "tokenizer.json").unlink()


def broken_weights(folder: Path) -> None:
    (models.write_onnx(folder) / "model.onnx").write_bytes(b"no model")


def broken_tokenizer(folder: Path) -> None:
    (models.write_onnx(folder) / "tokenizer.json").write_text("{")


def broken_pooling(folder: Path) -> None:
    models.write_onnx(folder, first_token=True)
    (folder / "1_Pooling" / "config.json").write_text("{")


def foreign_tokenizer(folder: Path) -> None:
    models.write_onnx(folder, vectors=models.vectors_of_words()[:1])


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda _: None, ModelMissing), (empty, ModelMissing), (no_tokenizer, ModelMissing),
        (broken_weights, ModelUnusable), (broken_tokenizer, ModelUnusable),
        (broken_pooling, ModelUnusable), (foreign_tokenizer, ModelUnusable),
    ],
)  # fmt: skip
def test_a_folder_without_a_sound_model_is_one_sentence(tmp_path, capfd, damage, error):
    """Nothing else is printed, and it says what to do."""
    damage(tmp_path / "m")
    with pytest.raises(error, match=r"^The [^\n]*: [^\n]*\.$"):
        open_encoder(f"onnx:{tmp_path / 'm'}")
    assert capfd.readouterr() == ("", "")


def test_a_model_whose_vectors_change_their_size_is_refused(tmp_path):
    """Here with the number of tokens in the text."""
    odd = open_encoder(f"onnx:{models.write_onnx(tmp_path / 'm', output='Flatten')}")
    with pytest.raises(ModelUnusable, match="use another model"):
        odd.encode_usable(["one two"])


@pytest.mark.parametrize("name", ["wordlama", "sentence-transformer:x", "gpt", "ONNX:x"])
def test_an_unknown_kind_of_model_is_answered_with_the_known_ones(name):
    with pytest.raises(UnknownName, match=r"did you mean|use wordllama"):
        open_encoder(name)


@pytest.mark.parametrize(
    "name", ["onnx", "onnx:", "onnx: ", "sentence-transformers:", "wordllama:x"]
)
def test_a_name_without_its_folder_is_refused(name):
    with pytest.raises(InvalidValue, match="folder"):
        open_encoder(name)


def test_a_model_that_would_have_to_be_downloaded_is_one_sentence(monkeypatch):
    """No connection is opened to look for it."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(AicoLabError, match=r"download|pip install") as raised:
        open_encoder("sentence-transformers:nobody/has-this-model")
    assert isinstance(raised.value, (ModelMissing, LibraryMissing))


def test_nothing_is_downloaded_and_logging_is_left_alone(monkeypatch):
    """WordLlama downloads missing files, and sets the root logger to INFO."""
    from aico_lab.embeddings.encoders import wordllama

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    wordllama._model.cache_clear()
    before = list(logging.getLogger().handlers), logging.getLogger().level
    encode(WordLlama(), ["hello"])
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before


@pytest.mark.slow
def test_another_process_gives_the_same_and_its_logging_is_left_alone():
    """Vectors do not depend on earlier encodings or imports."""
    code = (
        "import logging, sys; from aico_lab.embeddings.encoders import open_encoder;"
        f"sys.stdout.buffer.write(open_encoder().encode_usable({TEXTS!r})[0].tobytes());"
        "print(logging.getLogger().handlers, logging.getLogger().level, file=sys.stderr)"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert fresh.stdout == encode(WordLlama(), TEXTS).tobytes()
    assert fresh.stderr.split() == [b"[]", b"30"]


@pytest.mark.slow
def test_the_model_is_loaded_on_first_use_only():
    """Opening the encoder is fast."""
    code = (
        "import sys; from aico_lab.embeddings.encoders import open_encoder; open_encoder();"
        "print('wordllama' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
