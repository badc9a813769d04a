"""Proposals: applied once, on the version that they were made on, and rolled back once."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from aico_lab.domain import PersonalityChange, Profile, User
from aico_lab.errors import ChangeRefused, InvalidEntity, UnknownName
from aico_lab.personality.changes import CHANGED, apply_change, keep_change, roll_back_change
from tests.worlds import InMemoryWorld, LibSQLWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.worlds import World

LONG_AGO = datetime(2024, 3, 1, tzinfo=UTC)
TRAITS = {"warmth": 0.5, "verbosity": 0.5, "agreeableness": 0.5, "extraversion": 0.5}
WARMER = {"steps": {"warmth": 0.1}, "max_step": 0.1}


@pytest.fixture(params=["libsql", "in memory"])
async def world(request, tmp_path) -> AsyncIterator[World]:
    made = LibSQLWorld(tmp_path) if request.param == "libsql" else InMemoryWorld()
    await made.users.save(User("Ada", id="ada"))
    await made.users.save(User("Bo", id="bo"))
    await made.profiles.save(Profile(TRAITS, active_from=LONG_AGO, id="v1"))
    yield made
    await made.close()


async def propose(world, name="c", proposal=WARMER, old="v1", **options):
    await world.personality_changes.save(PersonalityChange(proposal, old, id=name, **options))


async def run(world, work, name="c"):
    async with world.unit_of_work() as uow:
        done = await work(uow, name)
        await uow.commit()
    return done


async def test_applying_writes_a_version_a_record_and_an_event(world):
    """All in one unit of work; rolling back restores the traits in a further version."""
    await propose(world, reason="they like it warm")
    done = await run(world, apply_change)
    new = await world.profiles.get_active(None)
    assert (new.id, new.version, new.based_on) == (done.new_profile_id, 2, "v1")
    assert (new.traits, new.reason) == ({**TRAITS, "warmth": 0.6}, "they like it warm")
    assert (await world.profiles.get_by_id("v1")).active_until == new.active_from
    assert (await world.personality_changes.get_by_id("c")).status == "applied"
    ((topic, event),) = await world.outbox()
    assert (topic, event["old_profile_id"], event["new_profile_id"]) == (CHANGED, "v1", new.id)
    await run(world, roll_back_change)
    restored = await world.profiles.get_active(None)
    assert (restored.version, restored.traits, restored.based_on) == (3, TRAITS, new.id)
    assert [event["status"] for _, event in await world.outbox()] == ["applied", "rolled back"]
    for work in (apply_change, roll_back_change, keep_change):
        with pytest.raises(ChangeRefused, match="was rolled back on"):
            await run(world, work)
    assert (await world.profiles.get_active(None)).id == restored.id


@pytest.mark.parametrize(
    ("proposal", "options", "error"),
    [
        ({"steps": {"warmth": math.inf}}, {}, InvalidEntity),
        ({"steps": {"warmth": 0.25}, "max_step": 0.3}, {}, InvalidEntity),
        ({"steps": {"warmth": 0.2}, "max_step": 0.1}, {}, InvalidEntity),
        ({"steps": {"warmth": "much"}}, {}, InvalidEntity),
        ({"steps": {}}, {}, InvalidEntity),
        (WARMER, {"old": "v0"}, ChangeRefused),
        (WARMER, {"status": "refused"}, ChangeRefused),
    ],
)
async def test_nothing_changes_on_an_error(world, proposal, options, error):
    """Neither profiles nor the record nor the outbox."""
    if error is InvalidEntity and proposal["steps"].get("warmth") == math.inf:
        with pytest.raises(InvalidEntity):  # no record can hold it
            await propose(world, proposal=proposal)
        return
    await propose(world, proposal=proposal, **options)
    before = await world.personality_changes.all()
    with pytest.raises(error):
        await run(world, apply_change)
    assert await world.personality_changes.all() == before
    assert [one.id for one in await world.profiles.get_by_user(None)] == ["v1"]
    assert await world.outbox() == []
    with pytest.raises(UnknownName):
        await run(world, apply_change, "unknown")


async def test_a_second_change_is_refused_while_one_is_watched(world):
    """Of the same people: another person's is applied."""
    await world.profiles.save(Profile(TRAITS, "bo", active_from=LONG_AGO, id="bo1"))
    await propose(world, "ada's", user_id="ada")
    await propose(world, "everybody's")
    await propose(world, "bo's", user_id="bo", old="bo1")
    await run(world, apply_change, "ada's")
    with pytest.raises(ChangeRefused, match="ada's is watched"):
        await run(world, apply_change, "everybody's")
    await run(world, apply_change, "bo's")
    await run(world, keep_change, "ada's")
    await run(world, keep_change, "bo's")
    await run(world, apply_change, "everybody's")
    assert (await world.profiles.get_active("ada")).version == 1


async def test_rolling_back_ones_own_first_version_lets_the_shared_one_apply(world):
    await propose(world, user_id="ada", context="evening")
    await run(world, apply_change)
    own = await world.profiles.get_active("ada", "evening/opening")
    assert (own.user_id, own.context, own.traits["warmth"]) == ("ada", "evening", 0.6)
    assert (await world.profiles.get_active("ada", "morning")).id == "v1"
    await run(world, roll_back_change)
    assert (await world.profiles.get_active("ada", "evening/opening")).id == "v1"


async def test_a_profile_that_was_changed_since_is_not_rolled_back(world):
    await propose(world)
    done = await run(world, apply_change)
    await world.profiles.save(Profile(TRAITS, version=9, id="by hand"))
    with pytest.raises(ChangeRefused, match="changed again"):
        await run(world, roll_back_change)
    assert (await world.profiles.get_active(None)).id == "by hand"
    assert done.status == "applied"


async def test_of_two_tuners_at_once_one_wins(world):
    """Whether both apply one proposal, or two on the same version."""
    await propose(world, "one")
    await propose(world, "two")
    tried = [asyncio.create_task(run(world, apply_change, name)) for name in ("one", "one", "two")]
    results = await asyncio.gather(*tried, return_exceptions=True)
    assert sum(isinstance(one, PersonalityChange) for one in results) == 1
    assert sum(isinstance(one, ChangeRefused) for one in results) == 2
    assert len(await world.profiles.get_by_user(None)) == 2


async def test_the_beginning_of_an_id_is_enough(world):
    await propose(world, "c1")
    await propose(world, "c2", user_id="bo")
    with pytest.raises(UnknownName, match="2 changes begin"):
        await run(world, apply_change, "c")
    assert (await run(world, apply_change, "c2")).user_id == "bo"
