"""A program that writes all the time while its database is loaded or synced.

Nothing is lost, nothing doubled, and no half is seen of what it wrote in one transaction.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest

from aico_lab.errors import DatabaseLocked

ROUNDS = 4

WRITER = """
import json, random, sqlite3, sys, time
path, begin, *statements = json.loads(sys.argv[1])
chance, number, done = random.Random(7), 0, False
other = sqlite3.connect(path, isolation_level=None, timeout=60)
other.execute("PRAGMA foreign_keys = ON")
for statement in begin:
    other.execute(statement)
print("begun", flush=True)
import select
while not select.select([sys.stdin], [], [], 0.01)[0]:
    number += 1
    other.execute("BEGIN IMMEDIATE")
    for statement in statements:
        other.execute(statement, {
            "n": number, "now": time.time(), "old": chance.randrange(number),
            "gone": chance.randrange(number)})
    other.execute("COMMIT")
other.close()
print(number)
"""


@contextmanager
def writing(path, begin, *statements):
    """Let another process run these statements, all in one transaction, again and again."""
    command = [sys.executable, "-c", WRITER, json.dumps([str(path), begin, *statements])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as theirs:
        assert theirs.stdout.readline().strip() == b"begun"
        yield
        written, _ = theirs.communicate(b"\n")
    assert theirs.returncode == 0
    assert int(written) > ROUNDS, "it did write"


PAIR = (
    "INSERT INTO t (amount, at) VALUES (:n, :now), (-:n, :now)",
    "UPDATE t SET amount = 2 * amount, at = :now WHERE abs(amount) = :old",
    "DELETE FROM t WHERE abs(amount) = :gone AND :n % 5 = 0",
)
TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, amount INTEGER, at {})"


@pytest.fixture
def lab(home, homes):
    """A synced lab without encryption, into whose home other programs can write."""
    with homes.open(home, "none", synced=True) as opened:
        yield opened


@pytest.mark.parametrize("mode", ["wal", pytest.param("delete", marks=pytest.mark.slow)])
@pytest.mark.parametrize("at", ["REAL", pytest.param("DATETIME", marks=pytest.mark.slow)])
def test_a_load_loses_and_doubles_nothing(lab, tmp_path, mode, at):
    """Each one sees a state between two transactions, and the last one all of them."""
    shop = tmp_path / "shop.db"
    options = {"watermark": "at", "lag": 5, "deletes": True}
    begin = [f"PRAGMA journal_mode = {mode}", TABLE.format(at), PAIR[0].replace(":now", "1e9")
             .replace(":n", "1000000")]  # fmt: skip
    loaded = 0
    with writing(shop, begin, *PAIR):
        while loaded < ROUNDS:
            try:
                lab.load(shop, "t", **options)
            except DatabaseLocked:  # it was held for long; nothing is changed then
                continue
            loaded += 1
            total, rows, ids = lab.sql(
                "SELECT sum(amount), count(*), count(DISTINCT id) FROM shop.t"
            ).fetchone()
            assert (total, rows % 2, rows) == (0, 0, ids)
    lab.load(shop, "t", **options)
    query = "SELECT id, amount FROM {}t ORDER BY id"
    with closing(sqlite3.connect(shop)) as connection:
        there = connection.execute(query.format("")).fetchall()
    assert lab.sql(query.format("shop.")).fetchall() == there
    assert lab.load(shop, "t", **options).rows == 0


MESSAGE = (
    "INSERT INTO messages (message_id, channel_id, conversation_id, user_id, role, content, "
    "timestamp) VALUES ({}, 'c', 'c', 'u', 'user', :n, '2024-05-01T10:00:00.000000Z')"
)
RENAME = (
    "UPDATE messages SET message_id = message_id || '+', content = 'new' "
    "WHERE content = '' || :old AND typeof(message_id) = 'text'"
)


@pytest.mark.slow
def test_a_sync_loses_and_doubles_nothing(lab):
    """With rows that come, change their key, move to quarantine and go, and keys of blobs."""
    begin = [
        "INSERT INTO users VALUES ('u', NULL, '2024-05-01T10:00:00.000000Z', NULL)",
        "INSERT INTO channels (channel_id, created_at) VALUES ('c', '2024-05-01T10:00:00.000000Z')",
    ]
    statements = [
        MESSAGE.format("'a' || :n"),
        MESSAGE.format("'b' || :n"),
        MESSAGE.format("CAST('a' || :n AS BLOB)"),
        RENAME,
        "UPDATE messages SET sentiment_score = iif(:n % 2, 'bad', NULL) WHERE content = 'new'",
        "DELETE FROM messages WHERE message_id = CAST('a' || :gone AS BLOB)",
        "DELETE FROM messages WHERE content = '' || :gone AND :n % 7 = 0",
    ]
    whole = (
        "SELECT count(*) FILTER (message_id LIKE 'a%') - count(*) FILTER (message_id LIKE 'b%'), "
        "count(*) - count(DISTINCT message_id) FROM raw.messages"
    )
    with writing(lab.home.primary, begin, *statements):
        for round_ in range(ROUNDS):
            lab.sync(full=round_ == ROUNDS // 2)
            assert lab.sql(whole).fetchone() == (0, 0)
            proof = lab.verify()
            assert proof.ok, proof
    lab.sync()
    proof = lab.verify()
    assert proof.ok, proof
    there = lab.primary.fetch_all("SELECT count(*) FROM messages WHERE typeof(message_id) = 'text'")
    aside = "SELECT count(DISTINCT row_key) FROM quarantine.misfits WHERE row_key NOT LIKE 'x''%'"
    rows = lab.sql(f"SELECT (SELECT count(*) FROM raw.messages) + ({aside})").fetchone()
    assert [rows] == there
    assert lab.sync().mode == "nothing"
