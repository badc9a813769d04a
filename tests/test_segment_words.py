"""The full-text index of segments: it is right after changes by any program, and costs little."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aico_lab.adapters.libsql import Connection
from aico_lab.embeddings import segment_words, text_index, texts
from aico_lab.embeddings.encoders import open_encoder
from aico_lab.embeddings.segmenting import update_segments
from aico_lab.errors import CorruptDatabase
from aico_lab.repositories import empty_index
from aico_lab.repositories.words import words
from aico_lab.schema import feed
from aico_lab.schema.core import CORE
from aico_lab.schema.core.search import TOKENIZE
from aico_lab.search import keyword, tail
from aico_lab.search.filters import SearchFilters
from aico_lab.search.searching import RANK
from tests.messages import add, message

if TYPE_CHECKING:
    from aico_lab.lab import Lab

WORDS = ["rain", "snow", "wind", "moon", "star", "frost", "cloud", "sun", "tide", "fog", "dew",
         "storm", "mist", "ice", "sea", "sky", "leaf", "root", "seed", "bark"]  # fmt: skip


@pytest.fixture
def talked(lab: Lab) -> Lab:
    """A lab with twenty segments of three messages each."""
    chance = random.Random(2)
    add(
        lab.primary,
        *(
            message(
                n,
                content=" ".join(chance.sample(WORDS, 2)),
                conversation_id=f"k{n // 3}",
                user_id="uv"[n // 3 % 2],
            )
            for n in range(60)
        ),
    )
    lab.embeddings.update()
    return lab


def found(lab: Lab, text: str) -> set[str]:
    return {one.id for one in lab.search(text, mode="keyword", k=100)}


def held(lab: Lab, word: str) -> set[str]:
    """Return the segments whose text has a word."""
    everything = texts.read_all(lab.primary, texts.SEGMENTS)
    return {one.item_id for one in everything if word in words(one.text)}


def indexed(lab: Lab, word: str) -> int:
    return lab.primary.fetch_all(
        "SELECT count(*) FROM segments_search CROSS JOIN segments_search_ids AS i "
        "ON i.id = segments_search.rowid WHERE segments_search MATCH ?",
        [word],
    )[0][0]


_FIRST = "(SELECT message_id FROM messages WHERE content LIKE '%rain%' LIMIT 1)"

_ITS_SEGMENT = f"SELECT segment_id FROM segment_messages WHERE message_id = {_FIRST}"
_COLUMNS = "message_id, channel_id, conversation_id, role, timestamp"
_REPLACED = f"""
    INSERT OR REPLACE INTO messages ({_COLUMNS}, content)
    SELECT {_COLUMNS}, 'thunder' FROM messages WHERE message_id = {_FIRST}"""


@pytest.mark.parametrize(
    "change",
    [
        f"UPDATE messages SET content = 'frost only' WHERE message_id = {_FIRST}",
        f"DELETE FROM messages WHERE message_id = {_FIRST}",
        f"DELETE FROM segment_messages WHERE message_id = {_FIRST}",
        f"DELETE FROM conversation_segments WHERE segment_id IN ({_ITS_SEGMENT})",
        f"UPDATE segment_messages SET message_id = 'm59' WHERE message_id = {_FIRST}",
        _REPLACED,
        "DELETE FROM change_log",
    ],
)
def test_a_change_by_another_program_reaches_the_index(talked: Lab, change: str, monkeypatch):
    """A search then finds what the segments say now, and reads no other text for it."""
    for word in WORDS:
        assert found(talked, word) == held(talked, word)
    before = indexed(talked, "rain")
    talked.primary.execute(change)
    talked.primary.execute("INSERT INTO users (user_id, created_at) VALUES ('w', '2024')")
    expected = {word: held(talked, word) for word in [*WORDS, "thunder"]}
    monkeypatch.setattr(texts, "read_all", None)
    segment_words.refresh(talked.primary)
    for word, segments in expected.items():
        assert indexed(talked, word) == len(segments)
        assert segments <= found(talked, word)  # and messages that are in no segment any more
    assert indexed(talked, "rain") <= before


LANGUAGES = (
    "안녕 오늘 피아노", "नमस्ते दोस्त", "ガラス グラス", "мой чайник, ещё чай", "Ελλάδα Άνθρωπος",
    "שָׁלוֹם חבר", "مَرحَبا صديق", "สวัสดี เพื่อน", "İstanbul ışık",  # noqa: RUF001
    "Việt đẹp", "naïve café", "straße",
    "cello🥰 \u2068Ada\u2069",
)  # fmt: skip


def test_words_of_any_language_are_found(lab: Lab):
    """In segments, memories and documents."""
    add(
        lab.primary,
        *(message(n, content=text, conversation_id=text) for n, text in enumerate(LANGUAGES)),
    )
    lab.primary.execute_many(
        "INSERT INTO memories (memory_id, user_id, content, memory_type, importance, created_at) "
        "VALUES (?1, 'u', ?1, 'fact', 1, '2024')",
        [[text] for text in LANGUAGES],
    )
    lab.primary.execute(
        "INSERT INTO knowledge_documents (document_id, name, kind, sha256, added_at) "
        "VALUES ('d', 'd', 'text', 'x', '2024')"
    )
    lab.primary.execute_many(
        "INSERT INTO knowledge_chunks (chunk_id, document_id, position, content) "
        "VALUES (?2, 'd', ?1, ?2)",
        list(enumerate(LANGUAGES)),
    )
    lab.embeddings.update()
    for text in LANGUAGES:
        word = re.split("[ 🥰]", text)[0]
        hits = lab.search(word, mode="keyword", source="all")
        assert [one.source for one in hits if one.text == text] == [
            "conversations", "knowledge", "memories",
        ], word  # fmt: skip


@pytest.mark.slow
def test_words_are_those_of_the_tokenizer():
    """After a letter, before one, and alone."""
    codes = [*range(1, 0x3100), *range(0x3100, 0xD800, 37), *range(0xF900, 0x20000, 11)]
    texts_ = [f"q{chr(code)}z {chr(code)}z {chr(code)}" for code in codes]
    with Connection(Path(":memory:"), None, busy_timeout=0) as fts5:
        fts5.execute(f"CREATE VIRTUAL TABLE asked USING fts5 (content, {TOKENIZE})")
        fts5.execute("CREATE VIRTUAL TABLE terms USING fts5vocab (asked, instance)")
        fts5.execute(
            "INSERT INTO asked (rowid, content) SELECT key + 1, value FROM json_each(?)",
            [json.dumps(texts_)],
        )
        rows = fts5.fetch_all("SELECT doc, term FROM terms ORDER BY doc, offset")
    found_: dict[int, list[str]] = {}
    for row, term in rows:
        found_.setdefault(row, []).append(term)
    assert [text for row, text in enumerate(texts_, 1) if words(text) != found_[row]] == []


def test_a_segment_is_indexed_again_only_if_it_changed(talked: Lab):
    """New segments and those of other programs are, too."""
    found(talked, "rain")
    ids = dict(talked.primary.fetch_all("SELECT segment_id, id FROM segments_search_ids"))
    add(talked.primary, message(100, content="thunder and rain", conversation_id="new"))
    talked.embeddings.update()
    talked.primary.execute("UPDATE messages SET content = 'hail' WHERE message_id = 'm3'")
    assert found(talked, "thunder") == held(talked, "thunder")
    now = dict(talked.primary.fetch_all("SELECT segment_id, id FROM segments_search_ids"))
    assert len(set(now.items()) - set(ids.items())) == 2
    assert talked.search("hail", mode="keyword")[0].text.startswith("hail\n")


def test_an_update_that_was_interrupted_is_continued(talked: Lab, monkeypatch):
    """And what it has not done yet is found by reading it."""
    monkeypatch.setattr(segment_words, "BATCH", 7)
    batches = []
    with monkeypatch.context() as patch:
        real = type(talked.primary).execute

        def execute(own, sql, parameters=()):
            if "INTO segments_search (rowid" in sql:
                batches.append(parameters)
                if len(batches) == 2:
                    raise KeyboardInterrupt
            real(own, sql, parameters)

        patch.setattr(type(talked.primary), "execute", execute)
        with pytest.raises(KeyboardInterrupt):
            segment_words.refresh(talked.primary)
    assert len(segment_words.read_behind(talked.primary)) == 13
    with monkeypatch.context() as patch:
        patch.setattr(segment_words, "refresh", lambda _: None)
        for word in WORDS:
            assert found(talked, word) == held(talked, word)
    for word in WORDS:
        assert found(talked, word) == held(talked, word)
    assert segment_words.read_behind(talked.primary) == set()


def test_a_home_that_cannot_be_written_is_searched(talked: Lab):
    """With what the index has, and what changed since."""
    found(talked, "rain")
    talked.primary.execute("UPDATE messages SET content = 'hail' WHERE message_id = 'm3'")
    talked.primary.execute(
        f"DELETE FROM conversation_segments WHERE segment_id IN ({_ITS_SEGMENT})"
    )
    expected = {word: held(talked, word) for word in [*WORDS, "hail"]}
    talked.primary.execute("PRAGMA query_only = ON")
    for word, segments in expected.items():
        ids = {id_ for id_ in found(talked, word) if not id_.startswith("messages:")}
        assert ids == segments
    assert segment_words.read_behind(talked.primary)


def test_a_search_waits_for_no_writer(talked: Lab, monkeypatch):
    """What the index lacks is read, as long as another connection writes."""
    monkeypatch.setattr(feed, "PATIENCE", 0.01)
    with talked.storage.open_primary() as other, other.transaction():
        other.execute("UPDATE users SET name = 'Ada'")
        add(other, message(100, content="hail", conversation_id="new"))
        talked.embeddings.refresh()  # as `aico-lab search` does
        for word in WORDS:
            assert found(talked, word) == held(talked, word)
        assert indexed(talked, "rain") == 0
    assert talked.primary.busy_timeout > 1
    assert found(talked, "rain") == held(talked, "rain")
    assert indexed(talked, "rain") == len(held(talked, "rain"))


_EXCHANGED = """
    UPDATE segments_search_ids SET segment_id = CASE id WHEN 5 THEN 'six' ELSE 'five' END
    WHERE id IN (5, 6)"""


@pytest.mark.parametrize(
    ("damage", "is_noticed"),
    [
        ("DELETE FROM segments_search_ids WHERE id > 5", True),
        (_EXCHANGED, True),
        ("INSERT INTO segments_search (segments_search) VALUES ('delete-all')", True),
        ("DELETE FROM segments_search_docsize", True),
        ("DELETE FROM segments_search_data WHERE id > 10", False),
        ("DELETE FROM segments_search_data", False),  # by the integrity check of the file
        ("UPDATE segments_search_state SET indexed_through = 1000000", True),
        ("DELETE FROM segments_search_state", False),  # by the next search
    ],
)
def test_an_index_that_another_program_damaged_is_made_anew(
    talked: Lab,
    damage: str,
    is_noticed: bool,  # noqa: FBT001
):
    """By a full sync, which the audit and the error of a search name."""
    assert found(talked, "rain") == held(talked, "rain")
    assert not talked.embeddings.audit().are_words_damaged
    talked.primary.execute(damage)
    with talked.storage.open_primary() as other:  # what FTS5 keeps in memory is another's
        assert segment_words.is_damaged(other) == is_noticed
        reads = "data" not in damage and "docsize" not in damage
        with (
            contextlib.nullcontext()
            if reads
            else pytest.raises(CorruptDatabase, match=re.escape(segment_words.REMEDY))
        ):
            keyword.prepare(other, [texts.SEGMENTS])
            keyword.find(other, "rain", 9, [texts.SEGMENTS], filters=SearchFilters())
        text_index.refresh(other, open_encoder(), full=True)
        assert not segment_words.is_damaged(other)
    assert found(talked, "rain") == held(talked, "rain")
    add(talked.primary, message(100, content="hail", conversation_id="new"))
    talked.embeddings.update()
    assert found(talked, "hail") == held(talked, "hail") != set()


def test_a_fused_search_has_the_ranks_of_both(talked: Lab):
    """Also beside a message that is in no segment yet."""
    add(talked.primary, message(100, content="hail", conversation_id="new"))
    for text in ("rain", "rain moon", "snow wind star"):
        sums: dict[str, float] = {}
        for mode in ("keyword", "semantic"):
            for rank, one in enumerate(talked.search(text, mode=mode, k=100), 1):
                sums[one.id] = sums.get(one.id, 0.0) + 1 / (RANK + rank)
        fused = talked.search(text, k=20)
        assert [one.score for one in fused] == sorted(sums.values(), reverse=True)[:20]


def test_words_of_former_segments_do_not_count(talked: Lab):
    """A word that a growing conversation repeats is as rare as in an index made anew."""
    for number in range(60, 64):
        talked.primary.execute("UPDATE messages SET content = content || ' xylophone rain'"
                               " WHERE message_id = 'm3'")  # fmt: skip
        add(talked.primary, message(number, content="hail", conversation_id=f"n{number}"))
        talked.embeddings.update()
        text_index.refresh(talked.primary, open_encoder())
        grown = talked.search("xylophone rain", mode="keyword", k=50)
        text_index.refresh(talked.primary, open_encoder(), full=True)
        made = talked.search("xylophone rain", mode="keyword", k=50)
        assert grown.objects() == made.objects()
    talked.primary.execute("UPDATE messages SET content = 'rain' WHERE message_id = 'm3'")
    assert found(talked, "xylophone") == set()
    assert segment_words.has_former(talked.primary)


def test_an_index_with_many_former_segments_is_made_anew(talked: Lab):
    """The words of former texts are gone then."""
    found(talked, "rain")
    entries = []
    for word in ("hail", "thunder", "lightning"):
        talked.primary.execute("UPDATE messages SET content = ? WHERE message_id = 'm3'", [word])
        assert found(talked, word) == held(talked, word) != set()
        entries += talked.primary.fetch_all("SELECT count(*) FROM segments_search_docsize")
    assert entries == [(21,), (20,), (21,)]


def test_an_index_without_words_is_not_damaged(lab: Lab):
    """Nor one that is not filled yet."""
    assert not segment_words.is_damaged(lab.primary)
    segment_words.refresh(lab.primary)
    assert not segment_words.is_damaged(lab.primary)


def test_a_message_that_is_no_text_hides_no_other(talked: Lab):
    """Of its segment, which is found by words and by meaning."""
    talked.primary.execute(
        "UPDATE messages SET content = CASE message_id WHEN 'm3' THEN 'the quagga grazes' "
        "ELSE CAST(x'ff66c3' AS TEXT) END WHERE message_id IN ('m3', 'm4')"
    )
    for mode in ("keyword", "semantic"):
        best = talked.search("quagga grazes", mode=mode)[0]
        assert best.text.startswith("the quagga grazes\n\ufffdf\ufffd\n")


def test_a_search_reads_one_state(talked: Lab, monkeypatch):
    """A message that is put into a segment meanwhile is found once, in either mode."""
    real = tail.read

    def read(primary, filters):
        result = real(primary, filters)
        with talked.storage.open_primary() as other:
            update_segments(other, open_encoder())
        return result

    monkeypatch.setattr(tail, "read", read)
    for number, mode in enumerate(("keyword", "semantic", "hybrid"), 100):
        add(talked.primary, message(number, content="xylophone", conversation_id="new"))
        hits = talked.search("xylophone", mode=mode, k=100)
        ids = [line.message_id for one in hits for line in one.messages]
        assert len(ids) == len(set(ids))
        assert f"m{number}" in ids


def test_an_emptied_index_is_filled_again(talked: Lab):
    """And has no word of what was deleted."""
    talked.primary.execute("UPDATE messages SET content = 'xylophone' WHERE message_id = 'm3'")
    assert found(talked, "xylophone")
    talked.primary.execute("DELETE FROM messages WHERE message_id = 'm3'")

    def has() -> bool:
        pages = talked.primary.fetch_all("SELECT block FROM segments_search_data")
        return any(b"ylophone" in bytes(page) for (page,) in pages)

    async def empty() -> None:
        async with talked.data_access() as dal:
            await empty_index(dal)

    assert has()
    asyncio.run(empty())
    assert not has()
    assert found(talked, "rain") >= held(talked, "rain")
    assert not has()


def test_a_home_of_before_the_index_is_upgraded(talked: Lab):
    """And downgraded without a loss."""
    CORE.rollback("search", 2, talked.primary)
    CORE.apply_core_schemas(talked.primary)
    assert found(talked, "rain") == held(talked, "rain") != set()
