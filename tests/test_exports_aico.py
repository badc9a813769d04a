"""AICO's folder: two memories with the same messages, feedback, and damage."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import zipfile
from datetime import datetime, timedelta

import chromadb
import pytest

from aico_lab.sources import recognise
from tests.exported import read

START = datetime(2026, 3, 1, 10)  # noqa: DTZ001 - as AICO writes it


def talk(conversation="c1", count=4, user="u1", start=START):
    """Return the messages of a conversation as working memory has them."""
    return [
        {
            "message_id": f"{conversation}-m{number}",
            "user_id": user,
            "conversation_id": conversation,
            "content": f"{conversation} {number}",
            "role": "assistant" if number % 2 else "user",
            "timestamp": (start + timedelta(seconds=10 * number)).isoformat(),
            "message_type": "assistant_response" if number % 2 else "user_input",
        }
        for number in range(count)
    ]


def write_working(folder, *messages):
    lmdb = pytest.importorskip("lmdb")
    (folder / "memory").mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder / "memory" / "working"), max_dbs=4) as opened:
        database = opened.open_db(b"session_memory")
        with opened.begin(db=database, write=True) as transaction:
            for one in messages:
                key = one.get("key") or f"{one['conversation_id']}:{one['timestamp']}Z"
                transaction.put(key.encode(), json.dumps(one).encode())


def write_segments(folder, *messages, later=0.4):
    """Write long-term memory with Chroma itself, in a process of its own files."""
    client = chromadb.PersistentClient(str(folder / "memory" / "semantic"))
    collection = client.get_or_create_collection("conversation_segments")
    for one in messages:
        stored = datetime.fromisoformat(one["timestamp"]) + timedelta(seconds=later)
        kept = {key: one[key] for key in ("user_id", "conversation_id", "role")}
        collection.add(
            ids=[f"segment-{one['message_id']}"],
            documents=[one["content"]],
            embeddings=[[0.0, 1.0]],
            metadatas=[kept | {"timestamp": stored.isoformat()}],
        )
    client.close()


def write_feedback(folder, table, columns, *rows):
    connection = sqlite3.connect(folder / "aico.db")
    connection.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
    marks = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    connection.commit()
    connection.close()


def test_a_message_in_both_memories_is_stored_once(tmp_path):
    """Long-term memory lacks one message, and working memory has forgotten the first two."""
    messages = talk(count=6)
    write_segments(tmp_path, *messages[:5])
    write_working(tmp_path, *messages[2:])
    assert recognise(tmp_path).name == "aico"
    got = read("aico", tmp_path)
    assert got.contents == [f"c1 {number}" for number in range(6)]
    assert got.roles == ["user", "assistant"] * 3
    assert got.messages[1].message_id == "aico:c1:segment-c1-m1"
    assert got.messages[2].message_id == "aico:c1:c1-m2"
    assert got.messages[5].message_id == "aico:c1:c1-m5"
    assert {one.user_id for one in got.messages} == {"u1"}
    assert got.times[1:3] == ["2026-03-01T10:00:10.400000Z", "2026-03-01T10:00:20.000000Z"]
    assert not got.rejected


@pytest.mark.parametrize("first", ["working", "semantic", "both"])
def test_a_message_is_new_once_whichever_memory_was_imported_first(tmp_path, lab, first):
    """Working memory forgets, and long-term memory may be imported later: neither adds it again."""
    messages = talk(count=6)
    for one in messages[::2]:
        one["content"] = "Yes"
    both, data = tmp_path / "both", tmp_path / "data"
    write_segments(both, *messages)
    write_working(both, *messages)
    write_feedback(both, "ams_behavioral_feedback", ["message_id", "reward INTEGER"], ("c1-m1", 1))
    stored = None
    for part in {"working": ["working", "semantic", "both"], "semantic": ["semantic", "both"],
                 "both": ["both", "semantic", "working"]}[first]:  # fmt: skip
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(both, data)
        if part != "both":
            shutil.rmtree(data / "memory" / {"working": "semantic", "semantic": "working"}[part])
        result = lab.import_from(data)
        assert (result.added, result.updated, result.conflicts) == (0 if stored else 6, 0, 0)
        now = lab.primary.fetch_all("SELECT message_id, timestamp FROM messages ORDER BY 2")
        assert stored in (None, now)
        stored = now
        if first != "semantic":
            assert [name for name, _ in now] == [f"aico:c1:c1-m{number}" for number in range(6)]
    rated = lab.primary.fetch_all("SELECT message_id FROM feedback_events")
    assert rated == [(stored[1][0],)]


def test_of_several_copies_the_nearest_is_taken(tmp_path, lab):
    """Working memory has forgotten the first two: feedback on the third is on its own copy."""
    messages = talk(count=5)
    for one in messages[::2]:
        one["content"] = "Yes"
    write_segments(tmp_path / "semantic", *messages)
    assert lab.import_from(tmp_path / "semantic").added == 5
    write_working(tmp_path / "working", *messages[2:3])
    feedback = ("ams_behavioral_feedback", ["message_id", "reward INTEGER"], ("c1-m2", 1))
    write_feedback(tmp_path / "working", *feedback)
    assert lab.import_from(tmp_path / "working").added == 0
    rated = lab.primary.fetch_all("SELECT message_id FROM feedback_events")
    assert rated == [("aico:c1:segment-c1-m2",)]


def test_the_same_words_said_twice_are_two_messages(tmp_path):
    messages = [one | {"content": "Yes", "role": "user"} for one in talk()]
    write_segments(tmp_path, *messages)
    write_working(tmp_path, *messages)
    assert read("aico", tmp_path).contents == ["Yes"] * 4


def test_nothing_is_written_into_the_folder(tmp_path):
    write_segments(tmp_path, *talk())
    write_working(tmp_path, *talk())
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    before = [path.read_bytes() for path in files]
    read("aico", tmp_path)
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == files
    assert [path.read_bytes() for path in files] == before


def test_a_single_store_and_an_archive_are_read(tmp_path):
    write_segments(tmp_path / "a", *talk())
    store = tmp_path / "a" / "memory" / "semantic" / "chroma.sqlite3"
    packed = tmp_path / "aico.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(store, "data/chroma.sqlite3")
    assert recognise(store).name == recognise(packed).name == "aico"
    assert read("aico", store).messages == read("aico", packed).messages != []


@pytest.mark.parametrize("both", [True, False])
def test_feedback_finds_its_message_by_the_id_of_working_memory(tmp_path, both):
    messages = talk()
    write_working(tmp_path, *messages)
    if both:
        write_segments(tmp_path, *messages)
    write_feedback(
        tmp_path,
        "feedback_events",
        ["id", "user_uuid", "conversation_id", "message_id", "event_type", "event_category",
         "payload", "timestamp INTEGER"],
        ("f1", "u1", "c1", "c1-m1", "explicit", "helpful", '{"reward": 1}', 1772360000),
        ("f2", "u1", "c1", "gone", "explicit", "helpful", "{broken", 1772360000),
        ("f3", "u1", "c1", None, "ambient", None, None, 1772360000),
    )  # fmt: skip
    write_feedback(
        tmp_path,
        "ams_behavioral_feedback",
        ["feedback_id", "user_id", "message_id", "reward INTEGER", "timestamp TEXT"],
        ("g1", "u1", "c1-m3", -1, "2026-03-01T10:05:00"),
    )
    got = read("aico", tmp_path)
    feedback = [one for batch in got.batches for one in batch.feedback]
    answers = [got.messages[1].message_id, got.messages[3].message_id]
    assert [one.message_id for one in feedback] == answers
    assert [one[5:7] for one in feedback] == [("helpful", 1.0), ("thumbs_down", -1.0)]
    assert got.skipped == {"feedback on a forgotten message": 1}


def test_an_encrypted_database_leaves_the_messages(tmp_path):
    write_segments(tmp_path, *talk())
    (tmp_path / "aico.db").write_bytes(b"\x17" * 8192)
    got = read("aico", tmp_path)
    assert len(got.messages) == 4
    assert ["AICO_LAB_SOURCE_KEY" in one.reason for one in got.rejected] == [True]


def test_without_lmdb_long_term_memory_is_read(tmp_path, monkeypatch):
    write_segments(tmp_path, *talk())
    write_working(tmp_path, *talk())
    monkeypatch.setitem(sys.modules, "lmdb", None)
    got = read("aico", tmp_path)
    assert len(got.messages) == 4
    assert ["aico-lab[aico]" in one.reason for one in got.rejected] == [True]


@pytest.mark.parametrize("damage", ["cut", "pages"])
def test_a_damaged_working_memory_leaves_long_term_memory(tmp_path, damage):
    """LMDB itself would end the process."""
    write_segments(tmp_path, *talk())
    write_working(tmp_path, *talk(), *talk("c2", 400))
    file = tmp_path / "memory" / "working" / "data.mdb"
    data = file.read_bytes()
    cut = data[: len(data) // 3]
    file.write_bytes(cut if damage == "cut" else cut[:8192] + b"\xff" * (len(data) - 8192))
    got = read("aico", tmp_path)
    assert [text for text in got.contents if text.startswith("c1")] == [f"c1 {n}" for n in range(4)]
    assert len(got.rejected) <= 1


def test_values_of_any_type_are_read(tmp_path):
    bad = [("content", 7), ("role", None), ("timestamp", None), ("user_id", []), ("role", {})]
    write_working(
        tmp_path,
        *(
            one | {name: value, "key": f"c1:{one['timestamp']}Z"}
            for one, (name, value) in zip(talk(count=5), bad, strict=True)
        ),
        {"key": "c1:2026-03-01T11:00:00Z", "role": "critic"},
    )
    got = read("aico", tmp_path)
    assert got.skipped == {"message of another role": 1}
    assert got.contents == ["", "c1 1", "c1 2", "c1 3", "c1 4"]


def test_memories_of_the_database_are_memories(tmp_path, lab):
    """Under the first name of their table as under the present one; a second import adds none."""
    data = tmp_path / "data"
    write_segments(data, *talk())
    columns = ["fact_id", "user_id", "content", "fact_type", "confidence", "created_at"]
    rows = [
        ("f1", "u1", "likes tea", "preference", 0.9, "2026-03-01 10:00:00"),
        ("f2", "u2", "has a sister", "relationship", 0.5, "2026-03-02 10:00:00"),
        ("f3", "u1", "", "identity", 0.5, "2026-03-02 10:00:00"),
    ]
    write_feedback(data, "user_memories", [*columns, "is_favorite"], *((*r, 1) for r in rows))
    result = lab.import_from(data)
    assert (result.added, result.memories, result.rejected) == (4, 2, 1)
    read_back = "SELECT memory_id, user_id, content, memory_type, importance FROM memories"
    expected = [
        ("aico:f1", "u1", "likes tea", "semantic", 1.0),
        ("aico:f2", "u2", "has a sister", "relationship", 1.0),
    ]
    assert lab.primary.fetch_all(f"{read_back} ORDER BY 1") == expected
    (data / "aico.db").unlink()
    write_feedback(data, "facts_metadata", columns, *rows)
    assert (lab.import_from(data).added, lab.primary.fetch_all(f"{read_back} ORDER BY 1")) == (
        0,
        expected,
    )


def test_the_reward_of_a_trajectory_is_a_rating(tmp_path):
    write_segments(tmp_path, *talk())
    write_working(tmp_path, *talk())
    columns = ["trajectory_id", "user_id", "message_id", "feedback_reward", "timestamp"]
    write_feedback(
        tmp_path, "trajectories", columns, ("t1", "u1", "c1-m1", 1, "2026-03-01 10:01:00"),
        ("t2", "u1", "c1-m3", None, "2026-03-01 10:02:00"),
    )  # fmt: skip
    ratings = [one for batch in read("aico", tmp_path).batches for one in batch.feedback]
    assert [(one.message_id, one.name, one.value) for one in ratings] == [
        ("aico:c1:c1-m1", "thumbs_up", 1.0)
    ]


def write_skills(folder):
    """Write the tables of AICO's procedural memory, as its version 15 has them."""
    dimensions = json.dumps([0.2, 0.8, *[0.5] * 14])
    write_feedback(folder, "skills", ["skill_id", "skill_name", "dimensions"],
                   ("concise", "Concise", dimensions), ("casual", "Casual", "broken"))  # fmt: skip
    write_feedback(
        folder, "context_skill_stats",
        ["user_id", "context_bucket INTEGER", "skill_id", "alpha REAL", "beta REAL",
         "last_updated_at TEXT"],
        ("u1", 42, "concise", 4.0, 2.0, "2026-03-02 10:00:00"),
        ("u1", 42, "casual", 1.0, 1.0, "2026-03-01 10:00:00"),
        ("u1", 7, "casual", -1.0, float("inf"), None),
    )  # fmt: skip
    write_feedback(
        folder, "context_preference_vectors",
        ["user_id", "context_bucket INTEGER", "dimensions", "last_updated_at TEXT"],
        ("u1", 42, dimensions, "2026-03-02 11:00:00+00:00"), ("u1", 7, "[]", None),
    )  # fmt: skip
    write_feedback(
        folder, "trajectories",
        ["trajectory_id", "user_id", "conversation_id", "turn_number", "ai_response",
         "selected_skill_id", "feedback_reward", "timestamp", "message_id", "context_bucket"],
        ("t1", "u1", "c1", 1, "c1 1", "concise", None, "2026-03-01 10:01:00", "c1-m1", 42),
        ("t2", "u1", "c1", 2, "c1 3 ", "casual", 1, "2026-03-01 10:02:00", None, None),
        ("t3", "u1", "c9", 2, "gone", "casual", None, "2026-03-01 10:02:00", None, None),
        ("t4", "u1", "c1", 2, "c1 0", None, None, "2026-03-01 10:02:00", "c1-m0", None),
    )  # fmt: skip
    write_feedback(
        folder, "ams_behavioral_feedback",
        ["event_id", "user_id", "message_id", "skill_id", "reward INTEGER", "timestamp"],
        ("f1", "u1", "c1-m1", "casual", 1, "2026-03-01 10:03:00"),
    )  # fmt: skip


def test_an_undone_import_leaves_no_policy_and_nobody(tmp_path, lab):
    data = tmp_path / "data"
    write_working(data, *talk())
    write_skills(data)
    lab.privacy.forget(import_id=lab.import_from(data).import_id)
    for table in ("users", "messages", "personality_policies", "personality_decisions"):
        assert lab.primary.fetch_all(f"SELECT * FROM {table}") == []


def test_skills_become_decisions_without_propensities_and_a_policy(tmp_path, lab):
    """The policy goes on where AICO stopped; a later import updates what was learned since."""
    data = tmp_path / "data"
    write_working(data, *talk())
    write_skills(data)
    result = lab.import_from(data)
    assert (result.decisions, result.feedback) == (2, 1)
    assert result.skipped == {"skill for a forgotten message": 1}
    columns = "message_id, user_id, arm, context, policy, propensity, arms"
    decisions = f"SELECT {columns} FROM personality_decisions ORDER BY message_id"
    expected = [
        ("aico:c1:c1-m1", "u1", "concise", "aico-42", "aico:u1", None, None),
        ("aico:c1:c1-m3", "u1", "casual", None, "aico:u1", None, None),
    ]
    assert lab.primary.fetch_all(decisions) == expected
    policy = lab.personality.policy("aico:u1")
    assert policy.policy.arms == {"concise": {"verbosity": -0.3, "formality": 0.3}, "casual": {}}
    assert policy.state["contexts"] == {"aico-42": {"concise": [4, 2], "casual": [1, 1]}}
    assert policy.state["preferences"]["aico-42"]["formality"] == 0.8
    assert (policy.rounds, policy.user_id) == (4, "u1")
    shares = policy.choose("aico-42").probabilities
    assert shares["concise"] > shares["casual"]
    policy.learn(1.0)
    learned = policy.state
    assert lab.import_from(data).added == 0
    assert lab.primary.fetch_all(decisions) == expected
    assert policy.state == learned  # AICO has no more outcomes than the stored policy
    connection = sqlite3.connect(data / "aico.db")
    connection.execute("UPDATE context_skill_stats SET alpha = 40 WHERE skill_id = 'concise'")
    connection.commit()
    connection.close()
    lab.import_from(data)
    assert policy.state["contexts"]["aico-42"]["concise"] == [40, 2]


def test_a_copy_in_long_term_memory_has_the_decision(tmp_path, lab):
    """Whichever memory was imported first."""
    write_segments(tmp_path / "semantic", *talk())
    assert lab.import_from(tmp_path / "semantic").added == 4
    write_working(tmp_path / "working", *talk())
    write_skills(tmp_path / "working")
    assert lab.import_from(tmp_path / "working").added == 0
    found = lab.primary.fetch_all("SELECT message_id FROM personality_decisions ORDER BY 1")
    assert found == [("aico:c1:segment-c1-m1",), ("aico:c1:segment-c1-m3",)]
