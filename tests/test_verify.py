"""`verify` proves that both databases hold the same, and names what they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aico_lab.errors import NeverSynced
from aico_lab.etl import extract as extract_module
from aico_lab.etl import pages
from aico_lab.etl.verify import Difference
from tests.messages import add, at, message
from tests.reading import reads

if TYPE_CHECKING:
    from aico_lab.lab import Lab


@pytest.fixture
def synced(lab):
    """A lab whose 300 messages and three preferences were synced."""
    add(lab.primary, *map(message, range(300)))
    lab.primary.execute_many(
        "INSERT INTO preferences VALUES ('u', ?, '1', ?)", [[key, at(0)] for key in "abc"]
    )
    lab.sync()
    return lab


def silently(lab: Lab, statement: str) -> None:
    """Change the primary database behind the feed's back."""
    for event in ("insert", "update", "delete"):
        for table in ("messages", "preferences"):
            lab.primary.execute(f"DROP TRIGGER IF EXISTS feed_{table}_{event}")
    lab.primary.execute(statement)


def test_after_a_sync_everything_is_the_same(synced):
    """Rows are counted, and each column has one digest on both sides."""
    proof = synced.verify()
    assert proof.ok
    messages = proof.tables["messages"]
    assert (messages.rows, messages.differing, messages.pending) == ((300, 300), 0, 0)
    assert set(messages.digests) == set(synced.sql("FROM raw.messages").columns)
    assert all(here == there for here, there in messages.digests.values())
    contents = {here for name, (here, _) in messages.digests.items() if name != "metadata"}
    assert len(contents) > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "differences"),
    [
        ("UPDATE messages SET content = content || '!' WHERE id = 7",
         [Difference("m6", "both", ("content",))]),
        ("UPDATE messages SET sentiment_score = 0.5 + 1e-15, role = 'system' WHERE id = 7",
         [Difference("m6", "both", ("role", "sentiment_score"))]),
        ("DELETE FROM messages WHERE id IN (3, 9)",
         [Difference("m2", "warehouse", ()), Difference("m8", "warehouse", ())]),
        ("UPDATE messages SET message_id = 'other' WHERE id = 5",
         [Difference("m4", "warehouse", ()), Difference("other", "primary", ())]),
        ("UPDATE preferences SET value = '2' WHERE preference_key = 'b'",
         [Difference('["u", "b"]', "both", ("value",))]),
        ("UPDATE messages SET content = o.content FROM messages AS o WHERE o.id = 3 - messages.id",
         [Difference("m0", "both", ("content",)), Difference("m1", "both", ("content",))]),
    ],
)  # fmt: skip
def test_what_the_feed_did_not_tell_is_found_and_named(synced, statement, differences):
    """A changed value, a lost row, another key, and two values that changed places."""
    synced.primary.execute("UPDATE messages SET sentiment_score = 0.5")
    synced.sync()
    silently(synced, statement)
    proof = synced.verify()
    assert not proof.ok
    found = [difference for table in proof.tables.values() for difference in table.differences]
    assert found == differences
    assert sum(table.differing for table in proof.tables.values()) == len(differences)


@pytest.mark.slow
def test_what_is_not_synced_yet_is_counted_and_left_out(synced):
    """Whether it was added, changed, or deleted."""
    add(synced.primary, message(300))
    synced.primary.execute("UPDATE messages SET content = 'later' WHERE id = 1")
    synced.primary.execute("DELETE FROM messages WHERE id = 2")
    synced.primary.execute("DELETE FROM preferences WHERE preference_key = 'a'")
    proof = synced.verify()
    assert proof.ok
    assert (proof.tables["messages"].pending, proof.tables["messages"].rows) == (3, (298, 298))
    assert proof.tables["preferences"].pending == 1
    synced.sync()
    assert synced.verify().tables["messages"].rows == (300, 300)


def test_rows_in_quarantine_are_compared_by_their_names(synced):
    """They are in neither table, and lost in none."""
    synced.primary.execute("UPDATE messages SET sentiment_score = 'good' WHERE id < 4")
    synced.sync()
    proof = synced.verify()
    assert proof.ok
    assert (proof.tables["messages"].rows, proof.tables["messages"].quarantined) == (
        (297, 297), (3, 3),
    )  # fmt: skip
    silently(synced, "UPDATE messages SET sentiment_score = 'bad' WHERE id = 9")
    assert not synced.verify().ok


@pytest.mark.slow
def test_a_row_that_reading_pages_would_get_wrong_is_found(lab, monkeypatch):
    """The proof reads the primary database in another way than the load."""
    add(lab.primary, *map(message, range(300)))
    right = pages.read_columns

    def wrong(*asked):
        for arrays, rowids, left in right(*asked):
            yield [array.slice(0, len(array) - 1) for array in arrays], rowids, left

    with monkeypatch.context() as patch, reads(by_pages=True):
        patch.setattr(extract_module, "read_columns", wrong)
        lab.sync()
    proof = lab.verify()
    assert not proof.ok
    assert proof.tables["messages"].differences == [Difference("m299", "primary", ())]


def test_before_the_first_sync_there_is_nothing_to_verify(lab):
    """The error says what to do."""
    with pytest.raises(NeverSynced, match="aico-lab sync"):
        lab.verify()


@pytest.mark.parametrize(
    ("statement", "where", "column"),
    [
        ("DELETE FROM messages WHERE id = 7", "warehouse", "content"),
        (
            "UPDATE messages SET content = 'a', sentiment_score = 'b' WHERE id = 7",
            "primary",
            "sentiment_score",
        ),
    ],
)
def test_a_misfit_in_one_database_only_is_a_difference(lab, statement, where, column):
    """Although the rows that fit are the same in both."""
    add(lab.primary, *map(message, range(10)))
    lab.primary.execute("UPDATE messages SET content = x'41' WHERE id = 7")
    lab.sync()
    assert lab.verify().ok
    silently(lab, statement)
    proof = lab.verify()
    messages = proof.tables["messages"]
    assert not proof.ok
    assert messages.rows == (9, 9)
    assert all(here == there for here, there in messages.digests.values())
    assert Difference("m6", where, (column,)) in messages.differences
