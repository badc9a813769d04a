"""Every sample of an export imported again, and after one of its messages was edited."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.errors import AicoLabError
from aico_lab.sources import SOURCES
from aico_lab.sources.exports.engine.conversation import Options
from tests.test_exports import FORMATS, SAMPLES, expected

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.lab import Lab

NOT_EDITED = frozenset({"gemini_myactivity.json", "pigpig_memory.db"})
"""Prompts of Gemini cannot be edited, and are known by their text; the other one is no text."""


def word_of_one(sample: str) -> str:
    """Return a word that is in one message of a sample only."""
    texts = [line["content"] or "" for line in expected(sample)]
    for text in texts[len(texts) // 2 :] + texts:
        for word in re.findall(r"[a-z]{4,}", text):
            if sum(word in other for other in texts) == 1:
                return str(word)
    raise AssertionError(sample)


@pytest.mark.slow
def test_samples_again_add_nothing_and_an_edit_updates_one_message(
    lab: Lab, tmp_path: Path
) -> None:
    for sample, (name, given) in FORMATS.items():
        options = Options(**given)
        path = tmp_path / sample
        data = (SAMPLES / sample).read_bytes()
        path.write_bytes(data)
        first = lab.import_from(name, path, options=options)
        again = lab.import_from(name, path, options=options)
        assert (first.added, first.updated) == (first.read, 0), sample
        assert (again.added, again.updated, again.known) == (0, 0, first.read), sample
        if sample in NOT_EDITED:
            continue
        word = word_of_one(sample)
        path.write_bytes(data.replace(word.encode(), f"{word[:2]}x{word[3:]}".encode()))
        counts = [
            (result.added, result.updated)
            for dry_run in (True, False, False)
            for result in [lab.import_from(name, path, options=options, dry_run=dry_run)]
        ]
        assert counts == [(0, 1), (0, 1), (0, 0)], sample


@pytest.mark.parametrize(
    "answers",
    [{}, {"map": {"content": "x"}}, {"map": {"author": "mes"}}, {"role_map": {"x": "user"}}],
)
def test_no_error_about_a_file_that_is_no_table_has_a_text(answers: dict[str, Any]) -> None:
    """As of a saved import of tables that meets another file; errors go into logs."""
    options = Options.read(**answers, start="2024-01-01")
    for sample, (name, _) in FORMATS.items():
        try:
            list(SOURCES["table"].read(SAMPLES / sample, options=options))
        except AicoLabError as refused:
            told = str(refused)
            if name != "replika":  # whose CSV is a table
                assert f"in the format {name}" in told or name in ("openai", "sharegpt"), told
        else:
            told = ""
        texts = [line["content"] or "" for line in expected(sample)]
        assert not [text for text in texts if len(text) > 8 and text in told], told


def test_no_error_about_a_wrong_column_has_a_text(tmp_path: Path) -> None:
    rows = [f"2024-05-01T10:{at:02d}:00Z,a secret {at},{'wor ' * 12}{at}" for at in range(60)]
    path = tmp_path / "chat.csv"
    path.write_text("\n".join(["when,text,more", *rows]), encoding="utf-8")
    for column in ("text", "more"):
        other = {"text": "more", "more": "text"}[column]
        for field in ("author", "role"):
            options = Options.read(map={"content": other, field: column}, companion="Otto")
            with pytest.raises(AicoLabError) as refused:
                list(SOURCES["table"].read(path, options=options))
            assert "secret" not in str(refused.value)
            assert "wor" not in str(refused.value).replace("word", "")
