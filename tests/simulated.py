"""A simulated population, from which samples are drawn to measure the coverage of intervals.

Each person has habits: the number and length of messages, questions, mood, pauses. The number of
conversations is log-normal, so that few people write many of the messages, and messages of one
person are alike. The words belong to no language.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from tests.talks import OTHERS, talk

PEOPLE = 2_500
START_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
DAY_MS = 86_400_000
_COMMON = ("the", "i", "and", "you", "with", "some", "really", "it", "was", "a")
_RARE = tuple(f"{first}{second}o" for first in "bdfgklmnprstv" for second in "aeiou")


def population(*, people: int = PEOPLE, spread: float = 1.0, seed: int = 1) -> pl.DataFrame:
    """Return the messages of people and their companion.

    Args:
        people: How many there are.
        spread: The standard deviation of the logarithm of a person's number of conversations.
        seed: Other seeds make other people.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for person in range(people):
        habits = rng.gamma(4, 2), rng.beta(2, 6), rng.normal(0.15, 0.2), rng.normal(3, 0.7)
        pauses, asks_twice = rng.beta(1, 12), rng.beta(1, 4)
        conversations = min(int(np.ceil(rng.lognormal(0.5, spread))), 80)
        moments = np.sort(rng.integers(0, 120 * DAY_MS, conversations))
        for number, moment in enumerate(moments):
            at = START_MS + int(moment)
            for turn in range(2 * int(rng.integers(1, 5))):
                role = "assistant" if turn % 2 else "user"
                for _ in range(1 + int(rng.random() < asks_twice)):
                    slow = rng.random() < pauses
                    at += 3_600_000 if slow else 1000 * int(rng.lognormal(habits[3], 0.8) + 1)
                    rows.append(
                        {
                            "conversation_id": f"p{person}-{number}",
                            "channel_id": f"p{person}",
                            "user_id": f"p{person}",
                            "role": role,
                            "timestamp": datetime.fromtimestamp(at / 1000, UTC),
                            "response_time": None,
                            **_said(rng, habits),
                        }
                    )
    return talk(*rows)


def _said(rng: np.random.Generator, habits: tuple[float, float, float, float]) -> dict[str, object]:
    length = 1 + int(rng.poisson(habits[0]))
    common = rng.random(length) < 0.2 + habits[1]
    words = [
        _COMMON[int(10 * a)] if often else _RARE[int(len(_RARE) * b**2)]
        for often, a, b in zip(common, rng.random(length), rng.random(length), strict=True)
    ]
    mark = "?" if rng.random() < habits[1] else "."
    mood = float(np.clip(rng.normal(habits[2], 0.4), -1, 1))
    return {"content": " ".join(words) + mark, "sentiment_score": mood}


def attitudes(*, people: int = PEOPLE, seed: int = 2) -> dict[str, pl.DataFrame]:
    """Return ratings, changed preferences and two versions of the companion for the same people.

    Returns:
        Tables of `tests.talks.OTHERS`.
    """
    rng = np.random.default_rng(seed)
    start = datetime.fromtimestamp(START_MS / 1000, UTC)
    half = start + timedelta(days=60)
    profiles = [
        {"profile_id": f"v{version}", "user_id": None, "version": version,
         "traits": f'{{"warmth": {warmth}}}', "active_from": since, "active_until": until}
        for version, warmth, since, until in ((1, 0.2, start, half), (2, 0.9, half, None))
    ]  # fmt: skip
    ratings, changes = [], []
    for person in range(people):
        gladly, often, fickle = rng.beta(4, 2), rng.lognormal(0.3, 1), rng.beta(0.3, 3)
        for _ in range(min(int(np.ceil(often)), 60)):
            moment = start + timedelta(days=float(rng.uniform(0, 120)))
            ratings.append(
                {"user_id": f"p{person}", "name": "thumbs", "timestamp": moment,
                 "value": float(2 * (rng.random() < gladly) - 1)}
            )  # fmt: skip
        changes += [
            {"user_id": f"p{person}", "preference_key": "tone", "value": str(step),
             "changed_at": start + timedelta(days=step)}
            for step in range(int(rng.geometric(1 - fickle)))
        ]  # fmt: skip
    return {
        "personality_profiles": _table("personality_profiles", profiles),
        "feedback_events": _table(
            "feedback_events", [{"event_id": f"e{n}", **one} for n, one in enumerate(ratings)]
        ),
        "preference_changes": _table(
            "preference_changes", [{"change_id": n, **one} for n, one in enumerate(changes)]
        ),
    }


def _table(name: str, rows: list[dict[str, object]]) -> pl.DataFrame:
    columns = OTHERS[name]
    return pl.DataFrame([{**dict.fromkeys(columns), **row} for row in rows], schema=columns)
