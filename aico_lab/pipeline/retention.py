"""Remove the reports of old runs of a pipeline."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aico_lab.pipeline.records import read_runs
from aico_lab.reports.records import SEALED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.home.folder import Home
    from aico_lab.pipeline.definition import Pipeline
    from aico_lab.pipeline.kinds import Keep
    from aico_lab.pipeline.records import PipelineRun


def remove_old(
    connection: Connection, home: Home, pipeline: Pipeline, run: PipelineRun
) -> tuple[int, list[str]]:
    """Remove what is beyond the count or the age of `keep`, after a good run.

    The reports of that run stay, also those that it did not make anew. Files of exports are
    replaced by every run, so there are none to remove.

    Args:
        connection: The primary database.
        home: The lab's folder.
        pipeline: The pipeline.
        run: The good run.

    Returns:
        The number of removed reports, and a sentence for each that cannot be removed.
    """
    keeps = {step.id: step.keep for step in pipeline.steps if step.keep is not None}
    if pipeline.keep is None and not keeps:
        return 0, []
    runs = read_runs(connection, of=pipeline, files=_files(home))
    kept: set[Path] = {folder for _, folder in _reports(home, run)}
    old: set[Path] = set()
    ids = {one.step for past in runs for one in past.outputs}
    for step in sorted(ids):
        keep = keeps.get(step, pipeline.keep)
        mine = [(past, _of(home, past, step)) for past in runs]
        # Nothing follows the reports of a step that the file does not have any more, as by that
        # name, so all later runs count.
        if any(step == one.id for one in pipeline.steps):
            mine = [(past, folders) for past, folders in mine if folders]
        for place, (past, folders) in enumerate(mine):
            (old if keep is not None and _is_old(keep, place, past) else kept).update(folders)
    removed, warnings = 0, []
    for folder in sorted(old - kept):
        try:
            shutil.rmtree(folder)
            removed += 1
        except OSError as refused:
            warnings.append(f"The old report {folder.name} was not removed: {refused.strerror}.")
    if removed:
        from aico_lab.reports.run_index import write_index  # imports polars

        write_index(connection, home)  # without links to them
    return removed, warnings


def _files(home: Home) -> Iterator[str]:
    """Yield the paths, relative to the home, of all reports that are still there."""
    for folder in home.reports.glob("*/*/"):
        for suffix in (".html", ".ipynb"):
            file = folder / f"{folder.parent.name}{suffix}"
            path = file.relative_to(home.path).as_posix()
            yield from (path, f"{path}{SEALED}")


def _is_old(keep: Keep, place: int, run: PipelineRun) -> bool:
    if keep.count is not None and place >= keep.count:
        return True
    age = datetime.now(UTC) - datetime.fromisoformat(run.started_at)
    return keep.days is not None and age > timedelta(days=keep.days)


def _of(home: Home, run: PipelineRun, step: str) -> set[Path]:
    return {folder for one, folder in _reports(home, run) if one == step}


def _reports(home: Home, run: PipelineRun) -> list[tuple[str, Path]]:
    """Return the folders of a run's reports that are still there, with the ids of their steps."""
    return [
        (one.step, folder)
        for one in run.outputs
        for folder in [(home.path / one.path).parent]
        if folder.parent.parent == home.reports and ".." not in folder.parts and folder.is_dir()
    ]
