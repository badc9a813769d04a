"""Devices, report runs, and the message bus."""

from __future__ import annotations

from aico_lab.schema.versions import SchemaVersion

_STATES = "'running', 'succeeded', 'failed'"
_REPORTS_INDEX = "CREATE INDEX report_runs_by_report ON report_runs (report, started_at)"

_REPEATABLE = {
    "notebook": "TEXT",  # the path of the notebook
    "resolved": "JSON TEXT",  # the parameters, without periods that count back from another day
    "repeats": "TEXT",  # the run that this one repeats
    "summary": "JSON TEXT",  # what the list of all runs shows of the report
    "json_sha256": "TEXT",
}

# `public_key` is the key of the device's signatures.
_FEDERATED = {
    "recipient": "TEXT",  # the key that is encrypted for
    "kind": "TEXT",
    "trust_level": "INTEGER NOT NULL DEFAULT 0",  # 0 none or revoked, 1 receives only, 2 full
    "sync_policy": "JSON TEXT",  # the classes that it does not hold
    "approved_by": "TEXT",
    "revoked_at": "TIMESTAMP TEXT",
}


def _report_runs(states: str) -> str:
    return f"""CREATE TABLE report_runs (
        run_id TEXT PRIMARY KEY NOT NULL,
        report TEXT NOT NULL,
        parameters JSON TEXT NOT NULL,
        generation INTEGER NOT NULL,
        notebook_sha256 TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ({states})),
        started_at TIMESTAMP TEXT NOT NULL,
        finished_at TIMESTAMP TEXT,
        error TEXT
    )"""


def _with_states(states: str, status: str) -> list[str]:
    """Return statements that rebuild `report_runs`, because SQLite cannot change its CHECK.

    Args:
        states: The allowed values of `status`, as SQL.
        status: The SQL expression of an existing run's new status.
    """
    return [
        "ALTER TABLE report_runs RENAME TO report_runs_before",
        _report_runs(states),
        f"""INSERT INTO report_runs
            SELECT run_id, report, parameters, generation, notebook_sha256,
                {status}, started_at, finished_at, error
            FROM report_runs_before""",
        "DROP TABLE report_runs_before",
        _REPORTS_INDEX,
    ]


OPERATIONS = {
    1: SchemaVersion(
        version=1,
        name="Operations",
        description="Trusted devices, events waiting for the message bus, report runs.",
        sql_statements=[
            """CREATE TABLE devices (
                device_id TEXT PRIMARY KEY NOT NULL,
                name TEXT NOT NULL,
                public_key TEXT NOT NULL,
                trusted BOOLEAN INTEGER NOT NULL DEFAULT 0,
                added_at TIMESTAMP TEXT NOT NULL,
                last_seen_at TIMESTAMP TEXT
            )""",
            """CREATE TABLE outbox (
                seq INTEGER PRIMARY KEY AUTOINCREMENT,
                topic TEXT NOT NULL,
                payload JSON TEXT NOT NULL,
                created_at TIMESTAMP TEXT NOT NULL
            )""",
            _report_runs(_STATES),
            _REPORTS_INDEX,
        ],
        rollback_statements=[
            "DROP TABLE report_runs",
            "DROP TABLE outbox",
            "DROP TABLE devices",
        ],
        tracked={"devices": ("device_id",)},
    ),
    2: SchemaVersion(
        version=2,
        name="Interrupted reports",
        description="A report that was stopped or killed has the status 'interrupted'.",
        sql_statements=_with_states(f"{_STATES}, 'interrupted'", "status"),
        rollback_statements=_with_states(_STATES, "iif(status = 'interrupted', 'failed', status)"),
    ),
    3: SchemaVersion(
        version=3,
        name="Repeatable reports",
        description="The notebook, resolved parameters, summary and machine-readable file of runs.",
        sql_statements=[
            f"ALTER TABLE report_runs ADD COLUMN {name} {type_}"
            for name, type_ in _REPEATABLE.items()
        ],
        rollback_statements=[f"ALTER TABLE report_runs DROP COLUMN {name}" for name in _REPEATABLE],
    ),
    4: SchemaVersion(
        version=4,
        name="Sealed reports",
        description="Whether a report is sealed, also when its files are gone; null if unknown.",
        sql_statements=["ALTER TABLE report_runs ADD COLUMN sealed BOOLEAN INTEGER"],
        rollback_statements=["ALTER TABLE report_runs DROP COLUMN sealed"],
    ),
    5: SchemaVersion(
        version=5,
        name="Federated devices",
        description="The trust in devices, as signed statements of trusted devices establish it.",
        sql_statements=[
            f"ALTER TABLE devices ADD COLUMN {name} {type_}" for name, type_ in _FEDERATED.items()
        ],
        rollback_statements=[
            f"ALTER TABLE devices DROP COLUMN {name}" for name in reversed(_FEDERATED)
        ],
        tracked={"devices": ("device_id",)},
    ),
}

BUS = {
    1: SchemaVersion(
        version=1,
        name="Message bus",
        description="The position of every consumer in the outbox, and its dead letters.",
        sql_statements=[
            # `position` is the last outbox.seq that the consumer handled, gave up or is not
            # subscribed to; sequence numbers are in commit order, so one number is enough.
            # `attempts` and `due_at` belong to the message after it that failed last.
            """CREATE TABLE bus_consumers (
                consumer TEXT PRIMARY KEY NOT NULL,
                patterns JSON TEXT NOT NULL,
                position INTEGER NOT NULL DEFAULT 0,
                attempts INTEGER NOT NULL DEFAULT 0,
                due_at TIMESTAMP TEXT
            )""",
            """CREATE TABLE dead_letters (
                consumer TEXT NOT NULL,
                seq INTEGER NOT NULL,
                topic TEXT NOT NULL,
                payload JSON TEXT NOT NULL,
                created_at TIMESTAMP TEXT NOT NULL,
                attempts INTEGER NOT NULL,
                error TEXT NOT NULL,
                reason TEXT NOT NULL,
                died_at TIMESTAMP TEXT NOT NULL,
                PRIMARY KEY (consumer, seq)
            )""",
        ],
        rollback_statements=["DROP TABLE dead_letters", "DROP TABLE bus_consumers"],
    )
}
