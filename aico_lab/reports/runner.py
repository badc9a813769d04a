"""Run a notebook as a report, and keep the executed notebook whether it succeeds or not.

The notebook is executed in a private folder. It leaves that folder only after secrets and names of
this machine's folders were removed from it, and if nothing leaks. The kernel's own files, such as
its history, are in that folder too.
"""

from __future__ import annotations

import builtins
import html
import logging
import os
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

from aico_lab import errors
from aico_lab.errors import (
    LeakFound,
    NotebookFailed,
    NotebookTimedOut,
    ReportError,
    WrongUse,
)
from aico_lab.home.files import write_atomically
from aico_lab.reports import document
from aico_lab.reports.html import export_html
from aico_lab.reports.kernel_process import COMMAND
from aico_lab.reports.parameters import bind, read_parameters
from aico_lab.reports.records import UP_TO_THERE
from aico_lab.reports.redaction import REDACTED, Redactor, forget_this_machine, withhold
from aico_lab.reports.sealing import publish, workplace
from aico_lab.reports.shown_texts import ShownText, shown_texts
from aico_lab.results import json_text

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations in libraries that papermill imports
    from nbclient.exceptions import CellTimeoutError
    from papermill import PapermillExecutionError, execute_notebook
    from papermill.execute import ERROR_MARKER_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from aico_lab.reports.document import ReportFacts
    from aico_lab.reports.leaks import LeakScan

_INJECTED: Final = "injected-parameters"
"""The tag of the cell that papermill adds."""

_MAGIC: Final = "aico_lab.jupyter.report_magic"
"""An extension of IPython; by name, since a report does not need JupyterLab."""

_STARTING: Final = 180  # seconds within which a kernel answers on a busy machine
_STARTS: Final = 3
"""The most starts of a kernel: it ends at once if another program takes one of its ports first."""
_KNOWN_ERRORS: Final = {*vars(builtins), *vars(errors)}
_CHATTY: Final = ("papermill", "traitlets")  # loggers


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        notebook: The executed notebook; as the page, it ends in `.age` if it is sealed.
        html: The notebook as an HTML page.
        seconds: The duration in seconds.
        json: The figures, findings and tables of the page as a file, see `document`; None if the
            run has no facts for it.
        repeats: The id of the run that this one repeats; None for none.
        notes: Sentences about differences from that run.
    """

    notebook: Path
    html: Path
    seconds: float
    json: Path | None = None
    repeats: str | None = None
    notes: tuple[str, ...] = ()


def run_notebook(
    notebook: Path,
    *,
    parameters: Mapping[str, object],
    destination: Path,
    title: str,
    timeout: float,
    facts: ReportFacts | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    descriptors: tuple[int, ...] = (),
    secrets: Collection[str] = (),
    withheld: Collection[str] = (),
    scan: LeakScan | None = None,
    encrypt: Collection[str] = (),
    on_cell: Callable[[int, int], None] | None = None,
) -> RunResult:
    """Execute a notebook in its own kernel, and write the executed notebook and its page.

    Args:
        notebook: The notebook, which is not changed.
        parameters: Values for its parameters cell; the others keep their defaults.
        destination: An existing folder for `<stem>.ipynb`, `<stem>.html` and `report.json`.
        title: The page's title.
        timeout: Seconds for all cells together.
        facts: The facts about the run for `report.json`; None writes no such file.
        folder: The kernel's working directory; by default an empty folder, removed with the run.
        environment: The kernel's environment; by default that of this process.
        descriptors: The open files that the kernel inherits.
        secrets: Texts to remove from outputs and errors.
        withheld: Parameters whose values are not in the executed notebook and the page.
        scan: The search for leaks, or None for no search.
        encrypt: The age recipients for whom all files are sealed, or none for plain text.
        on_cell: Called with the number of code cells done, and their total.

    Raises:
        UnknownName: The notebook or a parameter does not exist.
        InvalidValue: A parameter's value does not fit its type.
        WrongUse: The file is not a notebook, or its parameters cell is invalid.
        LeakFound: It holds a key, or text of messages that it must not hold; nothing is kept.
        NotebookFailed: A cell raised, or the kernel died; the partial notebook is kept.
        NotebookTimedOut: The timeout was exceeded; the partial notebook is kept.
        DiskFull: The disk is full.
        HomeNotWritable: The destination cannot be written.
    """
    values = bind(read_parameters(notebook), parameters)
    redactor = Redactor(secrets)
    began = time.monotonic()
    with workplace(destination, sealed=bool(encrypt)) as private, _quiet():
        executed = private / notebook.name
        stopped = _execute(
            notebook,
            executed,
            values,
            deadline=began + timeout,
            folder=folder,
            kernel=_kernel_of(
                private, os.environ if environment is None else environment, descriptors
            ),
            on_cell=on_cell,
        )
        node = redactor.clean(_read(executed))
        forget_this_machine(node)
        node.metadata.pop("widgets", None)  # may hold messages, and no page shows them
        withhold(node, withheld)
        shown = shown_texts(node, _INJECTED)
        sources = [cell.source for cell in node.cells]
        problem = "" if stopped is None else redactor.redact(f"{stopped.where}{stopped.why}")
        if stopped is not None:
            shown.append(ShownText("the error", problem))
            _put_on_top(node, problem)
            if encrypt:  # the record of a run is not sealed, and an error may quote the data
                problem = stopped.where
        nbformat.write(node, executed)  # type: ignore[no-untyped-call]
        page = executed.with_suffix(".html")
        export_html(executed, page, title=title)
        files = [executed, page]
        if facts is not None:
            content = document.collected(
                node, facts, seconds=time.monotonic() - began, error=problem or None
            )
            for given in content["parameters"].values():
                given.update({one: REDACTED for one in withheld if given.get(one) is not None})
            data = executed.with_name(document.NAME)
            write_atomically(data, json_text(redactor.clean(content)).encode())
            files.insert(0, data)
        leak = None if scan is None else scan.leak(shown, files, sources)
        if leak is not None and stopped is None:
            raise LeakFound(f"{notebook.name} is not published, since {leak.found}: {leak.advice}.")
        if leak is not None and stopped is not None:
            raise stopped.error(f"{stopped.where}; nothing of it is kept, since {leak.found}.")
        # The page comes last: where it is, the others are.
        *data_files, result, html_file = (publish(file, destination, encrypt) for file in files)
    if stopped is not None:
        error = stopped.error(f"{problem}{UP_TO_THERE}{result}.")
        error.notebook = result
        raise error
    return RunResult(
        result,
        html_file,
        time.monotonic() - began,
        json=data_files[0] if data_files else None,
        repeats=None if facts is None else facts.repeats,
    )


class _Stopped(NamedTuple):
    """The early end of a run.

    Attributes:
        error: The class of the error to raise.
        where: The beginning of its sentence, which quotes no output.
        why: The rest, which may quote anything.
    """

    error: type[ReportError]
    where: str
    why: str = ""


def _execute(
    notebook: Path,
    executed: Path,
    values: Mapping[str, object],
    *,
    deadline: float,
    folder: Path | None,
    kernel: type[_Kernel],
    on_cell: Callable[[int, int], None] | None,
) -> _Stopped | None:
    """Run all cells, writing `executed` after each; return what stopped them, or None."""
    if folder is None:
        folder = executed.parent / "work"  # empty, since the kernel can import from it
        folder.mkdir()
    progress = _Progress(notebook, added=bool(values), on_cell=on_cell)

    def left(_cell: object = None) -> float:
        return max(deadline - time.monotonic(), 0.1)  # 0 means no limit to nbclient

    def run() -> None:
        execute_notebook(
            # Papermill replaces {placeholders} in paths; doubled braces are literal.
            *(str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, executed)),
            parameters=dict(values),
            kernel_name="python3",  # both names, since a notebook may lack this metadata
            language="python",
            progress_bar=False,
            start_timeout=max(1, min(_STARTING, int(left()))),
            timeout_func=left,
            extra_arguments=["--log-level=ERROR", f"--ext={_MAGIC}"],
            kernel_manager_class=kernel,
            resources={"metadata": {"path": str(folder)}},
            on_cell_start=progress.cell_started,
        )

    try:
        _with_restarts(run, progress, deadline)
    # The errors are not chained: they contain the cell's source and the traceback, which may
    # contain secrets.
    except PapermillExecutionError as error:
        said = error.evalue.strip().partition("\n")[0].rstrip(".")
        where = f"{notebook.name} stopped in cell {progress.cell}"
        named = f": {error.ename}"
        if error.ename in _KNOWN_ERRORS:  # the name of another class may be any text
            where, named = f"{where}{named}", ""
        return _Stopped(NotebookFailed, where, f"{named}{f': {said}' if said else ''}")
    except CellTimeoutError:
        where = f"{notebook.name} was stopped in cell {progress.cell}: it exceeded its timeout"
        return _Stopped(NotebookTimedOut, where)
    except RuntimeError as error:  # DeadKernelError, or the kernel did not start
        if time.monotonic() >= deadline:
            where = f"{notebook.name} was stopped: it exceeded its timeout"
            return _Stopped(NotebookTimedOut, where)
        said = str(error).strip().partition("\n")[0].rstrip(".")
        where = f"{notebook.name} lost its kernel in cell {progress.cell}"
        return _Stopped(NotebookFailed, where, f": {said}")
    progress.finished()
    return None


def _with_restarts(run: Callable[[], None], progress: _Progress, deadline: float) -> None:
    """Call a function that starts a kernel, again if that kernel ends before the first cell."""
    for start in range(1, _STARTS + 1):
        try:
            run()
        except RuntimeError:
            if progress.number or start == _STARTS or time.monotonic() >= deadline:
                raise
        else:
            return


class _Kernel(AsyncKernelManager):
    """A kernel of this Python that ends, and leaves no files, even if this process is killed.

    By default a kernel that the user installed as "python3" takes precedence, which may be another
    Python without this package.
    """

    private: ClassVar[Path]
    environment: ClassVar[Mapping[str, str]]
    descriptors: ClassVar[tuple[int, ...]]

    @default("kernel_spec_manager")
    def _only_ours(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])

    @default("connection_file")
    def _private(self) -> str:
        return str(self.private / "kernel.json")

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        command = super().format_kernel_cmd(extra_arguments)
        module = command.index("-m")
        return [*command[:module], *COMMAND, *command[module + 2 :]]

    async def _async_start_kernel(self, **options: Any) -> None:
        # A kernel repeats the output of its child processes on its own stdout, which it shares with
        # this process, where a command may write JSON. The notebook has that text anyway.
        ipython = self.private / "ipython"
        startup = ipython / "profile_default" / "startup"
        startup.mkdir(parents=True, exist_ok=True)
        # Else IPython copies its own file with the permissions of the original.
        (startup / "README").touch(mode=0o600)
        options["env"] = {**self.environment, "IPYTHONDIR": str(ipython)}
        inherited = {"pass_fds": self.descriptors} if self.descriptors else {}
        await super()._async_start_kernel(stdout=DEVNULL, stderr=DEVNULL, **inherited, **options)

    start_kernel = _async_start_kernel


def _kernel_of(
    private: Path, environment: Mapping[str, str], descriptors: tuple[int, ...]
) -> type[_Kernel]:
    """Return a kernel class for papermill, which creates the instance itself."""
    given = {"private": private, "environment": environment, "descriptors": descriptors}
    return type("_KernelOfRun", (_Kernel,), given)


class _Progress:
    """Counts the code cells as JupyterLab numbers them, and reports the progress.

    Attributes:
        number: The number of cells begun, with the one that papermill adds for the parameters.
        cell: The same without that one: the number of the cell in the person's own notebook.
    """

    def __init__(
        self, notebook: Path, *, added: bool, on_cell: Callable[[int, int], None] | None
    ) -> None:
        cells = _read(notebook).cells
        self._total = sum(map(_runs, cells)) + added
        self._on_cell = on_cell
        self.number = self.cell = 0

    def cell_started(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        del cell_index  # includes text cells
        if _runs(cell):
            self._tell()
            self.number += 1
            self.cell += _INJECTED not in cell.metadata.get("tags", [])

    def finished(self) -> None:
        self._tell()

    def _tell(self) -> None:
        if self._on_cell is not None:
            self._on_cell(self.number, self._total)


def _read(path: Path) -> nbformat.NotebookNode:
    try:
        node: nbformat.NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except nbformat.ValidationError as damaged:
        said = str(damaged).partition("\n")[0].rstrip(".")
        raise WrongUse(
            f"{path.name} is damaged ({said}): save it again in JupyterLab."
        ) from damaged
    return node


def _runs(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def _put_on_top(node: nbformat.NotebookNode, sentence: str) -> None:
    """Add a banner with the reason of an early end, and remove papermill's two banners."""
    banner = nbformat.v4.new_markdown_cell(  # type: ignore[no-untyped-call]
        '<div style="padding: 12px 16px; border-radius: 8px; background: #FDF0ED; color: #7A271A;'
        ' border-left: 4px solid #D55E00; margin-bottom: 24px;">'
        f"<strong>{html.escape(sentence)}.</strong></div>",
        metadata={"tags": [ERROR_MARKER_TAG]},  # papermill removes it when the copy is run again
    )
    kept = [cell for cell in node.cells if ERROR_MARKER_TAG not in cell.metadata.get("tags", [])]
    node.cells = [banner, *kept]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings and log lines of libraries, which repeat or precede errors."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
