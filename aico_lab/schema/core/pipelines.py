"""The runs of pipelines; see pipeline/records.py."""

from __future__ import annotations

from aico_lab.schema.versions import SchemaVersion

PIPELINES = {
    1: SchemaVersion(
        version=1,
        name="Runs of pipelines",
        description="How every run of a pipeline went: its steps, versions and outputs.",
        sql_statements=(
            # `origin` is 'package', 'home' or the path of a file elsewhere: together with the name
            # it tells pipelines apart. The lists of `steps` and `outputs` have one object for each.
            # `period` is the time of the schedule for which it started.
            """CREATE TABLE pipeline_runs (
                run_id TEXT PRIMARY KEY NOT NULL,
                pipeline TEXT NOT NULL,
                origin TEXT NOT NULL,
                file_sha256 TEXT NOT NULL,
                status TEXT NOT NULL CHECK (status IN (
                    'running', 'ok', 'failed', 'interrupted', 'missed')),
                started_at TIMESTAMP TEXT NOT NULL,
                finished_at TIMESTAMP TEXT,
                error TEXT,
                steps JSON TEXT NOT NULL,
                outputs JSON TEXT NOT NULL,
                warnings JSON TEXT NOT NULL,
                versions JSON TEXT NOT NULL,
                removed INTEGER NOT NULL DEFAULT 0,
                retry_of TEXT,
                period TIMESTAMP TEXT
            )""",
            "CREATE INDEX pipeline_runs_by_start ON pipeline_runs (started_at)",
        ),
        rollback_statements=("DROP TABLE pipeline_runs",),
    ),
}
