"""Damaged tables: no traceback, and no row lost that is whole."""

from __future__ import annotations

import csv
import io
import json
import random
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import parquet

from aico_lab.messages.rules import ROLES
from aico_lab.messages.timestamps import to_timestamp
from aico_lab.sources.exports.engine.conversation import Options
from tests.exported import read
from tests.test_exports_fuzz import FEW, MANY, MUTATIONS, read_somehow, without_a_piece

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [
    {
        "id": f"{n}",
        "Date": f"{n % 28 + 1:02}.05.2024 {n % 24:02}:{n % 60:02}:00",
        "Sender": "Otto" if n % 2 else "Ada",
        "Text": f'Grüße {n}, „so“; und\n{"mehr" * (n % 5)} "x" {n / 7}',
        "Thread": f"t{n % 3}",
    }
    for n in range(40)
]


def as_csv(delimiter: str, encoding: str) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return out.getvalue().encode(encoding)


def as_parquet() -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(ROWS), out, row_group_size=10)
    return out.getvalue()


SAMPLES = {
    "comma.csv": as_csv(",", "utf-8"),
    "semicolon.csv": as_csv(";", "cp1252"),
    "tab.tsv": as_csv("\t", "utf-16"),
    "array.json": json.dumps(ROWS, ensure_ascii=False, indent=1).encode(),
    "lines.jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
    "table.parquet": as_parquet(),
}
OPTIONS = {"companion": ("Otto",), "day_first": True}


def read_mutation(sample: str, folder: Path, seed: int) -> int:
    """Write a mutation of a sample, read it, and check that its messages can be stored.

    Returns:
        The number of messages.
    """
    chance = random.Random(f"{sample} {seed}")
    data = chance.choice(MUTATIONS)(SAMPLES[sample], chance)
    if chance.random() < 0.2:
        data = chance.choice(MUTATIONS)(data or b" ", chance)
    path = folder / sample
    path.write_bytes(data)
    messages = read_somehow(path, "table", Options(**OPTIONS))
    for message in messages:
        assert message.role in ROLES
        assert to_timestamp(message.timestamp) == message.timestamp
        assert message.message_id
        assert "\0" not in message.content
        message.content.encode()
    return len(messages)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sound_table_is_read_whole(sample, tmp_path):
    path = tmp_path / sample
    path.write_bytes(SAMPLES[sample])
    found = read("table", path, **OPTIONS)
    assert found.contents == [row["Text"] for row in ROWS]
    assert found.rejected == []


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_damaged_table_ends_in_no_traceback(sample, tmp_path):
    found = [read_mutation(sample, tmp_path, seed) for seed in range(FEW)]
    assert any(found)


@pytest.mark.slow
@pytest.mark.parametrize("sample", SAMPLES)
def test_hundreds_of_damaged_tables_end_in_no_traceback(sample, tmp_path):
    found = [read_mutation(sample, tmp_path, seed) for seed in range(FEW, FEW + MANY)]
    assert sum(map(bool, found)) > MANY / 10


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_rows_beside_a_damaged_one_are_kept(kind, tmp_path):
    """A piece is cut out of one row of many."""
    rows = [{"text": f"row {n} says hello", "time": 1715591106 + n} for n in range(30)]
    if kind == "csv":
        begin, end, between = b"text,time\n", b"\n", b"\n"
        pieces = [f'"{row["text"]}",{row["time"]}'.encode() for row in rows]
    else:
        begin, end, between = (b"[", b"]", b", ") if kind == "json" else (b"", b"\n", b"\n")
        pieces = [json.dumps(row).encode() for row in rows]
    chance = random.Random(3)
    path = tmp_path / f"x.{kind}"
    for _ in range(40):
        hit = chance.randrange(1, len(rows))
        damaged = without_a_piece(pieces[hit], chance)
        path.write_bytes(begin + between.join([*pieces[:hit], damaged, *pieces[hit + 1 :]]) + end)
        contents = read("table", path).contents
        whole = [row["text"] for n, row in enumerate(rows) if n != hit]
        assert [one for one in contents if one in whole] == whole
