"""Bytes that are not UTF-8, and numbers that are no JSON: they are named, and nothing is lost."""

from __future__ import annotations

import io
import json
import random
import re
from typing import TYPE_CHECKING

import pytest

from aico_lab.sources import SOURCES, recognise
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.sources.exports.engine.replaced import Replaced, SoundStream
from tests.exported import Read, read
from tests.test_exports import FORMATS, SAMPLES, expected

if TYPE_CHECKING:
    from pathlib import Path

BYTES = [name for name, (kind, _) in FORMATS.items() if kind != "pigpig"]
NUMBERS = [name for name in BYTES if name.endswith((".json", ".jsonl"))]


def read_changed(sample: str, data: bytes, folder: Path) -> Read:
    """Return what is read from a changed sample, which is still recognised."""
    name, options = FORMATS[sample]
    path = folder / sample
    path.write_bytes(data)
    assert recognise(path).name == name
    return Read(list(SOURCES[name].read(path, options=Options(**options))))


def notes(found: Read) -> list[str]:
    return [note for batch in found.batches for note in batch.notes]


def in_a_text(data: bytes, sample: str) -> int:
    """Return a place within the text of a message."""
    for line in reversed(expected(sample)):
        for word in re.findall(r"[a-z]{4,}", line["content"] or ""):
            if (at := data.rfind(word.encode())) > 0:
                return at + 2
    raise AssertionError(sample)


@pytest.mark.parametrize("sample", BYTES)
def test_a_byte_that_is_not_utf8_loses_nothing_and_is_counted(sample: str, tmp_path: Path) -> None:
    data = (SAMPLES / sample).read_bytes()
    sound = read_changed(sample, data, tmp_path)
    at = in_a_text(data, sample)
    found = read_changed(sample, data[:at] + b"\xff" + data[at:], tmp_path)
    assert len(found.messages) == len(sound.messages)
    assert found.rejected == sound.rejected
    assert notes(sound) == []
    assert notes(found) == [
        f"{sample} has 1 place that is not UTF-8, read as the character U+FFFD."
    ]


@pytest.mark.parametrize("sample", NUMBERS)
@pytest.mark.parametrize("number", [b"NaN", b"-Infinity"])
def test_a_number_that_is_no_json_loses_nothing(sample: str, number: bytes, tmp_path: Path) -> None:
    data = (SAMPLES / sample).read_bytes()
    sound = read_changed(sample, data, tmp_path)
    places = [found.start() for found in re.finditer(rb'(?<=[{])\s*"(?!\W)', data)]
    at = places[len(places) // 2]
    found = read_changed(sample, data[:at] + b'"x": ' + number + b"," + data[at:], tmp_path)
    assert found.messages == sound.messages
    assert found.rejected == sound.rejected
    assert notes(found) == [f"{sample} has 1 value such as NaN, which is no JSON, read as null."]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_a_table_says_what_was_replaced(name: str, tmp_path: Path) -> None:
    rows = [b'{"text": "caf\xe9 NaN", "time": 1715591106, "score": NaN}',
            b'{"text": "tea", "time": 1715591107, "score": -Infinity}']  # fmt: skip
    path = tmp_path / name
    path.write_bytes(b"\n".join(rows) if name == "x.jsonl" else b"[" + b",\n".join(rows) + b"]")
    found = read("table", path)
    character = "\xe9" if name == "x.jsonl" else "\ufffd"
    assert found.contents == [f"caf{character} NaN", "tea"]
    assert found.metadata == [{}, {}]
    assert found.rejected == []
    where, values = notes(found)
    assert where.startswith(("1 line is not UTF-8", "x.json has 1 place that is not UTF-8"))
    assert values == f"{name} has 2 values such as NaN, which is no JSON, read as null."


def test_only_constants_outside_strings_are_replaced_wherever_the_text_is_cut() -> None:
    data = b'{"NaN": [NaN, -Infinity,Infinity], "a\\"NaN, \\\\": "NaN\xff\xe2\x82,\xef\xbf\xbd"'
    data += b',"b":NaN}'
    chance = random.Random(1)
    for _ in range(200):
        replaced, stream = Replaced(), io.BytesIO(data)
        sound = SoundStream(stream, replaced)
        read_so_far = b""
        while piece := sound.read(chance.randrange(1, 9)):
            read_so_far += piece
        assert json.loads(read_so_far) == {
            "NaN": [None, None, None], 'a"NaN, \\': "NaN\ufffd\ufffd,\ufffd", "b": None,
        }  # fmt: skip
        assert (replaced.characters, replaced.numbers) == (2, 4)
