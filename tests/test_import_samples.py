"""Every sample of an export imported again, and after one of its messages was edited."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

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
