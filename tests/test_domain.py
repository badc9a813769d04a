"""Entities validate themselves, and convert to plain data and back."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime, timedelta, timezone

import pandas as pd
import pytest
from hypothesis import given
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
from aico_lab.errors import AicoLabError, InvalidEntity, TextTooLong

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
ids = texts.filter(bool)
moments = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 - Hypothesis adds the zone
    max_value=datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
objects = st.dictionaries(texts, json_values, max_size=3)


def test_a_moment_without_a_zone_is_local_time():
    """A naive datetime is local time, as `datetime.now()` makes it; entities keep UTC."""
    naive = datetime(2024, 3, 1, 12)  # noqa: DTZ001 - the point of the test
    turn = Conversation(user_id="u", message="hello", timestamp=naive)
    assert turn.timestamp.tzinfo is UTC
    assert turn.timestamp.timestamp() == naive.timestamp()
    assert abs(Conversation("u", "x", datetime.now()).timestamp - datetime.now(UTC)) < (  # noqa: DTZ005
        timedelta(minutes=1)
    )


def test_a_timestamp_of_pandas_is_a_moment():
    """With a time zone and without; pandas' NaT is refused."""
    for moment in (
        pd.Timestamp("2024-03-01 12:00", tz="Europe/Berlin"),
        pd.Timestamp("2024-03-01"),
    ):
        kept = Conversation("u", "x", moment).timestamp
        assert kept == datetime.fromisoformat(str(moment)).astimezone(UTC)
        assert type(kept) is datetime
    with pytest.raises(InvalidEntity):
        Conversation("u", "x", pd.NaT)


def test_a_moment_of_another_zone_becomes_utc():
    """The comparison is between instants, not between local clock times."""
    there = NOON.astimezone(timezone(timedelta(hours=-7)))
    assert Conversation("u", "x", there).timestamp.isoformat() == NOON.isoformat()


WRONG = {
    "user_id of another type": lambda: Conversation(7, "x", NOON),
    "no user_id": lambda: Conversation("", "x", NOON),
    "no message": lambda: Conversation("u", None, NOON),
    "bytes": lambda: Conversation("u", b"x", NOON),
    "NUL": lambda: Conversation("u", "a\0b", NOON),
    "half a surrogate pair": lambda: Conversation("u", "\ud83d", NOON),
    "text for a moment": lambda: Conversation("u", "x", "2024-03-01T12:00:00Z"),
    "before year 1 in UTC": lambda: Conversation(
        "u", "x", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    ),
    "1 for True": lambda: Conversation("u", "x", NOON, is_ai_response=1),
    "sentiment above 1": lambda: Conversation("u", "x", NOON, sentiment_score=1.01),
    "sentiment NaN": lambda: Conversation("u", "x", NOON, sentiment_score=math.nan),
    "sentiment True": lambda: Conversation("u", "x", NOON, sentiment_score=True),
    "negative response time": lambda: Conversation("u", "x", NOON, response_time=-0.1),
    "endless response time": lambda: Conversation("u", "x", NOON, response_time=math.inf),
    "huge response time": lambda: Conversation("u", "x", NOON, response_time=10**400),
    "no id": lambda: Conversation("u", "x", NOON, id=""),
    "NUL in an id": lambda: Conversation("u", "x", NOON, id="a\0"),
    "list as metadata": lambda: Conversation("u", "x", NOON, metadata=[]),
    "NaN in metadata": lambda: Conversation("u", "x", NOON, metadata={"a": math.nan}),
    "number as key": lambda: Conversation("u", "x", NOON, metadata={1: "a"}),
    "tuple in metadata": lambda: Conversation("u", "x", NOON, metadata={"a": (1,)}),
    "datetime in metadata": lambda: Conversation("u", "x", NOON, metadata={"a": NOON}),
    "NUL in metadata": lambda: Conversation("u", "x", NOON, metadata={"a": "\0"}),
    "surrogate in metadata": lambda: Conversation("u", "x", NOON, metadata={"a": "\ud83d"}),
    "user's name": lambda: User(7),
    "preferences as dict": lambda: User("Ada", {"language": "en"}),
    "preference": lambda: UserPreferences(language=5),
    "memory type": lambda: Memory("u", "x", memory_type="gossip"),
    "importance": lambda: Memory("u", "x", importance=1.5),
    "importance as text": lambda: Memory("u", "x", importance="0.5"),
    "strength": lambda: Relationship("u", "Bo", "friend", strength=2),
    "no public key": lambda: Device("phone", ""),
    "trusted": lambda: Device("phone", "key", trusted="yes"),
}  # fmt: skip


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG.keys())
def test_an_entity_that_cannot_be_stored_cannot_be_made(make):
    """A value of the wrong type or out of range is refused."""
    with pytest.raises(InvalidEntity):
        make()


def test_a_refusal_does_not_quote_what_somebody_wrote():
    """The error names the field only."""
    secret = "I never told anybody"
    for make in (
        lambda: Conversation("u", secret + "\0", NOON),
        lambda: Conversation("u", secret * 100_000, NOON),
        lambda: Memory("u", "x", memory_type=secret),
        lambda: Conversation.from_dict({"user_id": "u", "message": "x", "timestamp": secret}),
        lambda: Memory.from_dict({"user_id": "u", "content": "x", "metadata": "{" + secret}),
    ):
        with pytest.raises(AicoLabError) as refused:
            make()
        assert secret not in str(refused.value)


def test_a_text_may_have_a_million_characters_and_not_one_more():
    """The limit is the same for messages and memories."""
    text = "é" * 1_000_000
    assert Conversation("u", text, NOON).message == text
    assert Memory("u", text).content == text
    with pytest.raises(TextTooLong, match="1,000,000"):
        Conversation("u", text + "x", NOON)
    with pytest.raises(TextTooLong):
        Memory("u", text + "x")


def test_a_turn_belongs_to_the_direct_channel_unless_told_otherwise():
    """A conversation id is also the channel id, and a channel id the conversation id."""
    turn = Conversation("u", "x", NOON)
    assert (turn.channel_id, turn.conversation_id) == ("direct:u", "direct:u")
    turn = Conversation("u", "x", NOON, conversation_id="c")
    assert (turn.channel_id, turn.conversation_id) == ("c", "c")
    turn = Conversation("u", "x", NOON, channel_id="k", conversation_id="c")
    assert (turn.channel_id, turn.conversation_id) == ("k", "c")


def test_entities_do_not_change():
    """Changing the dictionary that was passed as metadata does not change the entity."""
    given_metadata = {"a": [1]}
    turn = Conversation("u", "x", NOON, metadata=given_metadata)
    given_metadata["a"].append(2)
    assert turn.metadata == {"a": [1]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        turn.message = "y"
    assert len({turn, turn}) == 1


def test_a_row_of_the_view_is_a_turn():
    """`from_dict` accepts the names and forms of the view's columns."""
    row = {
        "user_id": "u", "message": "hi", "content": "hi",
        "timestamp": "2024-03-01T12:00:00.000000Z",
        "is_ai_response": 1, "sentiment": "positive", "sentiment_score": 0.5, "response_time": 2.0,
        "message_id": "m", "conversation_id": "c", "channel_id": "k", "role": "assistant",
    }  # fmt: skip
    assert Conversation.from_dict(row) == Conversation(
        "u", "hi", NOON, is_ai_response=True, sentiment_score=0.5, response_time=2.0, id="m",
        conversation_id="c", channel_id="k",
    )  # fmt: skip


@pytest.mark.parametrize(
    "payload",
    [
        {"content": "x"},
        {"user_id": "u", "content": "x", "importence": 1},
        {"user_id": "u", "content": "x", "created_at": "2024-03-01T12:00:00"},
        {"user_id": "u", "content": "x", "created_at": "yesterday"},
        {"user_id": "u", "content": "x", "metadata": "{"},
        {"user_id": "u", "content": "x", "metadata": "[]"},
    ],
    ids=["missing", "unknown", "no zone", "no time", "no JSON", "no object"],
)
def test_a_payload_that_is_no_memory_is_refused(payload):
    """Each error names its reason."""
    with pytest.raises(InvalidEntity):
        Memory.from_dict(payload)


@given(
    st.builds(
        Conversation, ids, texts, moments, st.booleans(), st.none() | st.floats(-1, 1),
        st.none() | st.floats(0, 1e9), ids, ids, ids, objects,
    )
)  # fmt: skip
def test_a_turn_survives_being_plain_data(turn):
    """For any content, a turn survives a round trip through JSON."""
    assert Conversation.from_dict(json.loads(json.dumps(turn.to_dict()))) == turn


@given(
    st.builds(
        Memory, ids, texts, st.sampled_from(MemoryType), st.floats(0, 1), ids, moments, objects
    )
)
def test_a_memory_survives_being_plain_data(memory):
    """For any content, a memory survives a round trip through JSON."""
    assert Memory.from_dict(json.loads(json.dumps(memory.to_dict()))) == memory


def test_the_other_entities_survive_being_plain_data():
    """The round trip also keeps fields that are None."""
    for entity in (
        User("Ada", UserPreferences(language="de"), NOON),
        User(None),
        Relationship("u", "Bo", "friend", 0.5, "met at school"),
        Relationship("u", "Bo", "friend"),
        Device("phone", "key", trusted=True, last_seen_at=NOON),
        Device("phone", "key"),
    ):
        assert type(entity).from_dict(json.loads(json.dumps(entity.to_dict()))) == entity
