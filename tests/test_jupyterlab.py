"""JupyterLab as `aico-lab lab` starts it: notebooks in a browser, and what leaves the machine."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nbformat
import psutil
import pytest
from IPython.core.error import UsageError

from aico_lab.home.working_copies import RECORD, renew
from aico_lab.jupyter import report_magic
from aico_lab.jupyter.server import OnlyOurs
from aico_lab.lab import Lab
from aico_lab.reports.runner import run_notebook
from aico_lab.shipped import shipped
from tests.browser import Visit, visit
from tests.messages import add, at, message
from tests.notebooks import NO_PARAMETERS, write_notebook
from tests.two_charts import BARS, CHART, DAYS, DRAWN, PICTURE, SETUP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSPHRASE = "correct horse battery"
OURS = "pattern_analysis.ipynb"


@dataclass
class Running:
    """A JupyterLab that was started.

    Attributes:
        home: The lab's folder.
        process: The command.
        address: The server's.
        token: What it asks for.
    """

    home: Path
    process: subprocess.Popen[bytes]
    address: str
    token: str

    @contextmanager
    def visit(self, notebook: str) -> Iterator[Visit]:
        """Open a notebook, and none that was open before, where nothing else can be reached."""
        address = f"{self.address}lab/tree/{notebook}?reset&token={self.token}"
        with visit(address, width=1400) as seen:
            yield seen

    def post(self, what: str, body: object = None) -> Any:
        """Ask the server for something."""
        request = urllib.request.Request(  # noqa: S310
            f"{self.address}api/{what}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read() or "null")

    def start_kernel(self) -> psutil.Process:
        """Start the kernel of a notebook."""
        session = {"path": OURS, "name": OURS, "type": "notebook", "kernel": {"name": "python3"}}
        self.post("sessions", session)
        return self._newest_child()

    def start_terminal(self) -> psutil.Process:
        """Start a shell."""
        self.post("terminals")
        return self._newest_child()

    def _newest_child(self) -> psutil.Process:
        return max(psutil.Process(self.process.pid).children(), key=psutil.Process.create_time)


def until(condition: Any, seconds: float = 60) -> Any:
    """Wait for something, and give it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)
    return found


@contextmanager
def jupyterlab_on(
    home: Path, folder: Path, *options: str, passphrase: str | None = None, **environment: str
) -> Iterator[Running]:
    """Start the command in a working folder outside the checkout; a passphrase is typed."""
    errors = folder / "stderr"
    terminal, typed = pty.openpty()
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "aico_lab", "lab", "--home", str(home), *options],
            stdin=typed if passphrase else subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            cwd=folder,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        if passphrase:  # what is typed before the echo is off is thrown away
            until(lambda: not termios.tcgetattr(typed)[3] & termios.ECHO)
            os.write(terminal, f"{passphrase}\n".encode())
        told = re.compile(r"(http://127\.0\.0\.1:\d+/)lab\?token=(\w+)")

        def address() -> re.Match[str] | None:
            assert process.poll() is None, errors.read_text()
            return told.search(errors.read_text())

        yield Running(home, process, *until(address).groups())
    finally:
        for _ in range(2):  # the second time it does not wait for a session that is being opened
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=15)
                break
            except subprocess.TimeoutExpired:
                continue
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(typed)


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One JupyterLab, of a person whose own Jupyter is set up to do everything wrong."""
    folder = tmp_path_factory.mktemp("jupyterlab")
    person, tools = folder / "person", folder / "tools"
    wrong = (
        f"open({str(folder / 'configuration')!r}, 'w').close()\n"
        "c.IdentityProvider.token = ''\n"
        "c.ServerApp.ip = '0.0.0.0'\n"
    )
    for place in (person / ".jupyter", folder):
        place.mkdir(parents=True, exist_ok=True)
        (place / "jupyter_server_config.py").write_text(wrong)
    kernel = person / ".local/share/jupyter/kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["false"], "display_name": "Theirs"}))
    tools.mkdir()
    for tool in ("node", "npm"):
        (tools / tool).write_text(
            f'#!/bin/sh\necho "{tool} $YARN_ENABLE_TELEMETRY" >> "{folder}/tools.log"\n'
        )
        (tools / tool).chmod(0o700)
    (tools / "browser").write_text(f'#!/bin/sh\nenv > "{folder}/browser.log"\n')
    (tools / "browser").chmod(0o700)
    home = folder / "a höme"
    with Lab.create(home, protection="passphrase", passphrase=PASSPHRASE) as lab:
        add(lab.primary, *(message(n, timestamp=at(n * 7000)) for n in range(600)))
        add(lab.primary, message(600, user_id="costs $5 or $6"))
        lab.sync()
    environment = {
        "HOME": str(person),
        "XDG_DATA_HOME": "",
        "XDG_CONFIG_HOME": "",
        "JUPYTER_CONFIG_PATH": str(person / ".jupyter"),
        "BROWSER": f"{tools / 'browser'} %s",
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
    }
    with jupyterlab_on(home, folder, passphrase=PASSPHRASE, **environment) as running:
        yield running


def run_all(page):
    page.get_by_text("| Idle").wait_for(timeout=60_000)  # before it, Lab asks for a kernel
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("notebook", "least"), [(OURS, 5), ("data_quality.ipynb", 1), ("review.ipynb", 0)]
)
def test_every_chart_of_a_notebook_is_drawn_and_the_network_asked_for_nothing(
    jupyterlab, notebook, least
):
    """With a passphrase typed once, and no argument to `Lab.open`."""
    with jupyterlab.visit(notebook) as seen:
        page = seen.page
        page.set_viewport_size({"width": 1400, "height": 15_000})  # what is not seen is not drawn
        run_all(page)
        page.wait_for_function(
            """() => {
                const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
                    .map(prompt => prompt.textContent);
                return prompts.some(text => /\\d/.test(text)) && !prompts.includes('[*]:');
            }""",
            timeout=120_000,
        )
        for kind in ("error", "stderr"):
            output = page.locator(
                f".jp-OutputArea [data-mime-type='application/vnd.jupyter.{kind}']"
            )
            assert output.all_text_contents() == []
        charts = page.locator(CHART).count()
        assert charts >= least
        if charts:
            page.locator(DRAWN).nth(charts - 1).wait_for(timeout=60_000)
        else:
            assert page.get_by_role("img", name="Messages by hour of the day").is_visible()
        assert page.locator(DRAWN).count() == charts
        assert page.locator(PICTURE).count() == 0
        below = """facts => facts.every(fact => {
            const [name, value] = [...fact.children].map(part => part.getBoundingClientRect());
            return name.bottom <= value.top + 1;
        })"""  # JupyterLab lets them float side by side
        facts = page.locator(".aico-lab-selection dl > div")
        assert facts.count() > 1
        assert facts.evaluate_all(below)
        assert page.get_by_text("Jupyter news").count() == 0
    assert seen.requests == []


def write_for_lab(folder: Path, name: str, *sources: str, parameters: str = NO_PARAMETERS) -> None:
    """Write a notebook for which JupyterLab does not ask for a kernel."""
    notebook = write_notebook(folder / name, *sources, parameters=parameters)
    content = nbformat.read(notebook, as_version=4)
    content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(content, notebook)


@pytest.mark.slow
def test_the_first_tab_names_the_metrics(jupyterlab):
    """JupyterLab asks a kernel for a second only; a fresh one has imported no metric yet."""
    opened = "from aico_lab import Lab\nlab = Lab.open()\n'lab is open'"
    write_for_lab(jupyterlab.home / "notebooks", "tab.ipynb", opened, "'here'")
    with jupyterlab.visit("tab.ipynb") as seen:
        page = seen.page
        run_all(page)
        page.locator(".jp-OutputArea", has_text="lab is open").wait_for(timeout=60_000)
        page.get_by_text("'here'").first.click()
        page.keyboard.press("Control+a")
        page.keyboard.type("lab.metrics.")
        page.keyboard.press("Tab")
        names = page.locator(".jp-Completer-item .jp-Completer-match")
        names.first.wait_for(timeout=60_000)
        assert {"balance", "burstiness"} <= {name.strip(".") for name in names.all_text_contents()}


@pytest.mark.slow
def test_what_lies_between_dollar_signs_in_data_is_no_formula(jupyterlab):
    opened = (
        "import polars as pl\nfrom aico_lab import Lab\nlab = Lab.open()\n"
        "frame = pl.DataFrame({'n': ['between $5 and $6']})"
    )
    shows = ("frame", "frame['n']", "frame.to_pandas()", "lab.metrics.turns(user='costs $5 or $6')")
    write_for_lab(jupyterlab.home / "notebooks", "data.ipynb", opened, *shows)
    with jupyterlab.visit("data.ipynb") as seen:
        page = seen.page
        run_all(page)
        page.get_by_text("costs $5 or $6", exact=False).last.wait_for(timeout=60_000)
        page.locator(".jp-OutputArea table").nth(len(shows) - 1).wait_for(timeout=60_000)
        assert page.locator("mjx-container").count() == 0


@pytest.mark.slow
def test_the_explorer_follows_its_filters(jupyterlab):
    enabled = "from aico_lab import Lab\nfrom aico_lab.reports import charts\ncharts.enable()"
    shown = "charts.explorer(Lab.open())"
    write_for_lab(jupyterlab.home / "notebooks", "explorer.ipynb", enabled, shown)
    with jupyterlab.visit("explorer.ipynb") as seen:
        run_all(seen.page)
        explorer = seen.page.locator(".aico-lab-explorer.on")
        explorer.wait_for(timeout=120_000)
        messages = explorer.locator("[data-tile=messages] .value")
        assert messages.inner_text() == "601"
        explorer.locator(".controls select").first.select_option("the companion")
        seen.page.wait_for_function(
            "() => document.querySelector('[data-tile=messages] .value').textContent !== '601'"
        )
        assert "by the companion" in explorer.locator(".chosen").inner_text()
    assert seen.requests == []


@pytest.mark.slow
def test_charts_are_drawn_again_when_a_cell_is_run_again(jupyterlab):
    write_for_lab(jupyterlab.home / "notebooks", "charts.ipynb", SETUP, BARS, DAYS)
    with jupyterlab.visit("charts.ipynb") as seen:
        page = seen.page
        run_all(page)
        page.locator(DRAWN).nth(1).wait_for(timeout=60_000)
        assert page.locator(PICTURE).count() == 0

        def run_the_first_chart():  # after everything else: out of the notebook's order
            page.get_by_text('title="Bars"').first.click()
            page.keyboard.press("Control+Enter")

        for run in (run_the_first_chart, lambda: run_all(page)):
            charts = page.locator(DRAWN)
            drawn = charts.first if run is run_the_first_chart else charts.last
            drawn.evaluate("chart => chart.classList.add('old')")
            run()
            page.wait_for_function(
                "drawn => document.querySelectorAll(drawn).length == 2"
                " && !document.querySelector('.old')",
                arg=DRAWN,
                timeout=60_000,
            )
        assert page.locator(PICTURE).count() == 0
    assert seen.requests == []
    assert seen.errors == []


@pytest.mark.slow
def test_a_notebook_that_is_not_trusted_shows_pictures(jupyterlab, tmp_path):
    notebook = write_notebook(tmp_path / "other.ipynb", SETUP, BARS, DAYS)
    run_notebook(
        notebook,
        parameters={},
        destination=jupyterlab.home / "notebooks",
        title="Two charts",
        timeout=120,
    )
    with jupyterlab.visit("other.ipynb") as seen:
        pictures = seen.page.locator(".jp-OutputArea img[alt]")
        pictures.nth(1).wait_for(timeout=60_000)
        assert pictures.count() == 2
        assert seen.page.locator(DRAWN).count() == 0
    assert seen.requests == []


@pytest.mark.slow
def test_nothing_is_heard_or_called_beyond_this_machine(jupyterlab):
    """By the server or a kernel; and a stranger on this machine is asked for the token."""
    jupyterlab.start_kernel()
    server = psutil.Process(jupyterlab.process.pid)

    def sockets() -> list[Any]:
        return [
            connection
            for process in (server, *server.children(recursive=True))
            for connection in process.net_connections(kind="inet")
        ]

    # The server's, and the kernel's five.
    until(lambda: sum(one.status == psutil.CONN_LISTEN for one in sockets()) >= 6)
    assert {end.ip for one in sockets() for end in (one.laddr, one.raddr) if end} == {"127.0.0.1"}
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{jupyterlab.address}api/contents", timeout=30)  # noqa: S310


@pytest.mark.slow
def test_copies_of_notebooks_are_kept_in_ram(jupyterlab):
    """JupyterLab makes one with each save, and can return to it."""
    notebook = jupyterlab.home / "notebooks" / OURS
    content = notebook.read_bytes()
    jupyterlab.post(f"contents/{OURS}/checkpoints")
    notebook.write_bytes(b"{}")
    jupyterlab.post(f"contents/{OURS}/checkpoints/checkpoint")
    assert notebook.read_bytes() == content
    assert not list(jupyterlab.home.rglob("*checkpoint*"))


@pytest.mark.slow
def test_a_persons_own_jupyter_and_tools_that_call_home_are_left_alone(jupyterlab):
    """No configuration of theirs is executed; npm would look for news, yarn tell of its use."""
    folder = jupyterlab.home.parent
    assert not (folder / "configuration").exists()
    assert set((folder / "tools.log").read_text().splitlines()) == {"node 0"}
    files = {path for path in (folder / "person").rglob("*") if path.is_file()}
    theirs = {path.name for path in files if path.suffix != ".encrypted"}  # names of such homes
    assert theirs == {"jupyter_server_config.py", "kernel.json"}
    kept = jupyterlab.home / "jupyter"
    assert not list(jupyterlab.home.rglob("history.sqlite")), "it is kept in RAM"
    assert not list(jupyterlab.home.rglob(".ipynb_checkpoints"))
    for_others = {
        path.name
        for path in kept.rglob("*")
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) != 0o600
    }
    assert for_others <= {"README"}  # a copy of IPython's own


@pytest.mark.slow
def test_kernels_have_the_key_and_no_environment_has_the_passphrase(jupyterlab):
    """Neither a kernel's, nor the server's, nor a terminal's or the browser's that it starts."""
    kernel, terminal = jupyterlab.start_kernel(), jupyterlab.start_terminal()
    server = psutil.Process(jupyterlab.process.pid)
    assert PASSPHRASE not in kernel.environ().values()
    assert int(kernel.environ()["AICO_LAB_KEY_DESCRIPTOR"]) > 2
    assert terminal.environ()["AICO_LAB_HOME"] == str(jupyterlab.home)
    assert PASSPHRASE not in terminal.environ().values()
    assert PASSPHRASE not in server.environ().values()
    browser = jupyterlab.home.parent / "browser.log"
    assert PASSPHRASE not in until(lambda: browser.exists() and browser.read_text())
    assert all(PASSPHRASE not in process.cmdline() for process in (server, kernel, terminal))
    assert kernel.exe() == server.exe()


def test_the_kernel_is_that_of_this_python_whatever_kernels_are_installed(tmp_path, monkeypatch):
    for name in ("python3", "other"):
        spec = tmp_path / "kernels" / name / "kernel.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps({"argv": ["false"], "display_name": "Theirs"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    kernels = OnlyOurs()
    assert list(kernels.find_kernel_specs()) == ["python3"]
    assert kernels.get_kernel_spec("python3").argv[0] == sys.executable


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_control_c_ends_it_and_its_kernels_without_a_question(times, lab, tmp_path):
    with jupyterlab_on(lab.home.path, tmp_path, "--no-browser") as running:
        kernel = running.start_kernel()
        for _ in range(times):
            running.process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert running.process.wait(timeout=60) == 0
        kernel.wait(timeout=60)
    # A kernel that is not up yet may show where it was stopped.
    assert "aico_lab/jupyter/server.py" not in (tmp_path / "stderr").read_text()


@pytest.mark.slow
def test_what_cannot_be_opened_is_one_sentence_before_anything_is_started(cli, home, tmp_path):
    """A home that is none, and the key of another."""
    missing = cli("lab")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith(f"aico-lab: There is no lab in {home}: ")
    assert not home.exists()
    cli("init")
    Lab.create(tmp_path / "other", key_file=tmp_path / "other.key").close()
    wrong = cli("lab", "--key-file", str(tmp_path / "other.key"))
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
    assert "does not open" in wrong.stderr
    assert not (home / "notebooks").exists()


@pytest.mark.slow
def test_a_port_that_is_in_use_is_one_sentence(cli, lab):
    lab.close()
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = str(other.getsockname()[1])
        process = cli("lab", "--port", port)
    assert process.returncode == 1
    assert process.stderr.startswith(f"aico-lab: Port {port} cannot be used")
    assert process.stderr.count("\n") == 1


def test_the_notebooks_are_copied_for_their_owner_alone(tmp_path):
    folder = tmp_path / "notebooks"
    ours = shipped("notebooks", ".ipynb").values()
    assert renew(folder, ours) == []
    assert {path.name for path in folder.glob("*.ipynb")} == {path.name for path in ours}
    assert (folder / OURS).read_bytes() == shipped("notebooks", ".ipynb")[
        "pattern_analysis"
    ].read_bytes()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / OURS)] == [0o700, 0o600]


def change(notebook: Path, text: str) -> None:
    """Change what the last cell of a notebook says."""
    content = nbformat.read(notebook, as_version=4)
    content.cells[-1].source = text
    nbformat.write(content, notebook)


def run(notebook: Path) -> None:
    """Leave a notebook as JupyterLab does where somebody ran it: with outputs and metadata."""
    content = nbformat.read(notebook, as_version=4)
    content.metadata.language_info = {"name": "python", "version": "3"}
    content.cells[-1].execution_count = 7
    content.cells[-1].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    nbformat.write(content, notebook)


@pytest.fixture
def copied(tmp_path):
    """A notebook of the package, and its copy."""
    (tmp_path / "package").mkdir()
    original = write_notebook(tmp_path / "package" / "a.ipynb", "1")
    renew(tmp_path / "copies", [original])
    return original, tmp_path / "copies" / "a.ipynb"


def test_a_newer_notebook_replaces_a_copy_that_was_run_at_most(copied):
    original, copy = copied
    run(copy)
    ran = copy.read_bytes()
    assert renew(copy.parent, [original]) == []
    assert copy.read_bytes() == ran
    change(original, "2")
    assert renew(copy.parent, [original]) == []
    assert copy.read_bytes() == original.read_bytes()


def test_a_copy_that_was_changed_stays_and_is_named_once_there_is_a_newer_one(copied):
    original, copy = copied
    change(copy, "mine")
    changed = copy.read_bytes()
    assert renew(copy.parent, [original]) == []
    change(original, "2")
    assert renew(copy.parent, [original]) == [copy]
    assert renew(copy.parent, [original]) == [copy]
    assert copy.read_bytes() == changed
    copy.rename(copy.with_name("mine.ipynb"))
    assert renew(copy.parent, [original]) == []
    assert copy.read_bytes() == original.read_bytes()


@pytest.mark.parametrize("record", [None, "", "[]", '{"a.ipynb": 1}'])
def test_without_a_record_of_it_a_copy_that_differs_counts_as_changed(copied, record):
    original, copy = copied
    (copy.parent / RECORD).unlink()
    if record is not None:
        (copy.parent / RECORD).write_text(record)
    change(original, "2")
    assert renew(copy.parent, [original]) == [copy]


def test_what_is_no_notebook_any_more_stays(copied):
    original, copy = copied
    copy.write_text('{"cells": 1}')
    change(original, "2")
    assert renew(copy.parent, [original]) == [copy]
    assert copy.read_text() == '{"cells": 1}'


@pytest.mark.slow
def test_the_open_notebook_becomes_a_report_whose_page_opens_beside_it(jupyterlab):
    """With a value of its parameter; and the run is in the list of runs."""
    said = ("print('said', days)", "%report days=7", "%reports")
    write_for_lab(jupyterlab.home / "notebooks", "mine.ipynb", *said, parameters="days: int = 5")
    with jupyterlab.visit("mine.ipynb") as seen:
        page = seen.page
        run_all(page)
        link = page.get_by_role("link", name="Open the page")
        link.nth(1).wait_for(timeout=120_000)  # of the run, and in the list
        row = page.locator(".jp-OutputArea tr", has_text="mine")
        assert "days=7" in row.inner_text()
        assert "succeeded" in row.inner_text()
        with page.expect_popup() as opened:
            link.first.click()
        opened.value.get_by_text("said 7").wait_for(timeout=30_000)
        address = opened.value.url
    assert "/aico-lab/reports/mine/" in address
    assert seen.requests == []
    with urllib.request.urlopen(address, timeout=30) as stranger:  # noqa: S310
        assert "/login" in stranger.url


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "name one"),
        ("one two", "second word"),
        ("'one", "close the quotes"),
        ("nothing_of_ours", "There is no report 'nothing_of_ours'"),
    ],
)
def test_a_report_that_cannot_be_run_is_one_sentence(lab, monkeypatch, line, said):
    monkeypatch.setenv("AICO_LAB_HOME", str(lab.home.path))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    with pytest.raises(UsageError, match=said):
        report_magic.run_report(line)
