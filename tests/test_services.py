"""The companion's services, on libSQL and in memory; and the source document's own code."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Dict, List  # noqa: UP035 - the document's

import pytest

from aico_lab.domain import (
    Conversation,
    ConversationRepository,
    ConversationService,
    Memory,
    MemoryRepository,
    MemoryService,
    MemoryType,
    PreferenceService,
    PreferencesRepository,
    User,
    UserOnboardingService,
    UserPreferences,
    UserRepository,
)
from aico_lab.errors import InvalidEntity, TextTooLong, UnknownUser, WrongUse
from tests.worlds import InMemoryWorld, LibSQLWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.worlds import World


@pytest.fixture(params=["libsql", "in memory"])
async def world(request, tmp_path) -> AsyncIterator[World]:
    made = LibSQLWorld(tmp_path) if request.param == "libsql" else InMemoryWorld()
    await made.users.save(User("Ada", id="ada"))
    await made.users.save(User("Bo", id="bo"))
    yield made
    await made.close()


class Bus:
    """Records published events."""

    def __init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any]]] = []

    async def publish(self, topic: str, payload: dict[str, Any]) -> None:
        self.published.append((topic, payload))


async def test_a_message_is_answered_and_both_are_kept(world):
    """The answer is stored with its duration, and uses only this person's memories."""
    tea = await world.memories.create("Ada likes tea", "ada")
    await world.memories.create("Bo likes tea", "bo")
    await world.settle()
    heard: list[tuple[str, list[Memory]]] = []

    async def answer(message: str, memories: list[Memory]) -> str:
        heard.append((message, memories))
        await asyncio.sleep(0.05)
        return "Tea, then."

    service = ConversationService(world.conversations, world.memories, responder=answer)
    assert await service.process_user_message("ada", "What shall I drink?") == "Tea, then."
    assert heard == [("What shall I drink?", [tea])]
    answered, asked = await world.conversations.get_by_user("ada")
    assert (asked.message, asked.is_ai_response, asked.response_time) == (
        "What shall I drink?", False, None,
    )  # fmt: skip
    assert (answered.message, answered.is_ai_response) == ("Tea, then.", True)
    assert 0.05 <= answered.response_time < 10
    assert answered.channel_id == asked.channel_id
    assert asked.timestamp <= answered.timestamp


async def test_without_a_language_model_the_companion_says_so(world):
    """The default answer quotes the memories."""
    service = ConversationService(world.conversations, world.memories)
    assert "no language model" in await service.process_user_message("ada", "hello")
    await world.memories.create("Ada likes tea", "ada")
    await world.settle()
    answer = await service.process_user_message("ada", "tea?")
    assert "no language model" in answer
    assert "Ada likes tea" in answer


async def test_a_stranger_is_not_answered(world):
    """Nothing is stored for an unknown user."""
    service = ConversationService(world.conversations, world.memories)
    with pytest.raises(UnknownUser):
        await service.process_user_message("nobody", "hello")
    assert await world.count("messages") == 0


async def test_a_message_that_cannot_be_kept_is_refused(world):
    """It is refused before anything is stored or answered."""
    service = ConversationService(world.conversations, world.memories)
    for message, error in (("x" * 1_000_001, TextTooLong), ("a\0", InvalidEntity)):
        with pytest.raises(error):
            await service.process_user_message("ada", message)
    assert await world.count("messages") == 0


async def test_when_the_answer_fails_the_message_is_kept(world):
    """Inside a unit of work the message is rolled back, too."""

    async def fail(message: str, memories: list[Memory]) -> str:
        raise RuntimeError(message, memories)

    service = ConversationService(world.conversations, world.memories, responder=fail)
    with pytest.raises(RuntimeError):
        await service.process_user_message("ada", "hello")
    assert await world.count("messages") == 1
    with pytest.raises(RuntimeError):
        async with world.unit_of_work() as uow:
            service = ConversationService(uow.conversations, uow.memories, responder=fail)
            await service.process_user_message("ada", "hello again")
    assert await world.count("messages") == 1


@pytest.mark.slow
async def test_a_very_long_memory_does_not_break_the_default_answer(world):
    """The default answer is cut to the maximum length."""
    for _ in range(2):
        await world.memories.create("tea " * 200_000, "ada")
    await world.settle()
    answer = await ConversationService(
        world.conversations, world.memories
    ).process_user_message("ada", "tea")  # fmt: skip
    assert len(answer) == 1_000_000


async def test_onboarding_creates_a_person_a_memory_and_a_welcome(world):
    """Preferences that were not given get their defaults."""
    service = UserOnboardingService(world.users, world.memories, world.conversations)
    user = await service.onboard_new_user({"name": "Zoë", "language": "de", "style": "terse"})
    assert await world.users.get_by_id(user.id) == user
    assert user.preferences == UserPreferences("de", "terse", "standard")
    await world.settle()
    (memory,) = await world.memories.get_by_context("joined", user_id=user.id)
    assert (memory.content, memory.memory_type, memory.importance) == (
        "User Zoë joined AICO", MemoryType.SYSTEM, 0.8,
    )  # fmt: skip
    (welcome,) = await world.conversations.get_by_user(user.id)
    assert welcome.is_ai_response
    assert "Zoë" in welcome.message


@pytest.mark.parametrize(
    "data", [{}, {"name": None}, {"name": 7}, {"name": "Zoë", "language": 7}, {"name": "a\0"}]
)
async def test_somebody_who_cannot_be_onboarded_leaves_nothing(world, data):
    """A refused welcome or memory leaves no person behind."""
    service = UserOnboardingService(world.users, world.memories, world.conversations)
    with pytest.raises(InvalidEntity):
        await service.onboard_new_user(data)
    assert (await world.count("users"), await world.count("messages")) == (2, 0)


async def test_a_requested_memory_is_stored_and_reported(world):
    """It is published through a bus, or through a unit of work on commit."""
    bus = Bus()
    payload = {"user_id": "ada", "content": "likes tea", "importance": 0.9}
    memory = await MemoryService(world.memories, bus).store(payload)
    assert await world.memories.get_by_id(memory.id) == memory
    assert bus.published == [
        ("memory.store.complete", {"memory_id": memory.id, "status": "success"})
    ]
    async with world.unit_of_work() as uow:
        await MemoryService(uow.memories, uow).store(payload)
    assert (await world.count("memories"), await world.outbox()) == (1, [])


async def test_a_set_preference_is_reported(world):
    """In a unit of work the value and the event are kept together, or neither."""
    async with world.unit_of_work() as uow:
        await PreferenceService(uow.preferences, uow).set("ada", "theme", "dark")
        await uow.commit()
    assert await world.preferences.get("ada", "theme") == "dark"
    assert await world.outbox() == [
        ("user.preferences.changed",
         {"user_id": "ada", "preference_key": "theme", "new_value": "dark"})
    ]  # fmt: skip
    bus = Bus()
    with pytest.raises(UnknownUser):
        await PreferenceService(world.preferences, bus).set("nobody", "theme", "dark")
    assert bus.published == []


# The source document's examples, as printed in data_layer.md
# ruff: noqa: D415, DTZ005, UP006, D202


class DocumentConversationService:
    def __init__(self, conversation_repo: ConversationRepository, memory_repo: MemoryRepository):
        self.conversation_repo = conversation_repo
        self.memory_repo = memory_repo

    async def process_user_message(self, user_id: str, message: str) -> str:
        """Business logic: process message and generate response"""
        # Store the conversation
        conversation = Conversation(user_id=user_id, message=message, timestamp=datetime.now())
        await self.conversation_repo.save(conversation)

        # Retrieve relevant memories for context
        memories = await self.memory_repo.get_by_context(message, limit=5)

        # Generate AI response (business logic)
        response = self._generate_response(message, memories)

        # Store the response
        response_conv = Conversation(
            user_id=user_id, message=response, is_ai_response=True, timestamp=datetime.now()
        )
        await self.conversation_repo.save(response_conv)

        return response

    def _generate_response(self, message: str, memories: List[Memory]) -> str:  # not printed
        return f"{message}: {len(memories)}"


class DocumentUserOnboardingService:
    def __init__(
        self,
        user_repo: UserRepository,
        memory_repo: MemoryRepository,
        conversation_repo: ConversationRepository,
    ):
        self.user_repo = user_repo
        self.memory_repo = memory_repo
        self.conversation_repo = conversation_repo

    async def onboard_new_user(self, user_data: Dict) -> User:
        """Business logic: complete user onboarding process"""

        # 1. Create user entity (domain logic)
        user = User(
            name=user_data["name"],
            preferences=self._initialize_preferences(user_data),
            created_at=datetime.now(),
        )

        # 2. Save user through repository (clean interface)
        await self.user_repo.save(user)

        # 3. Create initial memory context (business rule)
        initial_memory = Memory(
            user_id=user.id,
            content=f"User {user.name} joined AICO",
            memory_type=MemoryType.SYSTEM,
            importance=0.8,
        )
        await self.memory_repo.save(initial_memory)

        # 4. Log welcome conversation (business logic)
        welcome_message = self._generate_welcome_message(user)
        conversation = Conversation(
            user_id=user.id, message=welcome_message, is_ai_response=True, timestamp=datetime.now()
        )
        await self.conversation_repo.save(conversation)

        return user

    def _initialize_preferences(self, user_data: Dict) -> UserPreferences:
        """Pure business logic - no database concerns"""
        return UserPreferences(
            language=user_data.get("language", "en"),
            personality_style=user_data.get("style", "friendly"),
            privacy_level=user_data.get("privacy", "standard"),
        )

    def _generate_welcome_message(self, user: User) -> str:  # not printed
        return f"Welcome, {user.name}"


class LibSQLDocumentRepository:
    """The document's LibSQLConversationRepository."""

    def __init__(self, data_access):
        self.dal = data_access

    async def save(self, conversation: Conversation) -> None:
        """Domain-specific save operation"""
        query = """
            INSERT INTO conversations (user_id, message, timestamp, is_ai_response)
            VALUES (?, ?, ?, ?)
        """
        params = [
            conversation.user_id,
            conversation.message,
            conversation.timestamp,
            conversation.is_ai_response,
        ]
        await self.dal.execute(query, params)

    async def get_by_user(self, user_id: str, limit: int = 50) -> List[Conversation]:
        """Retrieve user conversations with domain logic"""
        query = """
            SELECT * FROM conversations
            WHERE user_id = ?
            ORDER BY timestamp DESC
            LIMIT ?
        """
        rows = await self.dal.fetch_all(query, [user_id, limit])
        return [Conversation.from_dict(row) for row in rows]


async def test_the_document_s_services_run_as_printed(world):
    """The conversation and onboarding services."""
    onboarding = DocumentUserOnboardingService(world.users, world.memories, world.conversations)
    user = await onboarding.onboard_new_user({"name": "Zoë"})
    await world.settle()
    service = DocumentConversationService(world.conversations, world.memories)
    assert await service.process_user_message(user.id, "who joined") == "who joined: 1"
    assert await world.users.get_by_id(user.id) == user
    found = await world.conversations.get_by_user(user.id)
    assert [turn.message for turn in found] == ["who joined: 1", "who joined", "Welcome, Zoë"]
    now = datetime.now().astimezone()
    between = await world.conversations.get_between(now - timedelta(minutes=1), now)
    assert len(between) == 3


async def test_the_document_s_repository_runs_as_printed(tmp_path):
    """It writes to and reads from the view through our layer, with our entities."""
    world = LibSQLWorld(tmp_path)
    await world.users.save(User("Ada", id="ada"))
    repository = LibSQLDocumentRepository(world.dal)
    turn = Conversation("ada", "hello", datetime.now())
    await world.conversations.save(turn)
    assert await repository.get_by_user("ada") == [turn]
    answer = Conversation("ada", "hi", datetime.now(), is_ai_response=True)
    await repository.save(answer)
    saved, _ = await world.conversations.get_by_user("ada")
    assert (saved.message, saved.is_ai_response) == ("hi", True)
    assert saved.timestamp == answer.timestamp
    assert saved.channel_id == turn.channel_id
    (channel,) = await world.dal.fetch_all("SELECT message_count FROM channels")
    assert channel["message_count"] == 2
    await world.dal.execute(
        "INSERT INTO conversations (timestamp, content, sentiment) VALUES (?, ?, ?)",
        [datetime.now(), "nobody in particular", 0.7],
    )
    (row,) = await world.dal.fetch_all(
        "SELECT sentiment, sentiment_score, is_ai_response FROM conversations WHERE user_id IS NULL"
    )
    assert row == {"sentiment": "positive", "sentiment_score": 0.7, "is_ai_response": 0}
    # A message without a user is not a turn, and disturbs no query.
    day = timedelta(days=1)
    between = await world.conversations.get_between(turn.timestamp - day, turn.timestamp + day)
    assert between == [turn, saved]
    assert await world.conversations.search_by_content("particular") == []
    await world.close()


class OfTheDocument(ConversationRepository):
    """The three methods that the document's interface has."""

    def __init__(self):
        self.turns: List[Conversation] = []

    async def save(self, conversation: Conversation) -> None:
        self.turns.append(conversation)

    async def get_by_user(self, user_id: str, limit: int = 50) -> List[Conversation]:
        return [turn for turn in reversed(self.turns) if turn.user_id == user_id][:limit]

    async def search_by_content(self, query: str) -> List[Conversation]:
        return [turn for turn in self.turns if query in turn.message]


class PlainMemories(MemoryRepository):
    """The document's memory repositories: neither async nor with a user id."""

    def __init__(self):
        self.memories: List[Memory] = []

    def get_memories_by_context(self, context, limit=10):
        return [memory for memory in self.memories if context in memory.content][:limit]

    def save_memory(self, memory):
        self.memories.append(memory)


class ServedMemories(MemoryRepository):
    """The methods that the document's services call."""

    def __init__(self):
        self.memories: List[Memory] = []

    async def get_by_context(self, text, limit=5):
        return [memory for memory in self.memories if text in memory.content][:limit]

    async def save(self, memory):
        self.memories.append(memory)


class ThemeOnly(PreferencesRepository):
    """The document shows a repository that sets preferences only."""

    def __init__(self):
        self.themes: dict[tuple[str, str], Any] = {}

    async def set(self, user_id, preference_key, value):
        self.themes[user_id, preference_key] = value


@pytest.mark.parametrize("kind", [PlainMemories, ServedMemories])
async def test_repositories_written_against_the_document_can_be_used(kind):
    """With the services, too, which never return another person's memories."""
    turns, memories = OfTheDocument(), kind()
    mine = await memories.create("likes tea", "ada")
    await memories.create("hates tea", "bo")
    heard: list[Any] = []

    async def respond(_: str, remembered: Any) -> str:
        heard.append(remembered)
        return "tea it is"

    service = ConversationService(turns, memories, responder=respond)
    before = datetime.now()
    assert await service.process_user_message("ada", "tea") == "tea it is"
    assert heard == [[mine]]
    for name in ("get_by_context", "get_memories_by_context"):
        found = getattr(memories, name)("tea")
        assert len(await found if asyncio.iscoroutine(found) else found) == 2
    await MemoryService(memories, Bus()).store({"user_id": "ada", "content": "likes rain"})
    for name in ("save", "save_memory"):
        saved = getattr(memories, name)(mine)
        if asyncio.iscoroutine(saved):
            await saved
    assert len(memories.memories) == 5
    after = datetime.now() + timedelta(seconds=1)
    between = await turns.get_between(before, after, user_id="ada")
    assert [turn.message for turn in between] == ["tea", "tea it is"]
    assert await turns.get_between(before, after, user_id="ada", channel_id="other") == []
    assert await turns.get_between(after, after, user_id="ada") == []


class Nothing(MemoryRepository):
    """A repository without the methods that the document shows."""


async def test_what_a_repository_lacks_is_said_when_it_is_called():
    """The error names the missing method in one sentence."""
    nothing, themes = Nothing(), ThemeOnly()
    await themes.set("ada", "theme", "dark")
    now = datetime.now()
    for call, name in (
        (nothing.save(Memory("ada", "x")), "save"),
        (nothing.save_memory(Memory("ada", "x")), "save"),
        (nothing.get_by_context("x"), "get_by_context"),
        (nothing.get_memories_by_context("x"), "get_by_context"),
        (nothing.get_by_id("x"), "get_by_id"),
        (nothing.delete("x"), "delete"),
        (themes.get("ada", "theme"), "all"),
        (OfTheDocument().get_between(now, now), "get_between"),
    ):
        with pytest.raises(WrongUse, match=rf"^\w+ has no {name}\(\): add it to that class[.]$"):
            await call


@dataclass
class Message:
    payload: dict[str, Any]


async def test_the_document_s_handlers_run_as_printed(world):
    """The handlers store a requested memory and a preference."""
    message_bus = Bus()
    memory_repository = world.memories
    preferences_repository = world.preferences

    async def handle_memory_storage(message):
        memory = Memory.from_dict(message.payload)
        await memory_repository.save(memory)
        await message_bus.publish(
            "memory.store.complete", {"memory_id": memory.id, "status": "success"}
        )

    async def save_user_preference(user_id, preference_key, value):
        await preferences_repository.set(user_id, preference_key, value)
        await message_bus.publish(
            "user.preferences.changed",
            {"user_id": user_id, "preference_key": preference_key, "new_value": value},
        )

    await handle_memory_storage(Message({"user_id": "ada", "content": "likes tea"}))
    await save_user_preference("ada", "theme", "dark")
    assert [topic for topic, _ in message_bus.published] == [
        "memory.store.complete", "user.preferences.changed",
    ]  # fmt: skip
    memory_id = message_bus.published[0][1]["memory_id"]
    assert (await world.memories.get_by_id(memory_id)).content == "likes tea"
    assert await world.preferences.get("ada", "theme") == "dark"
