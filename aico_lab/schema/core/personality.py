"""The companion's personality: its versions, people's feedback, decisions, and tuning."""

from __future__ import annotations

from typing import Final

from aico_lab.schema.versions import SchemaVersion

_PROFILE_COLUMNS: Final = {
    # NULL is every context; else a context bucket, such as 'evening'.
    "context": "TEXT",
    # A trait may move by at most `1 - stability` in one change.
    "stability": "REAL NOT NULL DEFAULT 0.8",
    # `profile_id` of the version that this one replaced.
    "based_on": "TEXT",
    "reason": "TEXT",
    "simulated": "BOOLEAN INTEGER NOT NULL DEFAULT 0",
}

_TABLES: Final = {
    # How the companion chose the style or skill of a message. `propensity` is the probability with
    # which `arm` was chosen, NULL if it was not logged; `arms` are all arms that could be chosen,
    # with their probabilities or NULL.
    "personality_decisions": """(
        message_id TEXT PRIMARY KEY NOT NULL REFERENCES messages (message_id) ON DELETE CASCADE,
        user_id TEXT REFERENCES users ON DELETE CASCADE,
        conversation_id TEXT,
        profile_id TEXT REFERENCES personality_profiles ON DELETE SET NULL,
        policy TEXT,
        context TEXT,
        features JSON TEXT,
        arms JSON TEXT,
        arm TEXT NOT NULL,
        propensity REAL,
        propensity_kind TEXT CHECK (propensity_kind IN ('exact', 'monte-carlo')),
        decided_at TIMESTAMP TEXT NOT NULL,
        simulated BOOLEAN INTEGER NOT NULL DEFAULT 0
    )""",
    # `user_id` is NULL if the policy learns from everybody.
    # `rounds` is also the version of `state`: a writer changes the state that it has read, or none.
    "personality_policies": """(
        policy_id TEXT PRIMARY KEY NOT NULL,
        user_id TEXT REFERENCES users ON DELETE CASCADE,
        kind TEXT NOT NULL,
        parameters JSON TEXT NOT NULL,
        state JSON TEXT NOT NULL,
        rounds INTEGER NOT NULL DEFAULT 0,
        updated_at TIMESTAMP TEXT NOT NULL
    )""",
    # Every proposal to change a profile, and its end. An applied one is watched until it is kept or
    # rolled back.
    "personality_changes": """(
        change_id TEXT PRIMARY KEY NOT NULL,
        proposal JSON TEXT NOT NULL,
        status TEXT NOT NULL
            CHECK (status IN ('proposed', 'applied', 'rolled back', 'kept', 'refused')),
        user_id TEXT REFERENCES users ON DELETE CASCADE,
        context TEXT,
        old_profile_id TEXT,
        new_profile_id TEXT,
        generation INTEGER,
        reason TEXT,
        proposed_at TIMESTAMP TEXT NOT NULL,
        applied_at TIMESTAMP TEXT,
        ended_at TIMESTAMP TEXT
    )""",
}

_INDEXES: Final = {
    "personality_decisions_by_user": "personality_decisions (user_id)",
    "personality_decisions_by_profile": "personality_decisions (profile_id)",
    "personality_policies_by_user": "personality_policies (user_id)",
    "personality_changes_by_user": "personality_changes (user_id)",
}


PERSONALITY = {
    1: SchemaVersion(
        version=1,
        name="Personality",
        description="Versions of the companion's personality, and people's feedback on it.",
        sql_statements=[
            """CREATE TABLE personality_profiles (
                profile_id TEXT PRIMARY KEY NOT NULL,
                user_id TEXT REFERENCES users ON DELETE CASCADE,
                version INTEGER NOT NULL,
                traits JSON TEXT NOT NULL,
                active_from TIMESTAMP TEXT NOT NULL,
                active_until TIMESTAMP TEXT
            )""",
            "CREATE INDEX personality_profiles_by_user ON personality_profiles (user_id)",
            # `name` is the rated quality ('witty', 'interesting' …), `value` the rating.
            """CREATE TABLE feedback_events (
                event_id TEXT PRIMARY KEY NOT NULL,
                user_id TEXT REFERENCES users ON DELETE CASCADE,
                conversation_id TEXT,
                message_id TEXT REFERENCES messages (message_id) ON DELETE CASCADE,
                kind TEXT NOT NULL,
                name TEXT NOT NULL,
                value REAL,
                timestamp TIMESTAMP TEXT NOT NULL,
                metadata JSON TEXT
            )""",
            "CREATE INDEX feedback_by_conversation ON feedback_events (conversation_id)",
            "CREATE INDEX feedback_by_message ON feedback_events (message_id)",
            "CREATE INDEX feedback_by_user ON feedback_events (user_id)",
        ],
        rollback_statements=["DROP TABLE feedback_events", "DROP TABLE personality_profiles"],
        tracked={
            "personality_profiles": ("profile_id",),
            "feedback_events": ("event_id",),
        },
    ),
    2: SchemaVersion(
        version=2,
        name="Tuning of the personality",
        description="Profiles by context, logged decisions, policies, and changes with reasons.",
        sql_statements=(
            *(
                f"ALTER TABLE personality_profiles ADD COLUMN {name} {type_}"
                for name, type_ in _PROFILE_COLUMNS.items()
            ),
            *(f"CREATE TABLE {name} {columns}" for name, columns in _TABLES.items()),
            *(f"CREATE INDEX {name} ON {columns}" for name, columns in _INDEXES.items()),
        ),
        rollback_statements=(
            *(f"DROP TABLE {name}" for name in reversed(_TABLES)),
            *(
                f"ALTER TABLE personality_profiles DROP COLUMN {name}"
                for name in reversed(_PROFILE_COLUMNS)
            ),
        ),
        tracked={
            "personality_decisions": ("message_id",),
            "personality_policies": ("policy_id",),
            "personality_changes": ("change_id",),
        },
    ),
}
