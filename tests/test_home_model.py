"""The model of a home: every command and every exploration uses the right one."""

from __future__ import annotations

import pytest

from aico_lab.embeddings import text_index
from aico_lab.embeddings.encoders import open_encoder
from aico_lab.errors import ModelMissing
from aico_lab.lab import Lab
from tests import models
from tests.messages import add, add_memories, at, message

WORDLLAMA = open_encoder().model
TEXTS = ("homesick my family", "a recipe for onion soup", "one two long time") * 4


def talk(lab):
    """Write messages with pauses between them, so that each is a segment."""
    add(
        lab.primary,
        *(
            message(number, content=content, timestamp=at(number * 10_000))
            for number, content in enumerate(TEXTS)
        ),
    )


def test_vectors_are_made_with_the_model_that_was_chosen(lab, home, tmp_path, monkeypatch, cli):
    """By commands and in labs that are opened later, whatever the folder they are in."""
    talk(lab)
    add_memories(lab.primary, "felt homesick")
    lab.close()
    models.write_onnx(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    for name, model in (("onnx:tiny", "onnx:tiny@"), ("wordllama", WORDLLAMA), ("onnx:tiny", "")):
        done = cli("index", "--model", name)
        assert done.returncode == 0, done.stderr
        with Lab.open(home) as opened:
            now = text_index.model(opened.primary)
        assert now.startswith(model)
        assert f"All vectors are now made with the model {now}.\n" in done.stdout
        assert "Nothing changed" not in done.stdout
    monkeypatch.chdir("/")
    assert cli("sync", "--only", "vectors").returncode == 0
    with Lab.open(home) as opened:
        assert opened.memories.index.model.startswith("onnx:tiny@")
        found = opened.search("missed my family", mode="semantic", k=4)
        assert {one.text for one in found} == {TEXTS[0]}
        assert "onnx:tiny@" in text_index.model(opened.primary)


def test_a_model_that_is_missing_changes_nothing(lab, tmp_path, cli):
    """And one that disappears later is one sentence of every command that needs it."""
    talk(lab)
    with pytest.raises(ModelMissing, match=r"has no model\.onnx"):
        lab.embeddings.use_model(f"onnx:{tmp_path / 'none'}")
    folder = models.write_onnx(tmp_path / "tiny")
    assert lab.embeddings.use_model(f"onnx:{folder}")
    assert not lab.embeddings.use_model(f"onnx:{folder}")
    (folder / "model.onnx").unlink()
    lab.close()
    done = cli("search", "soup")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "has no model.onnx" in done.stderr
    assert cli("index", "--model", "wordllama").returncode == 0
    assert cli("search", "soup").returncode == 0


def test_an_exploration_keeps_the_model_that_it_was_made_with(lab, home, tmp_path):
    """The home's model is another one meanwhile, and the lab another process's."""
    talk(lab)
    lab.embeddings.update()
    made = lab.embeddings.explore(
        themes=2, min_people=1, model=f"onnx:{models.write_onnx(tmp_path / 'tiny')}"
    )
    lab.close()
    with Lab.open(home) as opened:
        near = opened.embeddings.neighbours("missed my family", k=4, content=True)
        assert "onnx:tiny@" in near.caption
        assert set(near.pl()["text"]) == {TEXTS[0]}
        assert opened.embeddings.place_new() == 0
        assert opened.embeddings.drift(model="wordllama").pl().height == 3
        models.write_onnx(tmp_path / "tiny", vectors=models.vectors_of_words() * 2)
        with pytest.raises(ModelMissing, match="not where it was"):
            opened.embeddings.neighbours("missed my family")
        opened.primary.execute("DELETE FROM system_state WHERE key LIKE 'name of model%'")
        with pytest.raises(ModelMissing, match="not where it was"):
            opened.embeddings.drift()
    assert made.exploration_id
