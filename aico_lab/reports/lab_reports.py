"""`lab.reports`: find notebooks by name or path, run them on a snapshot, and list the runs."""

from __future__ import annotations

import contextlib
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
from aico_lab.reports.records import clear_up, find_same, page_of, read_runs, recorded
from aico_lab.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from aico_lab.home.folder import Home
    from aico_lab.reports.parameters import NotebookParameter
    from aico_lab.reports.records import ReportRun
    from aico_lab.reports.runner import RunResult
    from aico_lab.storage import Storage

SECONDS: Final = 600.0
"""The default timeout of a report."""

_SUFFIX: Final = ".ipynb"

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
        UnknownName: The notebook does not exist, or its name begins with a dot.
    """
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
        from aico_lab.reports.leaks import LeakScan
        from aico_lab.reports.runner import run_notebook
        from aico_lab.reports.values import check_in_snapshot
        from aico_lab.reports.written import written_time

        storage, home = self._storage, self._storage.home
        check_timeout(timeout)
        if encrypt:
            from aico_lab.adapters.age import read_recipients

            read_recipients(encrypt)
        notebook, declared, values, generation = self._resolve(str(name), parameters)
        with contextlib.closing(storage.read_snapshot(generation)) as reader:
            scan = LeakScan(storage, reader.connection(), values)
            check_in_snapshot(reader, declared, values)
            now = datetime.now(UTC)
            run_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
            with recorded(
                storage.primary,
                home,
                notebook,
                run_id=run_id,
                parameters=values,
                generation=generation,
            ) as destination:
                title = notebook.stem.replace("_", " ")
                started = int(now.timestamp() * 1000)
                return run_notebook(
                    notebook,
                    parameters=values,
                    destination=destination,
                    title=f"{title[:1].upper()}{title[1:]} · {written_time(started, 'UTC')} UTC",
                    timeout=timeout,
                    folder=notebook.parent if is_own(notebook) else None,
                    environment=storage.settings.environment(),
                    secrets=storage.keys.texts() | {storage.settings.passphrase or ""},
                    withheld=() if values.get("names", True) else _IDS,
                    scan=scan,
                    encrypt=encrypt,
                    on_cell=on_cell,
                )

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
        return [replace(run, html=self.page(run)) for run in runs]

    def show(self, name: str | Path) -> ReportRun:
        """Return a run: its parameters, its status and the path of its page.

        Args:
            name: The name or path of a notebook, for its newest run; or the id of a run.

        Raises:
            UnknownName: There is no such run.
        """
        name = str(name)
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

    def __repr__(self) -> str:
        names = ", ".join(notebooks(self._storage.home))
        return (
            f"<Reports: .run(NAME) runs one of {names}; .list() returns the runs, "
            ".show(NAME) the newest run>"
        )
