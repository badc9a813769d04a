"""Search: whatever is committed is found, by meaning and by words, under filters, or refused."""

from __future__ import annotations

import json
import os
import pickle
import random
from datetime import date, datetime
from typing import TYPE_CHECKING

import pytest

from aico_lab.adapters import chroma_store
from aico_lab.adapters.chroma import ChromaDBAdapter
from aico_lab.embeddings import index as index_
from aico_lab.embeddings import text_index, texts
from aico_lab.embeddings.encoders import open_encoder
from aico_lab.embeddings.encoders.wordllama import WordLlama
from aico_lab.embeddings.index import VectorIndex
from aico_lab.embeddings.opened_store import OpenedStore
from aico_lab.embeddings.stored_vectors import text_sha256
from aico_lab.errors import InvalidValue, OtherModel, UnknownName
from aico_lab.projections import vectors
from aico_lab.runtime import report_kernel
from aico_lab.schema.core import CORE
from aico_lab.search import filters as filters_
from aico_lab.search import keyword, tail
from aico_lab.search.filters import resolve
from aico_lab.search.searching import RANK
from tests.messages import add, add_memories, at, message

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.lab import Lab

HOUR = 3600
START_OF_TIME = "0001-01-01T00:00:00.000000Z"
TALKS = {
    "cooking": ("I made onion soup", "With white wine?", "Yes, and bread with cheese"),
    "music": ("The cello lesson was hard", "Did you practise scales?", "Only Bach"),
    "travel": ("I feel homesick in Reykjavik", "Do you miss your family?", "My sister above all"),
    "school": ("The exam is on Monday", "Which subject?", "Mathematics, my worst"),
}


def talk(lab: Lab, *, user: str = "u", conversation: str = "c", start: int = 0) -> None:
    """Write the talks, each an hour after the one before."""
    number = start
    for place, lines in enumerate(TALKS.values()):
        for line, content in enumerate(lines):
            add(
                lab.primary,
                message(
                    number,
                    message_id=f"{conversation}{number}",
                    content=content,
                    user_id=user,
                    channel_id=conversation,
                    conversation_id=conversation,
                    timestamp=at(place * HOUR + line * 10 + start),
                    role="assistant" if line == 1 else "user",
                    sentiment_score=-0.5 if place == 2 else 0.5,
                ),
            )
            number += 1


def found(lab: Lab, text: str, **options) -> list[str]:
    return [one.text.split("\n")[0] for one in lab.search(text, **options)]


WORDS = ["rain", "snow", "wind", "moon", "star", "the", "and"]
SOUP, CELLO, HOME, EXAM = (lines[0] for lines in TALKS.values())


@pytest.fixture
def talked(lab: Lab) -> Lab:
    """A lab with the talks in segments."""
    talk(lab)
    lab.embeddings.refresh()
    return lab


@pytest.mark.parametrize("mode", ["semantic", "keyword", "hybrid"])
def test_a_message_is_found_as_soon_as_it_is_committed(lab: Lab, mode: str):
    """Before anything is segmented or synced; and as it is now, after it changed."""
    assert found(lab, "onion soup", mode=mode) == []
    add(lab.primary, message(1, content="I made onion soup"))
    (passage,) = lab.search("onion soup", mode=mode)
    assert (passage.id, passage.text) == ("messages:m1", "I made onion soup")
    lab.embeddings.refresh()
    (passage,) = lab.search("onion soup", mode=mode)
    assert passage.id == lab.primary.fetch_all("SELECT segment_id FROM conversation_segments")[0][0]
    lab.primary.execute("UPDATE messages SET content = 'a cello lesson' WHERE message_id = 'm1'")
    assert found(lab, "cello", mode=mode) == ["a cello lesson"]
    if mode == "keyword":
        assert found(lab, "onion", mode=mode) == []
    lab.primary.execute("DELETE FROM messages")
    assert found(lab, "cello", mode=mode) == []


def test_memories_and_documents_are_found_as_soon_as_they_are_committed(lab: Lab, tmp_path: Path):
    """By each mode; a document names its place."""
    add_memories(lab.primary, "likes tea in the morning", "has a cat")
    (tmp_path / "guide.md").write_text("# Plants\nThe fern likes shade.\n# Bread\nUse rye flour.")
    lab.knowledge.add(tmp_path / "guide.md")
    for mode in ("semantic", "keyword", "hybrid"):
        assert found(lab, "tea", mode=mode, source="memories")[0] == "likes tea in the morning"
        first = lab.search("rye bread flour", mode=mode, source="knowledge")[0]
        assert (first.text, first.metadata["place"]) == ("Use rye flour.", "Bread")
        assert found(lab, "fern in the shade", mode=mode, source="all")[0] == (
            "The fern likes shade."
        )
    assert found(lab, "fern", source="knowledge", user="u") == []
    assert found(lab, "tea", source="memories", role="user") == []
    lab.knowledge.remove("guide.md")
    lab.primary.execute("DELETE FROM memories WHERE content LIKE '%tea%'")
    assert found(lab, "rye flour tea", source="all", mode="semantic") == ["has a cat"]


def test_the_modes_find_what_they_are_for(talked: Lab):
    """Meaning without a common word, words alone, and both by their ranks."""
    assert found(talked, "missing my relatives abroad", mode="semantic", k=1) == [HOME]
    assert found(talked, "Bach", mode="keyword") == [CELLO]
    assert found(talked, "bach monday", mode="keyword") in ([CELLO, EXAM], [EXAM, CELLO])
    assert found(talked, "zyzzyva", mode="keyword") == []
    best = talked.search("my sister", k=1)[0]
    assert (best.text.split("\n")[0], best.score) == (HOME, pytest.approx(2 / (RANK + 1)))


def test_a_passage_shows_itself_with_the_messages_around_it(talked: Lab):
    """Marked in the transcript, and escaped in HTML."""
    talked.primary.execute("UPDATE messages SET content = '<b>Bach</b>' WHERE content LIKE '%Bach'")
    (passage,) = talked.search("Bach", mode="keyword")
    lines = passage.transcript().split("\n")
    assert [line[0] for line in lines] == [" "] * 3 + [">"] * 3 + [" "] * 3
    assert lines[3] == "> 2024-03-01 13:00 u: The cello lesson was hard"
    html = talked.search("Bach")._repr_html_()
    assert "&lt;b&gt;Bach" in html
    assert "<b>Bach" not in html
    assert "The cello lesson was hard" in repr(talked.search("Bach"))
    assert talked.search("Bach", mode="keyword", around=0)[0].before == ()
    assert talked.search("Bach").pl().columns == ["id", "source", "score", "text", "metadata"]


def test_a_report_shows_no_text_unless_it_is_asked_to(talked: Lab, monkeypatch):
    """Neither of a list of passages nor of one."""
    monkeypatch.setattr(report_kernel, "_marked", [True])
    answer = talked.search("Bach")
    for shown in (repr(answer), answer._repr_html_(), repr(answer[0]), answer[0]._repr_html_()):
        assert "cello" not in shown
        assert "Bach" not in shown
    assert "cello" in talked.search("Bach", content=True)._repr_html_()


def test_filters_are_of_one_message(lab: Lab):
    """Person, channel, role, time and sentiment, alone and together, in every mode."""
    talk(lab)
    talk(lab, user="v", conversation="d", start=100)
    lab.primary.execute("UPDATE users SET name = 'Vera' WHERE user_id = 'v'")
    for _ in range(2):
        for mode in ("semantic", "keyword", "hybrid"):

            def people(mode=mode, **options) -> set[str]:
                passages = lab.search("soup cello homesick exam", mode=mode, k=50, **options)
                return {f"{one.metadata['people'][0]} {one.text[:11]}" for one in passages}

            both = people()
            assert len(both) == 8 or mode != "semantic"
            assert people(user="Vera") == {one for one in both if one[0] == "v"}
            assert people(channel="c") == {one for one in both if one[0] == "u"}
            assert {one[2:] for one in people(sentiment="negative")} == {"I feel home"}
            assert {one[2:] for one in people(since=at(2 * HOUR), until=at(2 * HOUR + 60))} == {
                "I feel home"
            }
            assert people(user="v", channel="c") == set()
            assert people(role="system") == set()
        assert found(lab, "practise", mode="keyword", role="user") == []
        assert found(lab, "practise", mode="keyword", role="assistant", user="u") == [CELLO]
        assert len(found(lab, "lesson", since="12h", mode="semantic", k=50)) == 8
        assert len(found(lab, "lesson", since="1h", mode="semantic", k=50)) == 3
        lab.embeddings.refresh()  # the same again, of segments


def test_a_span_back_has_the_same_days_as_in_metrics(lab: Lab):
    """Whole days, ending with the day of the last message, not so many hours before it."""
    times = ("2024-03-01T23:00", "2024-03-02T01:00", "2024-03-02T23:30", "2024-03-03T10:00")
    for number, time in enumerate(times):
        written = f"{time}:00.000000Z"
        add(lab.primary, message(number, content=f"soup {number}", timestamp=written))
    lab.sync()
    for span, zone, count in (("2d", "UTC", 3), ("1w", "UTC", 4), ("1d", "Europe/Berlin", 2)):
        with type(lab).open(lab.home.path, timezone=zone) as there:
            lines = [
                line
                for one in there.search("soup", since=span, mode="keyword")
                for line in one.messages
            ]
            assert there.metrics.overview(since=span).pl()["n"][0] == count
            # A passage is found whole if one of its messages passes.
            assert count <= len(lines) <= len(times)
            begins = resolve(
                there.primary, user=None, channel=None, role=None, since=span, until=None,
                sentiment=None, timezone=zone,
            ).since  # fmt: skip
            assert sum(f"{time}:00.000000Z" >= begins for time in times) == count


def test_what_cannot_be_searched_for_is_said(talked: Lab):
    """Names that do not exist, with similar ones; and values out of range."""
    with pytest.raises(UnknownName, match=r"There is no user 'uu'"):
        talked.search("x", user="uu")
    talked.primary.execute("UPDATE users SET name = 'Magdalena'")
    with pytest.raises(UnknownName, match="did you mean Magdalena"):
        talked.search("x", user="Magdalen")
    with pytest.raises(UnknownName, match="no channel 'nowhere': give an id or a name of the tab"):
        talked.search("x", channel=["c", "nowhere"])
    with pytest.raises(UnknownName):
        talked.search("x", user="\ud800")
    with pytest.raises(InvalidValue, match=r"since is 2024-03-02, until is 2024-03-01T12:00:00\."):
        talked.search("x", since=date(2024, 3, 2), until=datetime(2024, 3, 1, 12))  # noqa: DTZ001
    for wrong in (
        {"mode": "sementic"}, {"source": "web"}, {"role": "bot"}, {"sentiment": "sad"},
        {"k": -1}, {"k": 1.5}, {"decay": 0}, {"since": "yesterday"}, {"until": "30d"},
        {"since": "2024-02-30"}, {"since": "2024-03-02", "until": "2024-03-01"}, {"user": []},
        {"user": 5}, {"channel": [5]}, {"decay": "3"}, {"decay": True}, {"around": -1},
        {"around": "x"}, {"k": 10**30}, {"source": 5}, {"timezone": "Mars"},
        {"timezone": 5},
    ):  # fmt: skip
        with pytest.raises(InvalidValue):
            talked.search("x", **wrong)
    for mode in ("semantic", "keyword", "hybrid"):
        with pytest.raises(InvalidValue, match="half of a surrogate pair"):
            talked.search("soup \ud800", mode=mode)


def test_days_are_those_of_the_zone(lab: Lab):
    """That of the lab, or another one that is given."""
    add(lab.primary, message(1, content="soup", timestamp="2024-03-01T23:30:00.000000Z"))
    assert not lab.search("soup", since="2024-03-02")
    assert lab.search("soup", since="2024-03-02", timezone="Europe/Berlin")


def test_a_filter_leaves_words_that_others_use_more_often(lab: Lab, monkeypatch):
    """Random searches find as many passages as there are, by comparison with plain Python."""
    for name, value in (("MATCHED", 4), ("RESCORED", 2)):
        monkeypatch.setattr(keyword, name, value)
    chance = random.Random(1)
    rows = [
        message(
            number,
            content=" ".join(chance.sample(WORDS, chance.choice((1, 2, 4)))),
            user_id=chance.choice("uv"),
            channel_id=chance.choice("cd"),
            conversation_id=f"k{number // 3}",
        )
        for number in range(90)
    ]
    add(lab.primary, *rows)
    remembered = {one["content"] for one in rows[:30]}
    add_memories(lab.primary, *sorted(remembered))
    lab.embeddings.refresh()
    for _ in range(40):
        asked = chance.sample(WORDS, chance.choice((1, 2, 3)))
        options = {
            name: value
            for name, value in (("user", "u"), ("channel", "d"), ("role", "assistant"))
            if chance.random() < 0.4
        }
        k = chance.choice((1, 5, 200))
        monkeypatch.setattr(filters_, "LITTLE", chance.choice((0, 1000)))
        passing = [
            one
            for one in rows
            if all(one[f"{name}_id" if name != "role" else name] == value
                   for name, value in options.items())
        ]  # fmt: skip
        near = lab.search(" ".join(asked), mode="semantic", k=k, **options)
        allowed = {(one["channel_id"], one["conversation_id"]) for one in passing}
        places = {(one.metadata["channel_id"], one.metadata["conversation_id"]) for one in near}
        assert places <= allowed
        assert k < 200 or places == allowed
        passing = [one for one in passing if set(asked) & set(one["content"].split())]
        expected = {(one["channel_id"], one["conversation_id"]) for one in passing}
        answer = lab.search(" ".join(asked), mode="keyword", k=k, **options)
        places = [(one.metadata["channel_id"], one.metadata["conversation_id"]) for one in answer]
        assert set(places) <= expected
        assert k < 200 or set(places) == expected
        assert len(answer) >= min(k, len(expected))
        if not options.keys() - {"user"}:
            memories = lab.search(" ".join(asked), mode="keyword", source="memories", k=200)
            held = {one for one in remembered if set(asked) & set(one.split())}
            assert {one.text for one in memories} == held


def test_words_weigh_the_same_in_all_that_is_searched(lab: Lab, tmp_path: Path):
    """A text that has all words comes first, whether in a segment, new, a memory or a document."""
    add(
        lab.primary,
        *(
            message(n, content=f"the piano of number {n} is old", conversation_id=f"k{n}")
            for n in range(30)
        ),
    )
    lab.embeddings.refresh()
    add(lab.primary, message(100, content="xylophone piano", conversation_id="new"))
    add_memories(lab.primary, "a zither near the piano")
    (tmp_path / "a.md").write_text("A zebra at the piano.")
    lab.knowledge.add(tmp_path / "a.md")
    for _ in range(2):
        for text in ("xylophone piano", "piano zither", "piano zebra"):
            best = lab.search(text, mode="keyword", source="all")[0]
            assert set(text.split()) <= set(best.text.lower().strip(".").split())
        lab.embeddings.refresh()


def test_memories_and_documents_are_searched_by_an_index(lab: Lab, monkeypatch):
    """Which follows changes of other programs, also a REPLACE, and finds what was there before."""
    add_memories(lab.primary, "likes tea", "has a cat")

    def words_of(text: str) -> list[str]:
        return [one.text for one in lab.search(text, mode="keyword", source="memories")]

    monkeypatch.setattr(texts, "read_all", None)
    assert words_of("tea") == ["likes tea"]
    lab.primary.execute("UPDATE memories SET content = 'likes milk' WHERE content = 'likes tea'")
    assert (words_of("tea"), words_of("MILK")) == ([], ["likes milk"])
    columns = "memory_id, user_id, content, memory_type, importance, created_at"
    lab.primary.execute("PRAGMA recursive_triggers = OFF")
    lab.primary.execute(
        f"INSERT OR REPLACE INTO memories ({columns}) SELECT memory_id, user_id, 'a dog', "
        "memory_type, importance, created_at FROM memories WHERE content = 'has a cat'"
    )
    assert (words_of("cat"), words_of("dog")) == ([], ["a dog"])
    CORE.rollback("item_words", 0, lab.primary)
    CORE.apply_core_schemas(lab.primary)
    assert (words_of("milk"), words_of("dog")) == (["likes milk"], ["a dog"])
    lab.primary.execute("DELETE FROM memories")
    assert words_of("milk dog") == []


def test_the_audit_asks_with_sentences(talked: Lab, monkeypatch):
    """Encoded anew, as a person's query is no text of the index."""
    asked = []
    monkeypatch.setattr(
        VectorIndex, "encode",
        lambda own, found_, real=VectorIndex.encode: asked.extend(found_) or real(own, found_),
    )  # fmt: skip
    (segments,) = talked.embeddings.audit().collections
    assert sorted(asked) == sorted([CELLO, HOME, EXAM, "Yes, and bread with cheese"])
    assert (segments.recall, segments.damaged) == (1, 0)


def test_odd_queries_are_answered(talked: Lab):
    """Blank ones with nothing, long ones by their first words, and none with an error."""
    for mode in ("semantic", "keyword", "hybrid"):
        assert found(talked, " \n", mode=mode) == []
        assert found(talked, "soup", mode=mode, k=0) == []
        assert found(talked, "onion soup " + "wine cheese " * 5_000, mode=mode)[0] == SOUP
        assert len(found(talked, "soup", mode=mode, k=10_000)) <= 4
        for odd in ('"', "* OR NOT (", "NEAR(a b)", "soup\0", "𝄞", "a" * 100_000, "col:x"):
            found(talked, odd, mode=mode)


def test_filters_choose_among_the_messages_in_no_segment(lab: Lab, monkeypatch):
    """Before the newest ones are taken, in every mode; the note counts those that are left out."""
    monkeypatch.setattr(tail, "MOST", 6)
    talk(lab, user="old", conversation="old")
    talk(lab, user="new", conversation="new", start=12)
    for mode in ("semantic", "keyword", "hybrid"):
        answer = lab.search("soup", mode=mode, user="old", since="2024-01-01", k=1)
        assert [one.metadata["people"] for one in answer] == (
            [] if mode == "keyword" else [["old"]]
        )
        assert answer.notes == (
            "6 messages are in no segment yet and were not searched: run `aico-lab index`.",
        )
        exam = lab.search("exam", mode=mode, user="old", k=1)
        assert exam[0].text.startswith(EXAM)
    assert not lab.search("soup", user="old", role="system").notes
    assert "18 messages are in no segment yet" in lab.search("soup").notes[0]


def test_age_halves_a_score(lab: Lab):
    """For every so many days."""
    for number, days in enumerate((0, 10, 20)):
        add(lab.primary, message(number, content="onion soup", conversation_id=f"k{number}",
                                 timestamp=at(days * 86_400)))  # fmt: skip
    lab.embeddings.refresh()
    plain = lab.search("onion soup", mode="semantic")
    assert [one.score for one in plain] == pytest.approx([1, 1, 1], abs=1e-5)
    decayed = lab.search("onion soup", mode="semantic", decay=10)
    assert [one.score for one in decayed] == pytest.approx([1, 0.5, 0.25], abs=1e-5)
    assert [one.metadata["conversation_id"] for one in decayed] == ["k2", "k1", "k0"]


def test_a_moment_in_the_future_makes_nothing_old(lab: Lab):
    """Ages are counted from the newest moment that is not in the future, however old others are."""
    for number, time in enumerate(
        ("9999-01-01T00:00:00.000000Z", at(0), at(-86_400), at(-86_400 * 2_000), START_OF_TIME)
    ):
        add(lab.primary, message(number, content="onion soup", conversation_id=f"k{number}",
                                 timestamp=time))  # fmt: skip
    for _ in range(2):
        found_ = lab.search("onion soup", mode="semantic", decay=1)
        assert [one.score for one in found_] == pytest.approx([1, 1, 0.5, 0, 0], abs=1e-5)
        conversations = [one.metadata["conversation_id"] for one in found_]
        assert sorted(conversations[:2]) == ["k0", "k1"]
        assert conversations[2:] == ["k2", "k3", "k4"]
        lab.embeddings.refresh()


@pytest.mark.parametrize("mode", ["semantic", "keyword", "hybrid"])
def test_age_is_weighed_of_more_passages_than_are_shown(lab: Lab, mode: str):
    """A new one is found behind a hundred old ones that fit better."""
    add(
        lab.primary,
        *(
            message(number, content=f"onion soup {number}", conversation_id=f"k{number}")
            for number in range(120)
        ),
        message(200, content="a garden with onion beds, and much else", conversation_id="new",
                timestamp=at(100 * 86_400)),
    )  # fmt: skip
    newest = lab.search("onion soup", mode=mode, k=1, decay=1)[0]
    assert newest.metadata["conversation_id"] == "new"


def test_the_command_prints_passages(talked: Lab, cli):
    """As transcripts, or as JSON; it makes segments of new messages first."""
    add(talked.primary, message(99, message_id="new", content="A violin, too", conversation_id="n"))
    listed = json.loads(cli("search", "cello violin", "--json", "--k", "2").stdout)
    assert [set(one) for one in listed] == [{"id", "text", "score", "metadata"}] * 2
    assert not any(one["id"].startswith("messages:") for one in listed)
    shown = cli("search", "my sister", "--mode", "semantic", "--k", "1").stdout
    assert "> 2024-03-01 14:00 u: I feel homesick in Reykjavik" in shown
    wrong = cli("search", "x", "--user", "nobody")
    told = "aico-lab: There is no user 'nobody': give an id or a name of the table `users`.\n"
    assert (wrong.returncode, wrong.stderr) == (2, told)
    assert cli("search", "zyzzyva", "--mode", "keyword").stdout == "Nothing was found.\n"


def many(lab: Lab, number: int = 300) -> None:
    add_memories(lab.primary, *(f"number {one} of {one % 7} roads" for one in range(number)))


@pytest.mark.slow
def test_chroma_is_asked_beyond_some_texts_and_what_it_lacks_is_compared(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    """Also after deletions; without Chroma, or if it is damaged, everything is compared."""
    many(lab)
    lab.sync_vectors()
    monkeypatch.setattr(index_, "COMPARED", 10)
    index, encoder = lab.memories.index, open_encoder()
    asked = []
    monkeypatch.setattr(
        OpenedStore, "entries",
        lambda own, name, real=OpenedStore.entries: asked.append(name) or real(own, name),
    )  # fmt: skip
    texts_of = {id_[2:] for id_, _ in index.query("number 5", 300)}
    assert len(texts_of) == 300
    assert asked
    add_memories(lab.primary, "a lesson on the cello")
    lab.primary.execute("DELETE FROM memories WHERE content = 'number 5 of 5 roads'")
    assert index.query("cello", 1)[0][0] == "u:a lesson on the cello"
    exact = index.nearest_to(
        encoder.encode_usable(["number 5"])[0][0], 20, texts.MEMORIES, approximate=False
    )
    assert index.query("number 5", 20) == [
        (one.item_id, pytest.approx(one.score, abs=1e-5)) for one in exact
    ]
    lab.home.path.joinpath("vectors.age").write_bytes(b"age-encryption.org/v1\nnothing")
    assert index.query("cello", 1)[0][0] == "u:a lesson on the cello"
    audit = lab.embeddings.audit()
    assert "another key" in audit.damage or "damaged" in audit.damage
    assert lab.sync_vectors().rebuilt
    audit = lab.embeddings.audit()
    assert (audit.damage, audit.readable, audit.advice) == (None, 0, [])
    (memories,) = audit.collections
    assert (memories.texts, memories.missing, memories.orphans, memories.deleted) == (300, 0, 0, 0)
    assert memories.recall_of_chroma >= 0.95
    assert memories.recall_filtered == 1


@pytest.mark.slow
def test_chroma_searches_among_many_candidates(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """Also in a store that was made with fewer."""
    many(lab, 20)
    monkeypatch.setattr(chroma_store, "CANDIDATES", 100)
    lab.sync_vectors()
    monkeypatch.undo()
    lab.memories.index.open_store()
    (memories,) = lab.memories.index._chroma._connection.client.list_collections()
    assert memories.configuration_json["hnsw"]["ef_search"] == chroma_store.CANDIDATES > 1_000


@pytest.mark.slow
def test_an_increment_costs_what_changed(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """Only new texts are encoded, and Chroma gets only them; an audit counts what stays behind."""
    monkeypatch.setattr(vectors, "SMALL", 0)
    many(lab)
    lab.sync_vectors()
    encoded: list[str] = []
    monkeypatch.setattr(
        WordLlama, "_encode",
        lambda own, texts_, real=WordLlama._encode: encoded.extend(texts_) or real(own, texts_),
    )  # fmt: skip
    lab.primary.execute("UPDATE memories SET content = 'new' WHERE content LIKE 'number 3 %'")
    lab.primary.execute("DELETE FROM memories WHERE content LIKE 'number 4 %'")
    done = lab.sync_vectors()
    assert (done.mode, done.written, done.deleted, encoded) == ("increment", 1, 1, ["new"])
    (memories,) = lab.embeddings.audit().collections
    assert (memories.texts, memories.missing, memories.orphans, memories.deleted) == (299, 0, 0, 2)
    assert "still hold 2 deleted vectors of memories" in lab.embeddings.audit().advice[0]
    stored = {key for (key,) in lab.primary.fetch_all("SELECT text_sha256 FROM text_vectors")}
    assert len(stored) == 299
    assert text_sha256("number 4 of 4 roads") not in stored
    encoded.clear()
    assert lab.sync_vectors(full=True).mode == "full"
    assert encoded == []
    assert lab.embeddings.audit().advice == []


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE text_vectors SET vector = zeroblob(1024)",
        "UPDATE text_vectors SET vector = x'0000c07f' || substr(vector, 5) WHERE rowid % 2",
        "UPDATE text_vectors SET vector = 'text'",
        "DELETE FROM text_vectors",
        "UPDATE text_vectors SET model = 'minilm'",
        "DELETE FROM text_index WHERE item_id <> 'u:likes tea'",
        "UPDATE text_index SET text_sha256 = randomblob(32)",
    ],
)
def test_texts_whose_vectors_another_program_damaged_are_found(lab: Lab, harm: str, monkeypatch):
    """The audit counts them; if they are too many to be encoded anew, a search says so."""
    add_memories(lab.primary, "likes tea", "has a cat", "plays the cello")
    lab.embeddings.refresh()
    encoder = open_encoder()
    assert text_index.is_complete(lab.primary, encoder)
    lab.primary.execute(harm)
    assert not text_index.is_complete(lab.primary, encoder)
    for text in ("likes tea", "has a cat", "plays the cello"):
        best = lab.search(text, mode="semantic", source="memories")
        assert (len(best), best[0].text, best.notes) == (3, text, ())
    (memories,) = lab.embeddings.audit().collections
    assert (memories.items, memories.texts, memories.lacking) == (3, 3, 0)
    assert memories.damaged in (2, 3)
    assert (
        f"{memories.damaged} texts of memories are not indexed, or their vectors are missing or "
        "damaged, as another program changed them; a search encodes them anew, which takes time: "
        "run `aico-lab sync --only vectors`." in lab.embeddings.audit().faults
    )
    if "text_vectors" in harm:
        monkeypatch.setattr(index_, "ENCODED", 0)
        lab.memories.index.close()
        answer = lab.search("tea", mode="semantic", source="memories")
        assert len(answer) == 3 - memories.damaged
        assert "have no readable vector and were not searched by meaning" in answer.notes[0]
    text_index.refresh(lab.primary, encoder, full=True)
    assert text_index.is_complete(lab.primary, encoder)
    lab.memories.index.close()
    assert len(lab.search("tea", mode="semantic", source="memories")) == 3


@pytest.mark.slow
def test_vectors_that_another_program_damaged_are_made_again(lab: Lab):
    """Not a number, of another length, or deleted: a sync mends them, and a search gets by."""
    many(lab, 20)
    lab.sync_vectors()
    for harm, where in (
        ("UPDATE text_vectors SET vector = x'0000c07f' || substr(vector, 5)", "1"),
        ("UPDATE text_vectors SET vector = x'0000803f'", "rowid % 2"),
        ("DELETE FROM text_vectors", "rowid % 3 = 0"),
    ):
        lab.primary.execute(f"{harm} WHERE {where}")
        lab.memories.index.close()
        lab.memories.index.query("number", 100)
        assert lab.embeddings.audit().collections[0].damaged > 0
        lab.sync()
        assert lab.sync_vectors().mode == "full"
        assert lab.sync_vectors().mode == "nothing"
        add_memories(lab.primary, harm)
        lab.sync_vectors()
        (memories,) = lab.embeddings.audit().collections
        assert (memories.texts, memories.missing) == (memories.items, 0)
    assert memories.texts == 23


class Other(WordLlama):
    """Another model."""

    model = "other-1"


@pytest.mark.slow
def test_another_models_vectors_are_refused_until_all_are_made_anew(lab: Lab):
    """By an update, and by a search; mixing them would compare nothing."""
    many(lab, 20)
    lab.sync_vectors()
    keys, home = lab.storage.keys, lab.home
    remedy = "run `aico-lab sync --only vectors --full`"
    with pytest.raises(OtherModel, match=remedy):
        vectors.sync_vectors(lab.primary, home, keys, encoder=Other())
    store = ChromaDBAdapter(home.vectors, keys.chroma(), read_only=True)
    with (
        VectorIndex(lab.storage.open_primary, store, Other()) as index,
        pytest.raises(OtherModel, match=remedy),
    ):
        index.query("number", 1)
    done = vectors.sync_vectors(lab.primary, home, keys, encoder=Other(), full=True)
    assert (done.mode, text_index.model(lab.primary)) == ("full", "other-1")
    with store.connect() as opened:
        assert opened.collection(texts.MEMORIES).facts() == {"model": "other-1", "dimensions": 256}
    problems = lab.sync().problems
    assert len(problems) == 1
    assert remedy in problems[0]


class Bomb:
    """An object that leaves a mark where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
def test_a_foreign_folder_is_made_anew_and_never_unpickled(home: Path, homes, tmp_path: Path):
    """Whatever it holds, a sync of an unencrypted home and a search get by."""
    with homes.open(home, "none") as lab:
        many(lab, 20)
        folder = lab.home.vectors / "0b1f0000-0000-0000-0000-000000000000"
        folder.mkdir(parents=True)
        (folder / "index_metadata.pickle").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
        (lab.home.vectors / "chroma.sqlite3").write_bytes(b"foreign")
        assert len(lab.memories.index.query("number", 5)) == 5
        assert lab.sync().problems == ()
        assert not folder.exists()
        assert not (tmp_path / "exploded").exists()
        assert lab.embeddings.audit().advice == []


@pytest.mark.slow
def test_vectors_that_cannot_be_written_stop_no_pipeline(lab: Lab, cli, tmp_path: Path):
    """They are reported; the sync itself ends with 1."""
    many(lab, 5)
    vectors.sync_vectors(lab.primary, lab.home, lab.storage.keys, encoder=Other(), full=True)
    (tmp_path / "job.toml").write_text('[[steps]]\nrun = "sync"\n')
    done = cli("pipeline", "run", str(tmp_path / "job.toml"))
    assert (done.returncode, "sync --only vectors --full" in done.stderr) == (0, True)
    assert cli("sync").returncode == 1
    assert cli("sync", "--only", "warehouse").returncode == 0
    assert cli("sync", "--only", "vectors").returncode == 1
    done = cli("sync", "--only", "vectors", "--full")
    assert (done.returncode, done.stdout[:28]) == (0, "Vectors: 0 entries written, ")
    assert "vectors are up to date" in cli("sync", "--only", "vectors").stdout
    assert "cache is up to date" in cli("sync", "--only", "cache").stdout
    assert cli("sync", "--only", "vectors", "--acknowledge").returncode == 2
