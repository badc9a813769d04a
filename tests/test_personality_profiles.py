"""Profiles: values, rules between traits, and which version applies; on libSQL and in memory."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from aico_lab.domain import PersonalityChange, Profile, User
from aico_lab.domain.personality import RULES, TRAITS, violated_rules
from aico_lab.errors import DuplicateId, InvalidEntity, UnknownUser
from tests.worlds import InMemoryWorld, LibSQLWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.worlds import World

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
EVERYTHING = dict.fromkeys(TRAITS, 0.5)


@pytest.fixture(params=["libsql", "in memory"])
async def world(request, tmp_path) -> AsyncIterator[World]:
    made = LibSQLWorld(tmp_path) if request.param == "libsql" else InMemoryWorld()
    await made.users.save(User("Ada", id="ada"))
    yield made
    await made.close()


def profile(name: str = "p", hours: float = 0, **options) -> Profile:
    """Return a version that is active from some hours after noon."""
    given = {"traits": EVERYTHING, "active_from": NOON + timedelta(hours=hours)} | options
    return Profile(id=name, **given)


@pytest.mark.parametrize(
    ("traits", "named"),
    [
        ({"warmth": math.nan}, "warmth"),
        ({"warmth": 1.01}, "warmth"),
        ({"warmth": "high"}, "warmth"),
        ({"warmth": True}, "warmth"),
        ({"wramth": 0.5}, "did you mean warmth"),
        ([0.5], "dictionary"),
    ],
)
def test_traits_are_finite_numbers_from_0_to_1(traits, named):
    """The error names the trait."""
    with pytest.raises(InvalidEntity, match=named):
        Profile(traits)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"assertiveness": 0.9, "extraversion": 0.1}, "assertive extraversion"),
        ({"curiosity": 0.1, "openness": 0.9}, "curious openness"),
        (
            {"warmth": 0.9, "agreeableness": 0.2, "extraversion": 0.2},
            "warmth of somebody agreeable or outgoing",
        ),
        (
            {"honesty_humility": 0.8, "assertiveness": 0.9, "agreeableness": 0.1},
            "humble dominance",
        ),
    ],
)
def test_rules_between_traits_are_checked_and_named(broken, rule):
    """Only where a profile states all of their traits."""
    assert [one.name for one in violated_rules(broken)] == [rule]
    assert not violated_rules(EVERYTHING)
    for name in broken:
        assert not violated_rules({other: at for other, at in broken.items() if other != name})
    assert all(one.source in RULES[0].source or "(" in one.source for one in RULES)


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        ({"warmth": math.nan}, "warmth"),
        ({"warmth": 0.3}, "allows 0.2"),
        ({"humour": 0.2}, "outside 0 to 1"),
        ({"openness": 0.1}, "states no openness"),
        ({"curiosity": -0.2}, None),
        ({"warmth": 0.2}, None),
    ],
)
def test_a_step_is_bounded_by_stability_and_by_the_scale(steps, named):
    """The profile itself stays as it is."""
    held = profile(traits={"warmth": 0.7, "humour": 0.9, "curiosity": 0.5}, stability=0.8)
    if named:
        with pytest.raises(InvalidEntity, match=named):
            held.moved(steps)
    else:
        (name,) = steps
        assert held.moved(steps)[name] == pytest.approx(held.traits[name] + steps[name])
    assert held.traits["warmth"] == 0.7


def test_a_step_that_violates_a_rule_is_refused():
    held = profile(traits={"assertiveness": 0.7, "extraversion": 0.2})
    assert held.moved({"assertiveness": 0.1})["assertiveness"] == 0.8
    with pytest.raises(InvalidEntity, match="assertive extraversion"):
        held.moved({"assertiveness": 0.2})


async def test_ones_own_version_for_the_context_goes_first(world):
    """Then one's own, then everybody's for the context, then everybody's."""
    versions = [
        profile("all"),
        profile("all at night", context="evening"),
        profile("hers", user_id="ada"),
        profile("hers at night", user_id="ada", context="evening"),
    ]
    found = []
    for one in versions:
        await world.profiles.save(one)
        found.append(await world.profiles.get_active("ada", "evening/opening", NOON))
    assert [one and one.id for one in found] == [one.id for one in versions]
    active = world.profiles.get_active
    assert (await active("ada", None, NOON)).id == "hers"
    assert (await active("ada", "morning", NOON)).id == "hers"
    assert (await active("bo", "evening", NOON)).id == "all at night"
    assert (await active(None, None, NOON)).id == "all"
    assert await active("ada", "evening", NOON - timedelta(hours=1)) is None


async def test_versions_follow_each_other(world):
    """An ended version applies until its end, and the one activated last goes first."""
    first = profile("v1", reason="a first one", simulated=True, stability=0.9)
    await world.profiles.save(first)
    await world.profiles.end("v1", NOON + timedelta(hours=2))
    await world.profiles.end("v1", NOON + timedelta(hours=9))
    await world.profiles.save(profile("v2", 2, version=2, based_on="v1"))
    assert await world.profiles.get_by_id("v1") == replace(
        first, active_until=NOON + timedelta(hours=2)
    )
    active = [await world.profiles.get_active(None, at=NOON + timedelta(hours=h)) for h in (1, 2)]
    assert [one and one.id for one in active] == ["v1", "v2"]
    assert [one.id for one in await world.profiles.get_by_user(None)] == ["v1", "v2"]
    with pytest.raises(DuplicateId):
        await world.profiles.save(profile("v2"))
    with pytest.raises(UnknownUser):
        await world.profiles.save(profile("v3", user_id="nobody"))
    assert await world.profiles.get_by_id("v3") is None


async def test_changes_come_back_as_they_were_saved(world):
    """The latest proposal first; saving again updates it."""
    first = PersonalityChange({"steps": {"warmth": 0.1}}, "p", proposed_at=NOON, id="c1")
    later = PersonalityChange({}, "p", "ada", "evening", generation=3, reason="why", id="c2")
    await world.personality_changes.save(first)
    await world.personality_changes.save(later)
    kept = replace(first, status="kept", new_profile_id="q", ended_at=NOON)
    await world.personality_changes.save(kept)
    assert await world.personality_changes.all() == [later, kept]
    assert kept.steps == {"warmth": 0.1}
    with pytest.raises(UnknownUser):
        await world.personality_changes.save(replace(later, id="c3", user_id="nobody"))
    with pytest.raises(InvalidEntity):
        replace(first, status="gone")
