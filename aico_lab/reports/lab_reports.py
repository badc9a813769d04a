"""`lab.reports`: run notebooks on a snapshot; list, open, compare and repeat the runs."""

from __future__ import annotations

import contextlib
import hashlib
import math
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aico_lab.errors import InvalidValue, UnknownName, did_you_mean
from aico_lab.etl import snapshots
from aico_lab.home.files import private_files
from aico_lab.home.working_copies import own_notebooks
from aico_lab.reports.browser import open_page
from aico_lab.reports.document import ReportFacts, read_document
from aico_lab.reports.records import (
    INDEX,
    SEALED,
    clear_up,
    find_same,
    page_of,
    read_origin,
    read_runs,
    recorded,
    with_files,
)
from aico_lab.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from aico_lab.home.folder import Home
    from aico_lab.reports.comparing import ReportDiff
    from aico_lab.reports.parameters import NotebookParameter
    from aico_lab.reports.records import ReportRun, RunOrigin
    from aico_lab.reports.runner import RunResult
    from aico_lab.storage import Storage

SECONDS: Final = 600.0
"""The default timeout of a report."""

_SUFFIX: Final = ".ipynb"

_LONGEST: Final = 200
"""The most bytes of a report's name, as its files have longer ones."""

_NEWEST: Final = ("latest", "previous")
"""The names of the newest good run, and of the one of the same report before it."""

_IDS: Final = ("user", "channel")
"""Parameters that hold an id, which is not in a report with pseudonyms."""


def notebooks(home: Home | None = None) -> dict[str, Path]:
    """Return the notebooks that can be run as reports, by name.

    Args:
        home: A home, whose own notebooks take precedence over shipped ones with the same name.
            Unedited copies of shipped notebooks do not count as its own.
    """
    own = {} if home is None else own_notebooks(home.path / "notebooks")
    return dict(sorted({**shipped("notebooks", _SUFFIX), **own}.items()))


def is_own(notebook: Path) -> bool:
    """Return whether a notebook is the user's own, not one of the package."""
    return shipped("notebooks", _SUFFIX).get(notebook.stem) != notebook


def find_notebook(name: str, home: Home | None = None) -> Path:
    """Return the path of a notebook.

    Args:
        name: A name in `notebooks`, or the path of an `.ipynb` file.
        home: A home with notebooks of its own.

    Raises:
        UnknownName: The notebook does not exist, or its name cannot be that of a report.
    """
    stem = Path(name).name.removesuffix(_SUFFIX)
    if stem.casefold().removesuffix(_SUFFIX) == INDEX:
        raise UnknownName(
            f"{stem} cannot name a report, since the list of all runs has that name: rename it."
        )
    if not stem.isprintable() or len(stem.encode(errors="replace")) > _LONGEST:
        raise UnknownName(
            f"{stem[:20]!r}… cannot name a report: rename it, with letters, digits and at most "
            f"{_LONGEST} bytes."
        )
    if name.lower().endswith(_SUFFIX):
        file = Path(name).expanduser().absolute()
        if not file.is_file():
            raise UnknownName(f"There is no notebook {name}: check the path.")
        if file.name.startswith("."):
            raise UnknownName(f"{file.name} cannot name a report: rename it without the first dot.")
        return file
    known = notebooks(home)
    if name not in known:
        end = (
            f"; these are: {', '.join(known) or 'none'}. "
            "Name a notebook elsewhere by its path, with the suffix .ipynb."
        )
        raise UnknownName(f"There is no report {name!r}{did_you_mean(name, known, end)}")
    return known[name]


def check_timeout(seconds: float) -> None:
    """Raise InvalidValue if the timeout is below one second, infinite or NaN."""
    if not 1 <= seconds < math.inf:
        raise InvalidValue(f"The timeout must be at least 1 second, and finite, not {seconds:g}.")


class Reports:
    """Run notebooks on snapshots of a lab, and list the runs."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @private_files()
    def run(
        self,
        name: str | Path,
        parameters: Mapping[str, object] | None = None,
        *,
        timeout: float = SECONDS,
        encrypt: Collection[str] = (),
        on_cell: Callable[[int, int], None] | None = None,
    ) -> RunResult:
        """Execute a notebook on a snapshot, and keep it with an HTML page as a recorded run.

        Args:
            name: A notebook of the package, such as 'pattern_analysis', or of the home's folder
                `notebooks`; or the path of any `.ipynb` file.
            parameters: Values for its parameters cell. By default `generation` is the lab's pinned
                or else the newest snapshot, and `timezone` the lab's.
            timeout: Seconds after which the run is stopped.
            encrypt: The age recipients, such as `age1…`, for whom both files are sealed; none for
                plain text.
            on_cell: Called with the number of executed code cells, and their total.

        Raises:
            UnknownName: The notebook, or a parameter, person or channel does not exist.
            InvalidValue: A parameter has the wrong type, or a value that its filter rejects; or
                `encrypt` has no recipient of age.
            NeverSynced: There is no snapshot yet.
            DiskFull: The disk is full.
            LeakFound: It holds a key or, unless the parameter `content` is true, eight words of a
                message; nothing is kept.
            ReportError: A cell raised, or the timeout was exceeded; the partial notebook is kept.
        """
        return self._run(
            str(name), parameters or {}, timeout=timeout, encrypt=encrypt, on_cell=on_cell
        )

    @private_files()
    def rerun(
        self,
        run: str | Path,
        *,
        timeout: float = SECONDS,
        encrypt: Collection[str] = (),
        on_cell: Callable[[int, int], None] | None = None,
    ) -> RunResult:
        """Run a report again: the same notebook, parameters and days, and the same snapshot.

        `notes` of the result say if the snapshot is not kept any more, so that the newest one is
        read, and if the notebook has changed since.

        Args:
            run: The id of a run, or the name or path of a notebook, for its newest run.
            timeout: See `run`.
            encrypt: See `run`; the recipients of a sealed report must be named again.
            on_cell: See `run`.

        Raises:
            UnknownName: There is no such run, its notebook is gone, or it had a parameter that the
                notebook does not have any more.
            InvalidValue: A parameter does not fit the notebook any more, or the report is sealed
                and `encrypt` names nobody.
            NeverSynced: There is no snapshot yet.
            DiskFull: The disk is full.
            LeakFound: See `run`.
            ReportError: See `run`.
        """
        from aico_lab.reports.parameters import read_parameters

        storage = self._storage
        first = self.show(run)
        origin = read_origin(storage.primary, first.run_id)
        is_sealed = origin.sealed if first.html is None else first.html.suffix == SEALED
        if is_sealed is not False and not encrypt:
            is_known = "is" if is_sealed else "has no page any more, and may have been"
            raise InvalidValue(
                f"Run {first.run_id} {is_known} sealed: name the recipients of its repetition with "
                "--encrypt."
            )
        notebook = self._notebook_of(first, origin)
        parameters = dict(first.parameters if origin.resolved is None else origin.resolved)
        notes = []
        if hashlib.sha256(notebook.read_bytes()).hexdigest() != origin.notebook_sha256:
            notes.append(f"{notebook.name} has changed since run {first.run_id}.")
        is_kept = first.generation in snapshots.published(storage.home.snapshots)
        is_pinned = "generation" in read_parameters(notebook)
        if is_pinned:
            parameters["generation"] = first.generation if is_kept else 0
        *_, generation = self._resolve(str(notebook), parameters)
        if generation != first.generation:
            why = (
                f"{notebook.name} has no parameter “generation”"
                if is_kept and not is_pinned
                else f"snapshot {first.generation} is not kept any more"
            )
            notes.append(
                f"It is of another snapshot, {generation}, which may hold other messages, since "
                f"{why}."
            )
        result = self._run(
            str(notebook),
            parameters,
            timeout=timeout,
            encrypt=encrypt,
            on_cell=on_cell,
            repeats=first.run_id,
        )
        return replace(result, notes=tuple(notes))

    def _notebook_of(self, run: ReportRun, origin: RunOrigin) -> Path:
        """Return the path of a run's notebook.

        Raises:
            UnknownName: It is gone.
        """
        if origin.notebook is not None and origin.notebook.is_file():
            return origin.notebook
        known = notebooks(self._storage.home)
        if run.report not in known:
            where = "" if origin.notebook is None else f", {origin.notebook},"
            raise UnknownName(
                f"The notebook of run {run.run_id}{where} is gone: put it back, or into the "
                f"home's notebooks folder as {run.report}{_SUFFIX}."
            )
        return known[run.report]

    def _run(
        self,
        name: str,
        given: Mapping[str, object],
        *,
        timeout: float,
        encrypt: Collection[str],
        on_cell: Callable[[int, int], None] | None,
        repeats: str | None = None,
    ) -> RunResult:
        from aico_lab.reports.leaks import LeakScan
        from aico_lab.reports.run_index import write_index
        from aico_lab.reports.runner import run_notebook
        from aico_lab.reports.values import check_in_snapshot, resolve_values
        from aico_lab.reports.written import written_time

        storage, home = self._storage, self._storage.home
        check_timeout(timeout)
        if encrypt:
            from aico_lab.adapters.age import read_recipients

            read_recipients(encrypt)
        notebook, declared, values, generation = self._resolve(name, given)
        with (
            storage.for_child() as (environment, descriptors),
            contextlib.closing(storage.read_snapshot(generation)) as reader,
        ):
            scan = LeakScan(storage, reader.connection(), values)
            check_in_snapshot(reader, declared, values)
            resolved = resolve_values(reader, values)
            now = datetime.now(UTC)
            run_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
            try:
                with recorded(
                    storage.primary,
                    home,
                    notebook,
                    run_id=run_id,
                    parameters=values,
                    generation=generation,
                    resolved=resolved,
                    repeats=repeats,
                    sealed=bool(encrypt),
                ) as destination:
                    title = notebook.stem.replace("_", " ")
                    started = int(now.timestamp() * 1000)
                    return run_notebook(
                        notebook,
                        parameters=values,
                        destination=destination,
                        title=f"{title[:1].upper()}{title[1:]} · {written_time(started, 'UTC')} "
                        "UTC",
                        timeout=timeout,
                        facts=ReportFacts(
                            run_id=run_id,
                            report=notebook.stem,
                            notebook_sha256=hashlib.sha256(notebook.read_bytes()).hexdigest(),
                            started_at=now.isoformat(),
                            generation=generation,
                            given=given,
                            resolved=resolved,
                            repeats=repeats,
                        ),
                        folder=notebook.parent if is_own(notebook) else None,
                        environment=environment,
                        descriptors=descriptors,
                        secrets=storage.keys.texts() | {storage.settings.passphrase or ""},
                        withheld=() if values.get("names", True) else _IDS,
                        scan=scan,
                        encrypt=encrypt,
                        on_cell=on_cell,
                    )
            finally:
                write_index(storage.primary, home)

    def find_same(
        self,
        name: str | Path,
        parameters: Mapping[str, object] | None = None,
        *,
        sealed: bool = False,
    ) -> ReportRun | None:
        """Return the newest good run that `run` would only repeat; None if there is none.

        It has the same notebook, parameters and snapshot, and its page is still there.

        Args:
            name: See `run`.
            parameters: See `run`.
            sealed: Whether its page is sealed.

        Raises:
            UnknownName: The notebook or a parameter does not exist.
            InvalidValue: A parameter has the wrong type, or a value that its filter rejects.
            NeverSynced: There is no snapshot yet.
        """
        notebook, _, values, generation = self._resolve(str(name), parameters)
        storage = self._storage
        return find_same(
            storage.primary,
            storage.home,
            notebook,
            parameters=values,
            generation=generation,
            sealed=sealed,
        )

    def _resolve(
        self, name: str, parameters: Mapping[str, object] | None
    ) -> tuple[Path, dict[str, NotebookParameter], dict[str, object], int]:
        """Return the notebook, its declared parameters, their values, and the generation."""
        from aico_lab.reports.parameters import bind, read_parameters
        from aico_lab.reports.values import check_values

        storage, home = self._storage, self._storage.home
        storage.check_open()
        notebook = find_notebook(name, home)
        declared = read_parameters(notebook)
        given = {"timezone": storage.timezone} if "timezone" in declared else {}
        values = bind(declared, given | dict(parameters or {}))
        check_values(declared, values)
        # 0 means the newest snapshot: fix its number now, since a sync may publish another one.
        wanted = values.get("generation")
        generation, _ = snapshots.find(
            home.snapshots, wanted if isinstance(wanted, int) and wanted else storage.generation
        )
        if "generation" in values:
            values["generation"] = generation
        return notebook, declared, values, generation

    def list(self, name: str | None = None) -> list[ReportRun]:
        """Return the runs of one report, or of all, newest first."""
        clear_up(self._storage.primary, self._storage.home)
        runs = read_runs(self._storage.primary, name)
        return [with_files(self._storage.home, run) for run in runs]

    def show(self, name: str | Path) -> ReportRun:
        """Return a run: its parameters, its status and the paths of its files.

        Args:
            name: The name or path of a notebook, for its newest run; the id of a run; or 'latest'
                or 'previous', see `diff`.

        Raises:
            UnknownName: There is no such run.
        """
        name = str(name)
        if name in _NEWEST:
            return self._newest(name)
        named = Path(name).stem if name.lower().endswith(_SUFFIX) else name
        runs = self.list()
        for run in runs:
            if named in (run.report, run.run_id):
                return run
        there = {run.report for run in runs}
        end = did_you_mean(name, there, ": see `aico-lab report list`.")
        raise UnknownName(f"There is no run of {name!r}{end}")

    def page(self, run: ReportRun) -> Path:
        """Return the path of a run's HTML page, whether or not the file exists."""
        return page_of(self._storage.home, run)

    def open(self, run: str | Path | None = None) -> Path:
        """Open the page of a run in a browser, if there is one, and return its path.

        Args:
            run: The id of a run, or the name or path of a notebook, for its newest run; by default
                the newest run with a page.

        Raises:
            UnknownName: There is no such run, or its page is not there.
            InvalidValue: The page is sealed.
        """
        page = self.find_page(run)
        if page.suffix == SEALED:
            raise InvalidValue(f"{page} is sealed: open it by `aico-lab report open --identity`.")
        open_page(page)
        return page

    def find_page(self, run: str | Path | None = None) -> Path:
        """Return the path of the page that `open` opens.

        Raises:
            UnknownName: There is no such run, or its page is not there.
        """
        if run is None:
            pages = (one.html for one in self.list() if one.html is not None)
            if (page := next(pages, None)) is None:
                raise UnknownName("No report has a page: run one by `aico-lab report run`.")
            return page
        found = self.show(run)
        if found.html is None:
            raise _absent(found, "page", "it was removed")
        return found.html

    def diff(self, first: str | Path, second: str | Path) -> ReportDiff:
        """Return what changed in the figures between two reports.

        Args:
            first: The id of a run; the name of a report, for its newest run; 'latest', for the
                newest good run, 'previous', for the good run of the same report before it; or the
                path of a `report.json`.
            second: Another one.

        Raises:
            UnknownName: There is no such run, or it has no `report.json`.
            InvalidValue: The report is sealed.
            WrongUse: The file cannot be read, or is no `report.json`.
        """
        from aico_lab.reports.comparing import compare

        one, other = self._documents(str(first), str(second))
        return compare(read_document(one), read_document(other))

    def _documents(self, first: str, second: str) -> tuple[Path, Path]:
        """Return the paths of the `report.json` of two reports.

        'latest' and 'previous' are of the report that the other argument names, if it names one.
        """
        found: dict[str, Path] = {}
        report = None
        for name in (first, second):
            if name in _NEWEST:
                continue
            if name.lower().endswith(".json"):
                found[name] = Path(name).expanduser()
            else:
                run = self.show(name)
                report = run.report
                found[name] = _document_of(run)
        for name in {first, second} & set(_NEWEST):
            found[name] = _document_of(self._newest(name, report))
        return found[first], found[second]

    def _newest(self, name: str, report: str | None = None) -> ReportRun:
        """Return the run that 'latest' or 'previous' names, of a report or of the newest one.

        Raises:
            UnknownName: There are not so many good runs.
        """
        good = [run for run in self.list(report) if run.status == "succeeded"]
        if report is None and good:
            report = good[0].report
            good = [run for run in good if run.report == report]
        place = _NEWEST.index(name)
        if place >= len(good):
            raise UnknownName(
                f"There is no {name} good run{f' of {report}' if report else ''}: "
                "see `aico-lab report list`."
            )
        return good[place]

    def __repr__(self) -> str:
        names = ", ".join(notebooks(self._storage.home))
        return (
            f"<Reports: .run(NAME) runs one of {names}; .list() returns the runs, "
            ".show(NAME) the newest run; .open(), .rerun(RUN) and .diff(RUN, RUN)>"
        )


def _document_of(run: ReportRun) -> Path:
    """Return the path of the `report.json` of a run.

    Raises:
        UnknownName: There is none.
        InvalidValue: It is sealed.
    """
    if run.json is None:
        raise _absent(run, "report.json", "it was removed, or an earlier version made the report")
    if run.json.suffix == SEALED:
        raise InvalidValue(
            f"Run {run.run_id} is sealed: decrypt {run.json} by `age --decrypt`, and name the "
            "decrypted file."
        )
    return run.json


def _absent(run: ReportRun, file: str, removed: str) -> UnknownName:
    """Return the error that a file of a run is not there.

    Args:
        run: The run.
        file: The file in words.
        removed: The reason for a good run.
    """
    if run.status == "running":
        return UnknownName(f"Run {run.run_id} is still running: its {file} is not there yet.")
    why = removed if run.status == "succeeded" else "its run did not succeed"
    ended = "" if run.status == "succeeded" or run.error is None else f" {run.error}"
    return UnknownName(
        f"Run {run.run_id} has no {file}: {why}.{ended} Run it again by `aico-lab report rerun "
        f"{run.run_id}`."
    )
