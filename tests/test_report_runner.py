"""A notebook runs as a report: what it leaves behind when it succeeds, fails, hangs or dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from aico_lab.errors import InvalidValue, NotebookFailed, NotebookTimedOut, UnknownName
from aico_lab.reports.runner import _Kernel, run_notebook
from tests.notebooks import outputs, write_notebook

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path):
    """Run a notebook of these cells; the results are in `tmp_path / "out"`."""
    destination = tmp_path / "out"
    destination.mkdir()

    def run_cells(*cells, name="report", declared="days: int = 30  # window", **options):
        notebook = write_notebook(tmp_path / f"{name}.ipynb", *cells, parameters=declared)
        settings = {"parameters": {}, "title": "A report", "timeout": 60, **options}
        return run_notebook(notebook, destination=destination, **settings)

    return run_cells


def kernels():
    """Process ids of the kernels that this test process started and that still live."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    return {
        int(pid) for pid, parent, args in rows if "ipykernel" in args and int(parent) == os.getpid()
    }


@pytest.fixture(autouse=True)
def _no_kernel_is_left():
    before = kernels()
    yield
    assert kernels() <= before


def test_a_run_leaves_the_executed_notebook_and_its_page_and_nothing_else(run, tmp_path):
    result = run("print(days * 2)", parameters={"days": "21"})

    assert outputs(result.notebook) == "42\n"
    assert result.notebook == tmp_path / "out" / "report.ipynb"
    assert result.html == tmp_path / "out" / "report.html"
    assert "<title>A report</title>" in result.html.read_text(encoding="utf-8")
    assert 0 < result.seconds < 60
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html",
        "report.ipynb",
    ]


def test_parameters_are_checked_before_a_kernel_starts(run, tmp_path):
    with pytest.raises(InvalidValue):
        run("open('ran', 'w')", parameters={"days": "hello"})
    with pytest.raises(UnknownName):
        run("open('ran', 'w')", parameters={"dayz": 3})
    assert list((tmp_path / "out").iterdir()) == []


def test_text_reaches_the_notebook_as_it_was_given(run):
    texts = ["a 'b' \"c\" \\n \n é 🙂 {days} $x %s", "", "'''", "\\"]
    names = ["one", "two", "three", "four"]
    result = run(
        f"import json; print(json.dumps([{', '.join(names)}]))",
        declared="\n".join(f'{name}: str = "x"  # any' for name in names),
        parameters=dict(zip(names, texts, strict=True)),
    )
    assert json.loads(outputs(result.notebook)) == texts


def test_a_notebook_without_kernel_metadata_runs_in_this_python(run):
    result = run("import sys; print(sys.executable)")
    assert outputs(result.notebook).strip() == sys.executable


def test_a_kernel_named_python3_of_another_python_is_not_used(run, tmp_path, monkeypatch):
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(
        json.dumps({"argv": ["/bin/false", "{connection_file}"], "display_name": "Other"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert outputs(run("print('ours')").notebook) == "ours\n"


def test_the_kernel_works_in_an_empty_folder_of_its_own_and_leaves_ours_alone(run, tmp_path):
    here = Path.cwd()
    result = run("import os; print(os.listdir()); open('scratch', 'w').close(); print(os.getcwd())")
    listed, folder = outputs(result.notebook).split("\n")[:2]
    assert listed == "[]"
    assert Path(folder).parent.parent == tmp_path / "out"
    assert not Path(folder).exists()
    assert Path.cwd() == here


@pytest.mark.parametrize("failures", [1, 3])
def test_a_kernel_that_ends_before_it_answers_is_started_again(run, monkeypatch, failures):
    """As if another program had taken one of its ports; a kernel that always ends is an error."""
    real, started = _Kernel.format_kernel_cmd, []

    def command(self, extra_arguments=None):
        started.append(real(self, extra_arguments))
        return [sys.executable, "-c", ""] if len(started) <= failures else started[-1]

    monkeypatch.setattr(_Kernel, "format_kernel_cmd", command)
    if failures < 3:
        assert outputs(run("print('ran')").notebook) == "ran\n"
        assert len(started) == failures + 1
    else:
        with pytest.raises(NotebookFailed, match="lost its kernel in cell 0: Kernel died before"):
            run("print('ran')")
        assert len(started) == 3


def test_braces_in_a_path_are_part_of_the_name(run):
    """Papermill formats paths: `{days}` would become a value, `{x}` an error."""
    result = run("1", name="re{days}po{x}rt")
    assert result.notebook.name == "re{days}po{x}rt.ipynb"
    assert result.notebook.exists()


def test_progress_counts_the_code_cells(run):
    seen = []
    run("1", "2", on_cell=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]  # with the two of the parameters


def test_nothing_of_this_machine_stands_in_the_executed_notebook(run, tmp_path):
    text = run("1 + 1").notebook.read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text
    assert json.loads(text)["metadata"]["papermill"]["input_path"] == "report.ipynb"


def test_nor_in_the_traceback_of_one_that_failed(run, tmp_path):
    with pytest.raises(NotebookFailed, match="JSONDecodeError"):
        run("import altair as alt; alt.Chart.from_json('{')")
    text = (tmp_path / "out" / "report.ipynb").read_text(encoding="utf-8")
    assert "altair" in text
    assert sys.prefix not in text


def test_the_state_of_widgets_is_not_kept(run):
    """No page shows it, and the search for leaks reads only what is shown."""
    state = "{'state': {'_model_module': '', '_model_name': '', 'value': 'wild geese'}}"
    made = f"create_comm(target_name='jupyter.widget', data={state}); print('done')"
    result = run(f"from comm import create_comm; {made}")
    assert outputs(result.notebook) == "done\n"
    assert "widgets" not in nbformat.read(result.notebook, as_version=4).metadata


def test_a_cell_that_raises_is_named_and_what_ran_before_it_is_kept(run, tmp_path):
    with pytest.raises(NotebookFailed) as caught:
        run("print('before')", "raise ValueError('no rows.\\nsecond line')", "print('after')")

    kept = tmp_path / "out" / "report.ipynb"
    assert str(caught.value) == (
        f"report.ipynb stopped in cell 3: ValueError: no rows; the notebook up to there is {kept}."
    )
    assert outputs(kept) == "before\n\n"
    first = nbformat.read(kept, as_version=4).cells[0]
    assert "report.ipynb stopped in cell 3: ValueError: no rows." in first.source
    page = kept.with_suffix(".html").read_text(encoding="utf-8")
    assert "report.ipynb stopped in cell 3: ValueError: no rows." in page
    assert "second line" in page


def test_the_number_of_the_cell_is_the_one_that_jupyter_shows_in_the_own_notebook(run, tmp_path):
    """The executed copy has one cell more, with the values of the parameters."""
    with pytest.raises(NotebookFailed, match="stopped in cell 3: KeyError"):
        run("", "1", "{}['x']")  # the empty cell has no number
    cells = nbformat.read(tmp_path / "out" / "report.ipynb", as_version=4).cells
    assert cells[-1].execution_count == 4


def test_a_failed_copy_runs_again_without_the_old_banner(run, tmp_path):
    with pytest.raises(NotebookFailed):
        run("1 / days", parameters={"days": 0})
    again = tmp_path / "again"
    again.mkdir()
    result = run_notebook(
        tmp_path / "out" / "report.ipynb",
        parameters={"days": 1},
        destination=again,
        title="Again",
        timeout=60,
    )
    assert "stopped" not in result.notebook.read_text(encoding="utf-8")
    assert outputs(result.notebook).strip() == "1.0"


def test_html_in_an_error_is_shown_and_not_run(run, tmp_path):
    with pytest.raises(NotebookFailed):
        run("raise ValueError('<script>alert(1)</script>')")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page


def test_a_chart_that_cannot_be_drawn_fails_the_report(run):
    """Altair prints the traceback of such a chart and goes on."""
    with pytest.raises(NotebookFailed, match="stopped in cell 2: MaxRowsError"):
        run(
            "import altair as alt, polars as pl\n"
            "alt.Chart(pl.DataFrame({'x': range(5001)})).mark_bar().encode(x='x')"
        )


@pytest.mark.slow
def test_a_notebook_that_takes_too_long_is_stopped_and_kept(run, tmp_path):
    began = time.monotonic()
    with pytest.raises(
        NotebookTimedOut, match=r"stopped in cell 3: it exceeded its timeout; .*ipynb\."
    ):
        run("print('before')", "import time; time.sleep(600)", timeout=8)
    assert time.monotonic() - began < 300
    kept = tmp_path / "out" / "report.ipynb"
    assert outputs(kept).startswith("before")
    assert "it exceeded its timeout" in kept.with_suffix(".html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_time_is_for_all_cells_together(run):
    with pytest.raises(NotebookTimedOut):
        run(*["import time; time.sleep(1.5)"] * 6, timeout=4)


@pytest.mark.slow
def test_a_cell_that_cannot_be_interrupted_is_stopped_too(run):
    with pytest.raises(NotebookTimedOut):
        run(
            "import signal, time\n"
            "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
            "time.sleep(600)",
            timeout=4,
        )


def test_a_kernel_that_dies_is_told_from_a_cell_that_raises(run, tmp_path):
    with pytest.raises(NotebookFailed, match="lost its kernel in cell 2: Kernel died"):
        run("import os; os._exit(9)")
    assert (tmp_path / "out" / "report.html").exists()


SECRET = "p'a\"s\\s <wörd> & more"


def test_a_secret_stands_nowhere_however_it_is_quoted(run, tmp_path):
    """It comes from the environment and gets into the text of an exception, as keys do."""
    os.environ["TEST_SECRET"] = SECRET
    try:
        with pytest.raises(NotebookFailed) as caught:
            run(
                "import html, json, os\nfrom IPython.display import HTML, JSON\n"
                "secret = os.environ['TEST_SECRET']\n"
                "print(secret, repr(secret), json.dumps(secret)); HTML(html.escape(secret))",
                "from aico_lab.charts.picture import quoted\n"
                "HTML(quoted(html.escape(secret, quote=False)))",
                "secret",
                "raise ValueError(f'cannot open with {secret}')",
                secrets=["", "short", SECRET],
            )
    finally:
        del os.environ["TEST_SECRET"]
    assert "ValueError: cannot open with •••;" in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    for path in (tmp_path / "out").iterdir():
        text = path.read_text(encoding="utf-8")
        assert "wörd" not in text
        assert "w\\u00f6rd" not in text
        assert "w%C3%B6rd" not in text
        assert text.count("•••") >= 6


PYTEST = "PYTEST_CURRENT_TEST"
SCRIPT = """
import sys
from pathlib import Path
from aico_lab.reports.runner import run_notebook
run_notebook(Path(sys.argv[1]), parameters={}, destination=Path(sys.argv[2]), title="T", timeout=60)
"""


def test_a_run_prints_nothing_even_when_the_notebook_does(tmp_path):
    """Child processes of a kernel write to the kernel's own standard output, which is ours."""
    notebook = write_notebook(
        tmp_path / "n.ipynb",
        "import os; os.system('echo child; echo child >&2'); os.write(1, b'raw')",
        "import logging, warnings; warnings.warn('careful'); logging.error('oh'); print('said')",
    )
    (tmp_path / "out").mkdir()
    # ipykernel does not catch what child processes print while this variable is there.
    environment = {name: value for name, value in os.environ.items() if name != PYTEST}
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", SCRIPT, notebook, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert ran.stdout == ""
    assert ran.stderr == ""
    assert "child" in outputs(tmp_path / "out" / "n.ipynb")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_the_run_stops_the_kernel(tmp_path, number):
    pid_file = tmp_path / "pid"
    notebook = write_notebook(
        tmp_path / "n.ipynb",
        f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)",
    )
    (tmp_path / "out").mkdir()
    running = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, notebook, tmp_path / "out"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        umask=0o077,
    )
    wait_until(lambda: pid_file.exists() and pid_file.read_text())
    running.send_signal(number)
    assert running.wait(timeout=120) != 0
    wait_until(lambda: not alive(int(pid_file.read_text())))
    left = list((tmp_path / "out").rglob("*"))
    assert [path for path in left if path.stat().st_mode & 0o077] == []
    assert number != signal.SIGKILL or "README" in {path.name for path in left}


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(holds, seconds=120):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def test_a_withheld_value_is_in_no_file_of_the_run(run):
    declared = "user: str | None = None  # one\nchannel: str | None = None  # one\ndays: int = 1"
    result = run(
        "print(len(user), channel)",
        declared=declared,
        parameters={"user": "the id of 'Ada'", "days": 5},
        withheld=("user", "channel"),
    )
    assert outputs(result.notebook) == "15 None\n"
    for file in (result.notebook, result.html):
        text = file.read_text(encoding="utf-8")
        assert "Ada" not in text
        assert "•••" in text
    (cell,) = (
        cell
        for cell in nbformat.read(result.notebook, as_version=4).cells
        if "injected-parameters" in cell.metadata.get("tags", [])
    )
    assert "days = 5" in cell.source
    assert "channel = None" in cell.source
