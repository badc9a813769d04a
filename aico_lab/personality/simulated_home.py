"""A home of simulated conversations, to show the tuning of a personality on data of a known truth.

The home is marked as simulated for good, and nothing else can be imported into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.adapters.libsql import NOW
from aico_lab.constants import MS_PER_DAY
from aico_lab.domain import values
from aico_lab.errors import WrongUse
from aico_lab.importing.importer import import_batches
from aico_lab.messages.records import (
    BATCH_MESSAGES,
    Batch,
    ChannelRecord,
    FeedbackRecord,
    MessageRecord,
    UserRecord,
)
from aico_lab.messages.simulated import SIMULATED, is_simulated
from aico_lab.messages.timestamps import to_timestamp
from aico_lab.personality.policies import policy_of
from aico_lab.personality.simulate import (
    ARMS,
    PROFILE,
    START_MS,
    TRAITS,
    WEEK_MS,
    Simulation,
    World,
    moved,
)  # fmt: skip
from aico_lab.personality.stored_policies import add_policy
from aico_lab.zones import get_zone, to_local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aico_lab.adapters.libsql import Connection
    from aico_lab.personality.log import Log

WEEKS: Final = 14
"""The weeks before the change of the personality, and after it: enough for `version_change`."""

PEOPLE: Final = 80
WEEKLY: Final = 4.0
"""The mean number of decisions about a person in a week."""

POLICY: Final = "style"

_TRAITS: Final = {
    "openness": 0.6, "conscientiousness": 0.6, "extraversion": 0.5, "agreeableness": 0.6,
    "neuroticism": 0.3, "honesty_humility": 0.7, "assertiveness": 0.4, "formality": 0.4,
    "humour": 0.5, "curiosity": 0.6,
}  # fmt: skip

_ASKED: Final = (
    "How would you spend a rainy evening?", "I slept badly and have a long day ahead.",
    "Can you help me plan the week?", "My sister is coming to visit.",
    "What should I cook tonight?", "I finally finished that report.",
    "Do you remember the book I told you about?", "It is hard to concentrate today.",
)  # fmt: skip

_REPLIES: Final = {
    "as now": "Let us look at it together. What matters most to you?",
    "cooler": "Noted. State the goal, then the next step.",
    "terser": "Sure. What first?",
    "warmer": "I am so glad that you tell me. How do you feel about it, my friend?",
    "wordier": "There are several ways to look at it, and each of them has something to say for "
    "itself; let us go through them one after the other, and see what fits your day.",
}

_REACTIONS: Final = {
    0.0: ("That does not help at all.", "This is annoying."),
    0.5: ("Fine, let us go on.", "All right."),
    1.0: ("Thank you, that is lovely!", "Great, I like that."),
}


def write_simulated_home(
    primary: Connection, *, seed: int = 0, progress: Callable[[Batch], None] | None = None
) -> bool:
    """Fill an empty home with simulated people, decisions and feedback; return whether it was done.

    The companion chooses among small deviations from its profile, all with the same probability.
    After `WEEKS` weeks its warmth was raised, and the choice went on for as long.

    Args:
        primary: The primary database.
        seed: The seed of the simulation.
        progress: Called with every batch of messages that was written.

    Returns:
        False if the home holds the simulation already.

    Raises:
        WrongUse: The home holds messages that are not simulated.
    """
    if is_simulated(primary):
        if primary.fetch_all("SELECT 1 FROM personality_policies LIMIT 1"):
            return False
    elif primary.fetch_all("SELECT 1 FROM messages LIMIT 1"):
        raise WrongUse(
            "This home has messages of people, and simulated ones are never mixed with them: name "
            "another folder with --home."
        )
    else:
        primary.execute(f"INSERT INTO system_state VALUES (?, 'personality', {NOW})", [SIMULATED])
    simulation = Simulation(world(), seed)
    raised = tuple(float(level) for level in moved(PROFILE, "warmer"))
    logs = [
        simulation.log(WEEKS, profile=PROFILE, version="p1"),
        simulation.log(WEEKS, first_week=WEEKS, profile=raised, version="p2"),
    ]
    rng = np.random.default_rng([seed, 2])
    for log in logs:
        import_batches(primary, _batches(log, rng), progress=progress)
    with primary.transaction():
        _write_profiles(primary, [PROFILE, raised])
        for log in logs:
            _write_decisions(primary, log)
        policy = policy_of("epsilon-greedy", {"arms": dict(ARMS), "epsilon": 1.0})
        add_policy(primary, POLICY, policy)
    return True


def world() -> World:
    """Return people who would like the companion much warmer, so that a log can show it."""
    return World(
        people=PEOPLE, weekly=WEEKLY, ideal=(0.95, 0.35), apart=0.1, strength=3.0, happiness=0.95
    )


def _message_id(log: Log, row: int) -> str:
    return f"{log.profiles[0]}-{row:05}"


def _batches(log: Log, rng: np.random.Generator) -> Iterator[Batch]:
    """Yield what people and companion said around each decision, and the ratings."""
    size = BATCH_MESSAGES // 3
    for start in range(0, len(log), size):
        rows = range(start, min(start + size, len(log)))
        messages: list[MessageRecord] = []
        feedback: list[FeedbackRecord] = []
        for row in rows:
            messages += _said(log, row, rng)
            if np.isfinite(log.reward[row]):
                feedback.append(_rating(log, row))
        users = sorted({message.user_id for message in messages if message.user_id})
        begun = _stamp(START_MS)
        yield Batch(
            messages=messages,
            channels=[ChannelRecord("simulated", "Simulated", "simulated", begun, None)],
            users=[UserRecord(user, None, begun, None) for user in users],
            feedback=feedback,
            rejected=[],
            lines_read=len(messages),
            progress=len(messages),
        )


def _said(log: Log, row: int, rng: np.random.Generator) -> list[MessageRecord]:
    user, at = log.people[log.person[row]], int(log.time_ms[row])
    reward, arm = float(log.reward[row]), log.arms[log.arm[row]]
    felt = reward if np.isfinite(reward) else 0.5
    said = [
        ("user", str(rng.choice(_ASKED)), -45_000, "-asked"),
        ("assistant", _REPLIES[arm], 0, ""),
    ]
    if rng.random() < 0.3 + 0.5 * felt:
        said.append(("user", str(rng.choice(_REACTIONS[felt])), 60_000, "-reaction"))
    return [
        MessageRecord(
            message_id=f"{_message_id(log, row)}{end}",
            channel_id="simulated",
            conversation_id=f"with {user}",
            user_id=user,
            role=role,
            content=content,
            timestamp=_stamp(at + apart),
            sentiment_score=None,
            sentiment_source=None,
            response_time=None,
            reply_to=None,
            metadata=None,
        )
        for role, content, apart, end in said
    ]


def _rating(log: Log, row: int) -> FeedbackRecord:
    user = log.people[log.person[row]]
    return FeedbackRecord(
        event_id=f"{_message_id(log, row)}-rating",
        user_id=user,
        conversation_id=f"with {user}",
        message_id=_message_id(log, row),
        kind="rating",
        name="satisfaction",
        value=2 * float(log.reward[row]) - 1,
        timestamp=_stamp(int(log.time_ms[row]) + 90_000),
        metadata=None,
    )


def _write_profiles(primary: Connection, levels: list[tuple[float, ...]]) -> None:
    """Write both versions, and the change between them, which was kept after two weeks."""
    changed, kept = (_stamp(START_MS + weeks * WEEK_MS) for weeks in (WEEKS, WEEKS + 2))
    begins, ends = (_stamp(START_MS - MS_PER_DAY), changed), (changed, None)
    for number, traits in enumerate(levels):
        primary.execute(
            "INSERT INTO personality_profiles (profile_id, version, traits, active_from, "
            "active_until, based_on, reason, simulated) VALUES (?, ?, ?, ?, ?, ?, ?, 1)",
            [
                f"p{number + 1}", number + 1,
                values.compact_json(_TRAITS | dict(zip(TRAITS, traits, strict=True))),
                begins[number], ends[number], "p1" if number else None,
                "simulated change" if number else "simulated beginning",
            ],
        )  # fmt: skip
    primary.execute(
        "INSERT INTO personality_changes (change_id, proposal, status, old_profile_id, "
        "new_profile_id, reason, proposed_at, applied_at, ended_at) "
        "VALUES ('simulated-change', ?, 'kept', 'p1', 'p2', 'simulated change', ?, ?, ?)",
        [
            values.compact_json({"steps": {"warmth": 0.1}, "simulated": True}),
            changed, changed, kept,
        ],
    )  # fmt: skip


def _write_decisions(primary: Connection, log: Log) -> None:
    assert log.probabilities is not None  # noqa: S101 - a simulation logs them
    primary.execute_many(
        "INSERT INTO personality_decisions (message_id, user_id, conversation_id, profile_id, "
        "policy, context, features, arms, arm, propensity, propensity_kind, decided_at, simulated) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'exact', ?, 1)",
        (
            [
                _message_id(log, row),
                user := log.people[log.person[row]],
                f"with {user}",
                log.profiles[0],
                POLICY,
                log.contexts[log.context[row]],
                values.compact_json(dict(zip(log.names, log.features[row].tolist(), strict=True))),
                values.compact_json(
                    dict(zip(log.arms, log.probabilities[row].tolist(), strict=True))
                ),
                log.arms[log.arm[row]],
                float(log.propensity[row]),
                _stamp(int(log.time_ms[row])),
            ]
            for row in range(len(log))
        ),
    )


def _stamp(ms: int) -> str:
    """Return UTC milliseconds as a stored time."""
    return to_timestamp(to_local(ms, get_zone("UTC")).isoformat())
