"""An import by shorter ways writes what one by the plain ways writes."""

from __future__ import annotations

import itertools
import json
import random
from unittest import mock

import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from aico_lab.adapters import libsql
from aico_lab.messages import sentiment, timestamps
from aico_lab.sources import files, jsonl

VADER = SentimentIntensityAnalyzer()
WORDS = [
    *(
        "good",
        "BAD",
        "great!",
        "shit",
        "the",
        "bomb",
        "yeah",
        "right",
        "not",
        "never",
        "so",
        "this",
    ),
    *("without", "doubt", "isn't", "very", "kind", "of", "least", "at", "but", "no", "or", "nor"),
    *("love", "hate", ":)", "??", "!!!", "is", "a", "talk", "about", "nothing", "that", "Table"),
]
ODD = [
    '{"content": "a number", "timestamp": "2024-05-01T12:00:00Z", "message_id": 12345678901234567}',
    '{"content": "long", "timestamp": "2024-05-01T12:00:00Z", "n": 123456789012345678901234}',
    '{"content": "no such day", "timestamp": "2023-02-29T12:00:00.000000Z"}',
    '{"content": "other zone", "timestamp": "2024-05-01T12:00:00.5+02:00"}',
    '{"content": "2", "timestamp": "2024-05-01T12:00:00Z", "message_id": "", "response_time": -1}',
    '{"content": "given", "timestamp": "2024-05-01T12:00:00Z", "sentiment_score": 0.123456789}',
    '{"content": "more", "timestamp": "2024-05-01T12:00:00Z", "response_time": 3, "metadata": {}}',
    '{"content": "extra", "timestamp": "2024-05-01T12:00:00Z", "mood": {"x": [1, 2.5]}}',
    '{"content": "lone \\ud800 half", "timestamp": "2024-05-01T12:00:00Z"}',
    '{"content": "Heute war ein sehr schöner Tag am See", "timestamp": "2024-05-01T12:00:00Z"}',
    '{"content": "don’t like 💔", "timestamp": "2024-05-01T12:00:00Z"}',  # noqa: RUF001
    '{"content": 7}',
    "no JSON",
    "[1]",
    "",
]
WRITTEN = {
    "messages": "*",
    "channels": "*",
    "users": "*",
    "change_log": "seq, table_name, row_key, op, device_id",
}


@pytest.fixture
def file(tmp_path):
    """Some 700 lines in three conversations, with every odd one more than once."""
    chance = random.Random(7)
    lines = [
        json.dumps(
            {
                "message_id": f"m{number if number % 50 else 0}",
                "conversation_id": f"c{number % 3}",
                "user_id": f"u{number % 5}",
                "content": " ".join(chance.choices(WORDS, k=chance.randint(0, 12))),
                "timestamp": f"2024-05-{1 + number % 31:02}T12:00:{number % 60:02}.{number:06}Z",
            }
        )
        for number in range(640)
    ] + 4 * ODD
    chance.shuffle(lines)
    path = tmp_path / "messages.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def import_(homes, home, file):
    """Import twice, the second time in other batches; return the results and all that is there."""
    with homes.open(home) as lab:
        results = [lab.import_from("jsonl", file, limit=300), lab.import_from("jsonl", file)]
        tables = {
            table: lab.primary.fetch_all(f"SELECT {columns} FROM {table} ORDER BY 1")
            for table, columns in WRITTEN.items()
        }
    return results, tables


def library_score(text):
    plain = text.translate({ord("’"): "'", 0xFE0F: None})  # noqa: RUF001
    return VADER.polarity_scores(plain)["compound"] + 0.0


def test_the_short_ways_write_what_the_plain_ways_write(homes, file, tmp_path):
    """Rows, scores, ids, the change feed, and what the result says of lines and conflicts."""
    with mock.patch.object(files, "BATCH_MESSAGES", 128):
        results, tables = import_(homes, tmp_path / "short", file)
        with (
            mock.patch.object(libsql, "ROWS_A_STATEMENT", 1),
            mock.patch.object(jsonl, "_NESTED", 0),  # every line by Python's own parser
            mock.patch.object(timestamps, "_AS_STORED", mock.Mock(fullmatch=lambda _: None)),
            mock.patch.object(sentiment, "scorer", return_value=library_score),
        ):
            plain_results, plain_tables = import_(homes, tmp_path / "plain", file)
    for table, rows in tables.items():
        for row, plain in itertools.zip_longest(rows, plain_tables[table]):
            assert repr(row) == repr(plain)
    assert results == plain_results
    assert all((results[0].added, results[1].rejected, results[1].conflicts))
