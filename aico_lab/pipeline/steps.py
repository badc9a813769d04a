"""Run one step of a pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import LinesRejected, StepFailed, StepTimedOut, SyncError
from aico_lab.importing.importer import ImportResult
from aico_lab.importing.saved import described
from aico_lab.pipeline.watching import WatchResult, import_watched, is_pattern
from aico_lab.sources import SOURCES, recognise
from aico_lab.sources.exports.engine.conversation import ANSWERS, Options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aico_lab.adapters.duckdb_relation import Relation
    from aico_lab.embeddings.segmenting import Segmented
    from aico_lab.etl.verify import Proof
    from aico_lab.lab import Lab
    from aico_lab.pipeline.definition import Step

GRACE: Final = 5.0
"""Seconds that a process has to end by itself before it is killed."""

_NO_ANSWERS: Final = frozenset({"on_rejects", "on_nothing"})
"""Options of an import that change nothing about how a file is read."""

_REPORT_SECONDS: Final = 600.0

_TABLES_KEEP: Final = (
    "Tables hold no whole conversations: with deletions = true only the exports of other programs "
    "are compared with what is stored."
)


@dataclass(frozen=True, slots=True)
class UnchangedReport:
    """A report that was not run again.

    Attributes:
        notebook: The executed notebook of the earlier run.
        html: Its page.
    """

    notebook: Path
    html: Path


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """The result of an export.

    Attributes:
        file: The file with the rows.
    """

    file: Path


@dataclass(frozen=True, slots=True)
class ShellResult:
    """The result of a command that succeeded.

    Attributes:
        exit_code: Its exit code.
    """

    exit_code: int


def run_step(lab: Lab, step: Step, seconds: float | None) -> object:  # noqa: PLR0911 - one a kind
    """Run one step and return the result of the method of `Lab` that does its work.

    Args:
        lab: The home.
        step: The step.
        seconds: The timeout of a report or a command; other steps ignore it.

    Raises:
        AicoLabError: The step failed.
    """
    options = step.options
    match step.run:
        case "import":
            return _import(lab, options)
        case "index":
            return _index(lab, options)
        case "sync":
            synced = lab.sync(**options)
            if damaged := synced.damage():
                raise SyncError(" ".join(damaged))
            return synced
        case "verify":
            return _verify(lab)
        case "load":
            return lab.load(**options)
        case "export":
            return _export(lab, options)
        case "federate":
            return lab.devices.sync(folder=options.get("path"), lan=options.get("lan", False))
        case "shell":
            return _shell(lab, options, seconds)
        case _:
            return _report(lab, options, seconds)


def _index(lab: Lab, options: Mapping[str, Any]) -> Segmented:
    from aico_lab.embeddings.segmenting import SegmentParameters

    result = lab.embeddings.update(SegmentParameters(**options) if options else None)
    lab.sync_vectors()
    return result


def _verify(lab: Lab) -> Proof:
    proof = lab.verify()
    if proof.ok:
        return proof
    wrong = [table for table, one in proof.tables.items() if not one.ok]
    raise StepFailed(
        f"snapshot {proof.generation} differs from the database in {', '.join(wrong)}: "
        "`aico-lab verify` lists the differences."
    )


def exported(lab: Lab, options: Mapping[str, Any]) -> Relation:
    """Return the rows that an export writes, which are not computed yet.

    Raises:
        NeverSynced: There is no snapshot.
        InvalidStatement: The query or table does not exist, or has no rows to export.
    """
    from aico_lab.adapters.sql_text import quoted
    from aico_lab.errors import InvalidStatement

    if "table" in options:
        query = f"FROM {'.'.join(map(quoted, options['table'].split('.')))}"
    else:
        query = options["query"]
    rows = lab.sql(query)
    if rows is None:
        raise InvalidStatement("The query of an export must return rows: begin it with SELECT.")
    return rows


def _export(lab: Lab, options: Mapping[str, Any]) -> ExportedFile:
    from aico_lab.reports.leaks import refuse_leaks

    rows = exported(lab, options)
    refuse_leaks(lab.storage, rows, content=options.get("content", True))
    rows.write(options["path"])
    return ExportedFile(options["path"])


def _report(lab: Lab, options: Mapping[str, Any], seconds: float | None) -> object:
    name, parameters = options["name"], options.get("parameters")
    encrypt: list[str] = options.get("encrypt", [])
    if options.get("on_unchanged") == "skip":
        same = lab.reports.find_same(name, parameters, sealed=bool(encrypt))
        if same is not None and same.html is not None:
            notebook = same.html.name.replace(f"{same.report}.html", f"{same.report}.ipynb")
            return UnchangedReport(same.html.with_name(notebook), same.html)
    # A retry may have less than the second that a report needs at least.
    timeout = _REPORT_SECONDS if seconds is None else max(seconds, 1.0)
    return lab.reports.run(name, parameters, timeout=timeout, encrypt=encrypt)


def _shell(lab: Lab, options: Mapping[str, Any], seconds: float | None) -> ShellResult:
    """Run a command; all that it prints goes to stderr, since stdout may be one JSON value."""
    command = options["command"]
    began = time.monotonic()
    sys.stderr.flush()
    try:
        with lab.storage.for_child() as (environment, descriptors):
            process = subprocess.Popen(  # noqa: S603 - see `ShellRefused`
                command,
                shell=isinstance(command, str),
                cwd=options["folder"],
                env=environment,
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=2,
                stderr=2,
                start_new_session=True,  # so that its own processes end with it
            )
    except OSError as refused:
        raise StepFailed(f"the command did not start ({refused.strerror}).") from refused
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        end_process(process, group=True)
        raise StepTimedOut(
            f"the command was ended after {time.monotonic() - began:.0f} s, its timeout."
        ) from None
    except BaseException:
        end_process(process, group=True)
        raise
    if code:
        raise StepFailed(f"the command ended with exit code {code}.")
    return ShellResult(code)


def end_process(process: subprocess.Popen[bytes], *, group: bool = False) -> None:
    """End a process as Control-C or, for a group, SIGTERM does; kill it after `GRACE` seconds."""
    import signal

    def send(name: str) -> None:
        with suppress(ProcessLookupError):
            if os.name == "nt":
                process.kill()
            elif group:
                os.killpg(process.pid, getattr(signal, name))
            else:
                process.send_signal(getattr(signal, name))

    send("SIGTERM" if group else "SIGINT")
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    send("SIGKILL")
    process.wait()


def _import(lab: Lab, options: Mapping[str, Any]) -> ImportResult | WatchResult:
    """Import a source, a file, or the new files of a watched folder."""
    path: Path | None = options.get("path")
    source: str | None = options.get("source") or options.get("as")
    answers = {name: options[name] for name in ANSWERS if name in options}
    asked: dict[str, Any] = {
        "limit": options.get("limit"),
        "on_conflict": options.get("on_conflict"),
        "deletions": options.get("deletions", False),
        "options": Options.read(**answers) if answers else None,
    }

    told_of_tables = False

    def take(one: Path) -> ImportResult:
        nonlocal told_of_tables
        if source is not None:
            return lab.import_from(source, one, **asked)
        name = recognise(one, asked["options"]).name
        if SOURCES[name].export or not asked["deletions"]:
            return lab.import_from(name, one, **asked)
        taken = lab.import_from(name, one, **asked | {"deletions": False})
        if not told_of_tables:
            taken.notes.append(_TABLES_KEEP)
        told_of_tables = True
        return taken

    if path is None:
        return lab.import_from(options["source"], **asked)
    if not is_pattern(path) and ("source" in options or not path.is_dir()):
        return take(path)
    told = {name: value for name, value in options.items() if name not in _NO_ANSWERS}
    if source is not None and source not in SOURCES:
        told["saved"] = described(lab.home)[source]
    keep_going = options.get("on_rejects") == "continue"
    return import_watched(lab, path, take, answers=told, keep_going=keep_going)


def rejected(number: int, step: Step, result: object) -> LinesRejected | None:
    """Return the error for files that cannot be read and invalid lines, if they end the job."""
    goes_on = step.options.get("on_rejects") == "continue"
    if isinstance(result, WatchResult):
        if not (result.files or result.unchanged) and step.options.get("on_nothing") == "fail":
            return LinesRejected(
                f"Step {number} ({step.label}) found no file: nothing matches {result.watched}."
            )
        if result.broken and not goes_on:
            first = result.broken[0]
            return LinesRejected(
                f"Step {number} ({step.label}) could not read {len(result.broken):,} of "
                f"{len(result.files):,} new files, the first being {first.path} ({first.error}) "
                "Replace or move it, or set on_rejects = 'continue' in that step."
            )
        results = [one.result for one in result.files if one.result is not None]
    else:
        results = [result] if isinstance(result, ImportResult) else []
    count = sum(one.rejected for one in results)
    if not count or goes_on:
        return None
    first_one = next(one.examples[0] for one in results if one.rejected)
    noun = f"{'part' if first_one.where else 'line'}{'' if count == 1 else 's'}"
    where = first_one.where or f"line {first_one.line}"
    return LinesRejected(
        f"Step {number} ({step.label}) left out {count:,} invalid {noun}, the first being "
        f"{where} ({first_one.reason.rstrip('.')}): correct the file, or set "
        "on_rejects = 'continue' in that step."
    )
