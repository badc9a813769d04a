"""One contract for every repository, on libSQL and in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.domain import (
    Conversation,
    Device,
    Memory,
    MemoryType,
    Relationship,
    User,
    UserPreferences,
)
from aico_lab.errors import DuplicateId, InvalidEntity, InvalidValue, UnknownUser, WrongUse
from aico_lab.repositories import ChromaDBMemoryRepository, LibSQLMemoryRepository, empty_index
from tests.messages import add, message
from tests.worlds import InMemoryWorld, LibSQLWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.worlds import World

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
INT64 = {"largest": 2**63 - 1, "smallest": -(2**63), "beyond": 2**80, "nested": [{"n": 2**53 + 1}]}
UNICODE = "naïve Füße 你好 🏳️‍🌈 \u202eright to left\u202c e\u0301 \U0010ffff"


@pytest.fixture(params=["libsql", "in memory"])
async def world(request, tmp_path) -> AsyncIterator[World]:
    made = LibSQLWorld(tmp_path) if request.param == "libsql" else InMemoryWorld()
    await made.users.save(User("Ada", id="ada"))
    await made.users.save(User("Bo", id="bo"))
    yield made
    await made.close()


@pytest.fixture
async def libsql(tmp_path) -> AsyncIterator[LibSQLWorld]:
    made = LibSQLWorld(tmp_path)
    await made.users.save(User("Ada", id="ada"))
    yield made
    await made.close()


def turn(number: int, text: str = "", user_id: str = "ada", **options) -> Conversation:
    """Return a turn at a number of seconds after noon."""
    moment = NOON + timedelta(seconds=number)
    return Conversation(user_id, text or f"turn {number}", moment, **options)


def texts(found: list[Conversation]) -> list[str]:
    return [one.message for one in found]


# Conversations


async def test_a_turn_comes_back_as_it_was_saved(world):
    """For every field, with any characters and integers of any size."""
    saved = turn(
        1, UNICODE, is_ai_response=True, sentiment_score=-0.1, response_time=1 / 3, id="é-1",
        conversation_id="c", channel_id="k", metadata={"big": INT64, "text": UNICODE, "none": None},
    )  # fmt: skip
    await world.conversations.save(saved)
    assert await world.conversations.get_by_user("ada") == [saved]


async def test_nobody_can_change_a_turn_through_what_was_read_or_saved(world):
    """Repositories save and return copies."""
    saved = turn(1, metadata={"a": [1]})
    await world.conversations.save(saved)
    saved.metadata["a"].append(2)
    (read,) = await world.conversations.get_by_user("ada")
    read.metadata["a"].append(3)
    (again,) = await world.conversations.get_by_user("ada")
    assert again.metadata == {"a": [1]}


async def test_the_latest_turns_of_a_user_come_newest_first(world):
    """Of equal times the last saved comes first; only this user's; at most `limit`."""
    for one in (turn(5), turn(1), turn(3, "first of two"), turn(3, "second of two"), turn(9)):
        await world.conversations.save(one)
    await world.conversations.save(turn(7, user_id="bo"))
    assert texts(await world.conversations.get_by_user("ada")) == [
        "turn 9", "turn 5", "second of two", "first of two", "turn 1",
    ]  # fmt: skip
    assert texts(await world.conversations.get_by_user("ada", limit=3)) == [
        "turn 9", "turn 5", "second of two",
    ]  # fmt: skip
    assert await world.conversations.get_by_user("ada", limit=0) == []
    assert await world.conversations.get_by_user("nobody") == []


async def test_a_user_s_latest_fifty_turns_come_unless_told_otherwise(world):
    """As in the document's signature."""
    async with world.unit_of_work() as uow:
        for number in range(60):
            await uow.conversations.save(turn(number))
        await uow.commit()
    assert len(await world.conversations.get_by_user("ada")) == 50
    assert len(await world.conversations.get_by_user("ada", 1000)) == 60


@pytest.mark.parametrize("limit", [-1, 1.5, "3", None, True])
async def test_a_limit_that_is_none_is_refused(world, limit):
    """A database would treat a negative limit as no limit."""
    for ask in (
        world.conversations.get_by_user,
        world.conversations.search_by_content,
        world.memories.get_by_context,
    ):
        with pytest.raises(InvalidValue):
            await ask("ada", limit)


async def test_a_turn_of_an_unknown_user_is_refused(world):
    """Neither a message nor a channel is stored."""
    with pytest.raises(UnknownUser):
        await world.conversations.save(turn(1, user_id="nobody"))
    assert await world.count("messages") == 0
    if isinstance(world, LibSQLWorld):
        assert await world.count("channels") == 0


async def test_a_turn_is_saved_once(world):
    """The first turn stays, even if the second has another user."""
    await world.conversations.save(turn(1, "first", id="m"))
    for second in (turn(2, "second", id="m"), turn(2, "second", "bo", id="m")):
        with pytest.raises(DuplicateId):
            await world.conversations.save(second)
    assert texts(await world.conversations.get_by_user("ada")) == ["first"]


async def test_turns_between_two_moments_come_oldest_first(world):
    """The start is included, the end is not; for one user or one channel."""
    for one in (turn(3, "b"), turn(3, "c"), turn(1, "a"), turn(5, "d", channel_id="k")):
        await world.conversations.save(one)
    await world.conversations.save(turn(4, "bo's", "bo"))

    async def between(start: int, end: int, **options: str) -> list[str]:
        moments = (NOON + timedelta(seconds=second) for second in (start, end))
        return texts(await world.conversations.get_between(*moments, **options))

    assert await between(1, 6) == ["a", "b", "c", "bo's", "d"]
    assert await between(1, 5) == ["a", "b", "c", "bo's"]
    assert await between(1, 6, user_id="ada") == ["a", "b", "c", "d"]
    assert await between(1, 6, channel_id="k") == ["d"]
    assert await between(1, 6, channel_id="k", user_id="bo") == []
    assert await between(5, 1) == []


async def test_a_channel_counts_its_messages_exactly_whoever_saves_at_once(libsql):
    """Forty tasks write to two channels; counts and last activities match the rows."""
    saving = [libsql.conversations.save(turn(n, channel_id=f"k{n % 2}")) for n in range(40)]
    await asyncio.gather(*saving)
    rows = await libsql.outside(
        "SELECT channel_id, kind, message_count, last_active, "
        "(SELECT count(*) FROM messages m WHERE m.channel_id = c.channel_id), "
        "(SELECT max(timestamp) FROM messages m WHERE m.channel_id = c.channel_id) "
        "FROM channels c ORDER BY channel_id"
    )
    assert [row[:3] for row in rows] == [("k0", "direct", 20), ("k1", "direct", 20)]
    assert all(row[2] == row[4] and row[3] == row[5] for row in rows)


async def test_refused_turns_are_not_counted(libsql):
    """An old message does not reduce a channel's last activity either."""
    await libsql.conversations.save(turn(9, id="m"))
    await libsql.conversations.save(turn(1))
    with pytest.raises(DuplicateId):
        await libsql.conversations.save(turn(20, id="m"))
    assert await libsql.outside("SELECT message_count, last_active FROM channels") == [
        (2, "2024-03-01T12:00:09.000000Z")
    ]


async def test_a_saved_turn_reaches_the_change_feed_and_the_view(libsql):
    """In the same transaction as the row; the view has the document's column names."""
    await libsql.conversations.save(turn(1, id="m", is_ai_response=True, sentiment_score=0.5))
    assert ("messages", "m", "insert") in await libsql.outside(
        "SELECT table_name, row_key, op FROM change_log"
    )
    assert await libsql.outside(
        "SELECT message, is_ai_response, sentiment, sentiment_score FROM conversations"
    ) == [("turn 1", 1, "positive", 0.5)]


async def test_imported_messages_are_turns_and_system_messages_are_none(libsql):
    """A system message belongs to neither side."""
    with libsql.adapter.connect() as connection:
        add(connection, message(1), message(2), message(3, role="system", user_id=None))
    found = await libsql.conversations.get_by_user("u")
    assert [(one.id, one.is_ai_response) for one in found] == [("m2", False), ("m1", True)]
    assert len(await libsql.conversations.search_by_content("homesick")) == 2
    assert len(await libsql.conversations.get_between(NOON, NOON + timedelta(days=1))) == 2


# Search


async def test_a_search_finds_turns_with_every_word(world):
    """Whole words match, regardless of case, accents and order."""
    for number, text in enumerate(
        ["I felt homesick in Zürich", "HOMESICK again, I felt it", "a home for the sick", "felt"]
    ):
        await world.conversations.save(turn(number, text))
    search = world.conversations.search_by_content
    assert len(await search("felt homesick")) == 2
    assert texts(await search("zurich")) == ["I felt homesick in Zürich"]
    assert texts(await search("ZÜRICH homesick")) == ["I felt homesick in Zürich"]
    assert await search("homesic") == []
    assert len(await search("felt", limit=2)) == 2
    assert await search("") == await search(" \t\n") == []


async def test_a_search_ranks_by_relevance_and_then_by_time(world):
    """Rare words and repetitions count more; of equal scores the newest comes first."""
    for number, text in enumerate(
        ["rain and tea and cake", "rain", "rain", "rain rain rain", "a long day without any of it"]
    ):
        await world.conversations.save(turn(number, text, id=f"m{number}"))
    found = await world.conversations.search_by_content("rain")
    assert [one.id for one in found] == ["m3", "m2", "m1", "m0"]


async def test_a_search_knows_no_operators(world):
    """FTS5's syntax is plain text in a query."""
    for number, text in enumerate(
        [
            'say "hello" AND goodbye',
            "don't stop",
            "a NEAR miss",
            "C++ is * not C-",
            "x OR y",
            "no:t",
        ]
    ):
        await world.conversations.save(turn(number, text))
    search = world.conversations.search_by_content
    assert texts(await search('"hello')) == ['say "hello" AND goodbye']
    assert texts(await search("hello AND")) == ['say "hello" AND goodbye']
    assert texts(await search("don't")) == ["don't stop"]
    assert texts(await search("NEAR(miss")) == ["a NEAR miss"]
    assert texts(await search("NOT *")) == ["C++ is * not C-"]
    assert texts(await search("x y OR")) == ["x OR y"]
    assert texts(await search("no:t")) == ["no:t"]
    assert await search("hello OR goodbye") == []
    assert await search("message:hello") == []
    assert await search("hel*") == []


async def test_an_emoji_is_looked_for_as_it_stands(world):
    """It is not a word, but can be searched for."""
    for number, text in enumerate(["so happy 🎉", "party 🎉🎉", "no party", "50% off", "***"]):
        await world.conversations.save(turn(number, text))
    search = world.conversations.search_by_content
    assert texts(await search("🎉")) == ["party 🎉🎉", "so happy 🎉"]
    assert texts(await search("party 🎉")) == ["party 🎉🎉", "no party"]
    assert texts(await search("%")) == ["50% off"]
    assert texts(await search("*")) == ["***"]
    assert await search("🦄") == []
    assert await search("\0") == await search("\ud83d") == []


VOCABULARY = st.sampled_from(
    ["rain", "RAIN", "Füße", "fusse", "don't", "x_y", "42", "☔", '"', "AND", "OR", "NOT", "NEAR",
     "NEAR(a", "*", "^rain", "rain*", "content:rain", "-rain", "(", ")", "''", "\\", "+", "{a}"]
)  # fmt: skip
phrases = st.lists(VOCABULARY, max_size=5).map(" ".join)


async def _filled(folder, messages: list[str]) -> tuple[LibSQLWorld, InMemoryWorld]:
    worlds = LibSQLWorld(folder), InMemoryWorld()
    for one in worlds:
        await one.users.save(User("Ada", id="ada"))
        async with one.unit_of_work() as uow:
            for number, text in enumerate(messages):
                await uow.conversations.save(turn(number, text, id=f"m{number}"))
            await uow.commit()
    return worlds


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(messages=st.lists(phrases, max_size=8), queries=st.lists(phrases, min_size=1, max_size=5))
@pytest.mark.slow
def test_both_implementations_find_the_same(tmp_path_factory, messages, queries):
    """In the same order, for any messages and queries of words and FTS5's syntax."""

    async def compare() -> None:
        libsql, memory = await _filled(tmp_path_factory.mktemp("search"), messages)
        for query in queries:
            theirs = await libsql.conversations.search_by_content(query)
            assert theirs == await memory.conversations.search_by_content(query), query
        await libsql.close()

    asyncio.run(compare())


@pytest.fixture(scope="module")
def searchable(tmp_path_factory) -> tuple[LibSQLWorld, InMemoryWorld]:
    with asyncio.Runner() as runner:
        made, memory = runner.run(_filled(tmp_path_factory.mktemp("any"), ["rain", "tea", "☔"]))
        runner.run(made.close())
    return made, memory


@settings(max_examples=150)
@given(query=st.text(max_size=40) | st.text(st.characters(codec=None), max_size=20) | phrases)
@pytest.mark.slow
def test_no_query_is_an_error(searchable, query):
    """For any characters, the result is the same as in memory."""
    libsql, memory = searchable

    async def search() -> None:
        world = LibSQLWorld(libsql.adapter.path.parent)
        found = await world.conversations.search_by_content(query)
        assert found == await memory.conversations.search_by_content(query)
        await world.close()

    asyncio.run(search())


async def test_a_very_long_query_is_answered(world):
    """For example a pasted book."""
    await world.conversations.save(turn(1, "call me Ishmael"))
    assert await world.conversations.search_by_content(" ".join(map(str, range(50_000)))) == []
    assert await world.conversations.search_by_content("call me " * 50_000) != []


async def test_writing_leaves_the_index_alone_and_searching_brings_it_up_to_date(libsql):
    """Only a search writes the index, and finds messages from every way of writing."""
    await libsql.conversations.save(turn(1, "rain"))
    with libsql.adapter.connect() as connection:
        add(connection, message(1, content="more rain"))
    assert await libsql.outside("SELECT indexed_through FROM search_state") == [(0,)]
    assert len(await libsql.conversations.search_by_content("rain")) == 2
    assert await libsql.outside("SELECT indexed_through FROM search_state") == [(2,)]


async def test_searches_at_the_same_time_index_every_message_once(libsql, monkeypatch):
    """Also if there are several batches to index."""
    monkeypatch.setattr("aico_lab.repositories.full_text.BATCH", 7)
    with libsql.adapter.connect() as connection:
        add(connection, *(message(n, content="rain") for n in range(50)))
    searching = [libsql.conversations.search_by_content("rain", 100) for _ in range(5)]
    found = await asyncio.gather(*searching)
    assert [len(one) for one in found] == [50] * 5


@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "not indexed yet"])
async def test_changed_and_deleted_messages_leave_the_index(libsql, indexed):
    """A search finds the current text of a message, and no deleted message."""
    for number, text in enumerate(["rain", "rain", "rain"]):
        await libsql.conversations.save(turn(number, text, id=f"m{number}"))
    if indexed:
        assert len(await libsql.conversations.search_by_content("rain")) == 3
    with libsql.adapter.connect() as connection:
        connection.execute("DELETE FROM messages WHERE message_id = 'm0'")
        connection.execute("UPDATE messages SET content = 'snow' WHERE message_id = 'm1'")
    assert [one.id for one in await libsql.conversations.search_by_content("rain")] == ["m2"]
    assert [one.id for one in await libsql.conversations.search_by_content("snow")] == ["m1"]
    rows = await libsql.outside(
        "SELECT rowid FROM messages_search WHERE messages_search MATCH 'rain OR snow'"
    )
    assert sorted(rows) == [(2,), (3,)]
    assert await libsql.outside("PRAGMA integrity_check") == [("ok",)]


async def test_deleting_a_person_takes_their_messages_out_of_the_index(libsql):
    """The foreign keys' cascade updates the index."""
    await libsql.conversations.save(turn(1, "rain"))
    await libsql.conversations.search_by_content("rain")
    await libsql.dal.execute("DELETE FROM users WHERE user_id = 'ada'")
    assert await libsql.conversations.search_by_content("rain") == []


async def test_an_emptied_index_holds_no_word_of_what_was_deleted(libsql):
    """The next search rebuilds the index from the remaining messages."""
    await libsql.conversations.save(turn(1, "the xylophone", id="m"))
    await libsql.conversations.save(turn(2, "the rain"))
    await libsql.conversations.search_by_content("rain")
    await libsql.dal.execute("DELETE FROM messages WHERE message_id = 'm'")

    async def held() -> bool:
        pages = await libsql.outside("SELECT block FROM messages_search_data")
        return any(b"ylophone" in bytes(page) for (page,) in pages)

    assert await held()  # why empty_index is needed
    await empty_index(libsql.dal)
    assert not await held()
    assert texts(await libsql.conversations.search_by_content("the")) == ["the rain"]
    assert not await held()


async def test_a_search_in_a_unit_of_work_sees_its_own_messages_and_leaves_no_trace(world):
    """The rollback removes the messages from the index, too."""
    async with world.unit_of_work() as uow:
        await uow.conversations.save(turn(1, "rain"))
        assert len(await uow.conversations.search_by_content("rain")) == 1
    assert await world.conversations.search_by_content("rain") == []
    await world.conversations.save(turn(2, "snow"))
    assert texts(await world.conversations.search_by_content("snow")) == ["snow"]


# Memories


async def test_a_memory_comes_back_as_it_was_saved(world):
    """For every field."""
    saved = Memory(
        "ada", UNICODE, memory_type=MemoryType.SEMANTIC, importance=0.1, id="é", created_at=NOON,
        metadata={"big": INT64},
    )  # fmt: skip
    await world.memories.save(saved)
    assert await world.memories.get_by_id("é") == saved
    assert await world.memories.get_by_id("e") is None


async def test_saving_a_memory_again_changes_it(world):
    """Unless it belongs to another user, or its user is unknown."""
    first = await world.memories.create("likes tea", "ada", importance=0.9)
    await world.memories.save_memory(replace(first, content="likes coffee"))
    assert (await world.memories.get_by_id(first.id)).content == "likes coffee"
    with pytest.raises(DuplicateId):
        await world.memories.save(replace(first, user_id="bo"))
    with pytest.raises(DuplicateId):
        await world.memories.save(replace(first, user_id="nobody"))
    assert (await world.memories.get_by_id(first.id)).user_id == "ada"
    assert await world.count("memories") == 1


async def test_a_memory_of_an_unknown_user_is_refused(world):
    """Nothing is stored."""
    with pytest.raises(UnknownUser):
        await world.memories.create("likes tea", "nobody")
    assert await world.count("memories") == 0


async def test_text_that_a_store_would_cut_is_refused(world):
    """It is refused before it reaches a store."""
    with pytest.raises(InvalidEntity):
        await world.memories.create("a\0b", "ada")


async def test_memories_are_found_by_context(world):
    """Nearest first, of one person or of all, under both of the document's names."""
    tea = await world.memories.create("Ada likes tea in the morning", "ada")
    cat = await world.memories.create("Ada has a cat", "ada")
    other = await world.memories.create("Bo likes tea", "bo")
    await world.settle()
    ask = world.memories.get_by_context
    assert (await ask("tea in the morning", user_id="ada"))[0] == tea
    assert await ask("the cat", limit=1) == [cat]
    assert other not in await ask("tea", user_id="ada")
    assert await ask("tea", limit=2, user_id="bo") == [other]
    assert len(await world.memories.get_memories_by_context("tea", limit=2)) == 2
    assert await ask("tea", limit=0) == await ask("tea", user_id="nobody") == []


async def test_a_deleted_memory_is_not_given_though_the_index_still_holds_it(world):
    """Other memories take its place, up to the limit."""
    made = [await world.memories.create(f"tea {number}", "ada") for number in range(8)]
    await world.settle()
    for memory in made[:5]:
        await world.memories.delete(memory.id)
    await world.memories.delete("unknown")
    assert await world.memories.get_by_context("tea", limit=2) == made[5:7]
    assert await world.memories.get_by_context("tea", limit=9) == made[5:]


async def test_a_changed_memory_is_given_as_it_is_now(world):
    """Even if the index still has the old text."""
    memory = await world.memories.create("likes tea", "ada")
    await world.settle()
    changed = replace(memory, content="likes coffee")
    await world.memories.save(changed)
    assert await world.memories.get_by_context("likes") == [changed]


async def test_a_new_memory_is_found_once_the_index_has_caught_up(libsql):
    """The index is eventually consistent."""
    memory = await libsql.memories.create("likes tea", "ada")
    assert await libsql.memories.get_by_context("tea") == []
    await libsql.settle()
    assert await libsql.memories.get_by_context("tea") == [memory]


async def test_without_an_index_only_meaning_is_missing(libsql):
    """Searching by meaning raises instead of returning an empty list."""
    memories = ChromaDBMemoryRepository(libsql.dal)
    assert isinstance(memories, LibSQLMemoryRepository)
    memory = await memories.create("likes tea", "ada")
    assert await memories.get_by_id(memory.id) == memory
    with pytest.raises(WrongUse):
        await memories.get_by_context("tea")


# People, preferences, relationships, devices, state


async def test_a_person_comes_back_with_their_preferences(world):
    """Saving a person again updates the preferences, and removes none."""
    ada = User("Ada Füße", UserPreferences("de", "terse", "strict"), NOON, id="ada")
    await world.conversations.save(turn(1))
    await world.users.save(ada)
    assert await world.users.get_by_id("ada") == ada
    assert await world.users.get_by_id("nobody") is None
    assert len(await world.conversations.get_by_user("ada")) == 1
    nameless = User(None)
    await world.users.save(nameless)
    assert await world.users.get_by_id(nameless.id) == nameless


async def test_preferences_hold_any_json(world):
    """All preferences are returned by key, including those of `UserPreferences`."""
    for key, value in {"theme": "dark", "sizes": [2**63 - 1, 0.1], "none": None}.items():
        await world.preferences.set("ada", key, value)
        assert await world.preferences.get("ada", key) == value
    await world.preferences.set("ada", "theme", "light")
    await world.preferences.set("ada", "language", "fr")
    assert await world.preferences.all("ada") == {
        "language": "fr", "none": None, "personality_style": "friendly",
        "privacy_level": "standard", "sizes": [2**63 - 1, 0.1], "theme": "light",
    }  # fmt: skip
    assert (await world.users.get_by_id("ada")).preferences.language == "fr"
    assert await world.preferences.get("ada", "unknown") is None
    assert await world.preferences.all("nobody") == {}


async def test_preferences_that_cannot_be_are_refused(world):
    """An unknown user, an empty key, and values that `UserPreferences` refuses."""
    with pytest.raises(UnknownUser):
        await world.preferences.set("nobody", "theme", "dark")
    for key, value in (("", 1), ("theme", float("nan")), ("theme", {1: 2}), ("language", 5)):
        with pytest.raises(InvalidEntity):
            await world.preferences.set("ada", key, value)
    assert len(await world.preferences.all("ada")) == 3


async def test_setting_what_is_set_already_is_no_change(libsql):
    """The change feed has no new change."""
    await libsql.preferences.set("ada", "theme", "dark")
    before = await libsql.count("change_log")
    await libsql.preferences.set("ada", "theme", "dark")
    assert await libsql.count("change_log") == before


async def test_relationships_come_by_name(world):
    """Each person has their own; saving one again updates it."""
    zoe = Relationship("ada", "Zoe", "friend", 0.75, "met at school", updated_at=NOON)
    for one in (zoe, Relationship("bo", "Al", "boss"), max_ := Relationship("ada", "Max", "dog")):
        await world.relationships.save(one)
    assert await world.relationships.get_by_user("ada") == [max_, zoe]
    await world.relationships.save(replace(zoe, kind="sister"))
    assert (await world.relationships.get_by_user("ada"))[1].kind == "sister"
    with pytest.raises(DuplicateId):
        await world.relationships.save(replace(zoe, user_id="bo"))
    with pytest.raises(UnknownUser):
        await world.relationships.save(Relationship("nobody", "Zoe", "friend"))
    assert await world.relationships.get_by_user("nobody") == []


async def test_the_registry_knows_which_devices_are_trusted(world):
    """Saving changes the trust; another public key under the same id is refused."""
    phone = Device("phone", "key 1", added_at=NOON)
    tablet = Device("tablet", "key 2", trusted=True, added_at=NOON - timedelta(days=1))
    for device in (phone, tablet, replace(phone, trusted=True, last_seen_at=NOON)):
        await world.devices.save(device)
    assert await world.devices.get_by_id(phone.id) == replace(
        phone, trusted=True, last_seen_at=NOON
    )
    assert [device.name for device in await world.devices.get_trusted()] == ["tablet", "phone"]
    await world.devices.save(replace(tablet, trusted=False))
    assert [device.name for device in await world.devices.get_trusted()] == ["phone"]
    with pytest.raises(DuplicateId):
        await world.devices.save(replace(phone, public_key="key 3", trusted=True))
    assert await world.devices.get_by_id("unknown") is None


async def test_system_state_is_text_under_keys(world):
    """Setting a key again replaces its value."""
    await world.system_state.set("mood", "calm")
    await world.system_state.set("mood", UNICODE)
    assert await world.system_state.get("mood") == UNICODE
    assert await world.system_state.get("unknown") is None
    for key, value in (("mood", 5), ("", "x"), ("mood", "a\0"), ("database_id", "x")):
        with pytest.raises(InvalidEntity):
            await world.system_state.set(key, value)


async def test_what_is_deleted_does_not_come_back(world):
    """In every repository; deleting it again, or what never was, changes nothing."""
    turned, memory = turn(1), Memory("ada", "likes tea")
    zoe, phone = Relationship("ada", "Zoe", "friend"), Device("phone", "key 1")
    await world.conversations.save(turned)
    await world.memories.save(memory)
    await world.relationships.save(zoe)
    await world.devices.save(phone)
    await world.system_state.set("mood", "calm")
    await world.preferences.set("ada", "theme", "dark")
    for _ in range(2):
        await world.conversations.delete(turned.id)
        await world.relationships.delete(zoe.id)
        await world.devices.delete(phone.id)
        await world.system_state.delete("mood")
        await world.preferences.delete("ada", "theme")
        assert await world.conversations.get_by_user("ada") == []
        assert await world.relationships.get_by_user("ada") == []
        assert await world.devices.get_by_id(phone.id) is None
        assert await world.system_state.get("mood") is None
        assert "theme" not in await world.preferences.all("ada")
    assert await world.memories.get_by_id(memory.id) == memory
    with pytest.raises(InvalidEntity):
        await world.system_state.delete("database_id")


async def test_a_deleted_person_takes_all_rows_of_theirs_along(world):
    """And nothing of others."""
    memories = [Memory(user, "likes tea") for user in ("ada", "bo")]
    for user, memory in zip(("ada", "bo"), memories, strict=True):
        await world.conversations.save(turn(1, user_id=user))
        await world.memories.save(memory)
        await world.relationships.save(Relationship(user, "Zoe", "friend"))
    await world.users.delete("ada")
    await world.users.delete("nobody")
    assert await world.users.get_by_id("ada") is None
    assert await world.conversations.get_by_user("ada") == []
    assert await world.relationships.get_by_user("ada") == []
    assert await world.preferences.all("ada") == {}
    assert [await world.memories.get_by_id(one.id) for one in memories] == [None, memories[1]]
    assert len(await world.conversations.get_by_user("bo")) == 1
    assert len(await world.relationships.get_by_user("bo")) == 1
