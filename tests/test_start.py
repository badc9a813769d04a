"""A command waits for no library that it does not use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from aico_lab.config import Settings
from aico_lab.lab import Lab

LIBRARIES = {
    *("altair", "chromadb", "duckdb", "ibis", "IPython", "jsonschema", "jupyter_client"),
    *("libsql_experimental", "nbformat", "numba", "numpy", "pandas", "papermill", "polars"),
    *("py3langid", "pyarrow", "rich", "ruptures", "scipy", "sqlglot", "vaderSentiment"),
    *("vl_convert", "wordllama"),
}
"""Those that take long to import."""

READING = {"duckdb", "libsql_experimental"}
QUESTIONS = READING | {"ibis", "numpy", "polars", "pyarrow", "rich", "sqlglot"}

PROGRAM = """
import sys
from aico_lab.cli import main
try:
    main()
finally:
    print(__import__("json").dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of a process in which commands find a home that is up to date."""
    folder = tmp_path_factory.mktemp("start")
    settings = Settings(home=folder / "home", key_file=folder / "home.key")
    with Lab.create(settings.home, key_file=settings.key_file) as lab:
        lab.import_from("chitchat", limit=200)
        lab.sync()
    return settings.environment()


def imported(environment, *arguments):
    """Run a command in a process of its own; return which of the libraries it imported."""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    *said, modules = process.stderr.splitlines()
    assert not said
    assert process.stdout
    return LIBRARIES.intersection(json.loads(modules))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "needed"),
    [
        (["--help"], set()),
        (["metrics", "--help"], set()),
        (["sql", "FROM raw.users"], READING),
        (["sync"], READING | {"numpy", "pyarrow"}),
        (["schedule", "list"], READING),
        (["metrics", "show", "overview"], QUESTIONS),
        (["metrics", "list"], QUESTIONS),
    ],
)
def test_a_command_imports_only_what_it_uses(command, needed, environment):
    """No chart library, no compiler and no kernel, where nothing is drawn, decoded or run."""
    assert imported(environment, *command) <= needed


def test_packages_that_people_import_from_import_no_library():
    """What they export is imported on first use."""
    program = (
        "import sys, aico_lab.domain, aico_lab.etl, aico_lab.metrics, aico_lab.reports\n"
        "import aico_lab.sources\n"
        "print(*sys.modules)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert not LIBRARIES.intersection(process.stdout.split())


def test_a_grammar_is_compiled_only_to_check_an_address():
    """In a process that has imported a part of this package; the check finds what it found."""
    program = (
        "import sys, aico_lab, jsonschema\n"
        "def is_compiled(): return 'rfc3987_syntax.syntax_helpers' in sys.modules\n"
        "files = [getattr(module, '__file__', None) for module in list(sys.modules.values())]\n"
        "print(is_compiled())\n"  # a kernel that starts asks all modules for their files
        "check = jsonschema.Draft202012Validator.FORMAT_CHECKER.conforms\n"
        "print(check('https://müller.example/straße', 'iri'), check('no address', 'iri'))\n"
        "print(is_compiled())\n"
        "import rfc3987_syntax\n"
        "print(rfc3987_syntax.parse('iri', 'a:b').data, hasattr(rfc3987_syntax, 'nothing'))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert process.stdout == "False\nTrue False\nTrue\niri False\n", process.stderr


@pytest.mark.slow
def test_a_chart_is_drawn_by_a_process_that_has_drawn_nothing(environment, tmp_path):
    """What draws imports the library, and the palette is ours."""
    chart = tmp_path / "chart.svg"
    command = ["metrics", "show", "weekly_activity", "--plot", str(chart)]
    aico_lab = [sys.executable, "-m", "aico_lab"]
    subprocess.run([*aico_lab, *command], check=True, capture_output=True, env=environment)
    assert "#0072B2" in chart.read_text(encoding="utf-8")


@pytest.mark.slow
def test_vocabulary_is_measured_where_numba_may_keep_nothing():
    """As in a read-only installation, for somebody whose home cannot be written either."""
    program = (
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from aico_lab.metrics.usage.lexical_diversity_mtld import _factors\n"
        "import numpy as np\n"
        "print(_factors(np.array([0, 0], np.int32), 0, 2, 1, np.zeros(1, np.int64), 1))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert process.stdout == "(1.0, 3)\n", process.stderr


@pytest.mark.slow
def test_everything_works_without_numba(tmp_path):
    """More slowly: it decodes pages and measures vocabulary, and nothing else needs it."""
    program = (
        "import sys\n"
        "sys.modules['numba'] = None\n"  # importing it raises ImportError
        "from aico_lab import Lab\n"
        "from tests.reading import reads\n"
        "from pathlib import Path\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "with Lab.create(folder / 'home', key_file=folder / 'key') as lab:\n"
        "    lab.import_from('chitchat', limit=500)\n"
        "    with reads(by_pages=True):\n"
        "        lab.sync()\n"
        "    assert lab.verify().ok\n"
        "    print(lab.metrics.lexical_diversity(min_words=10).pl()['n'].sum() > 0)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert process.stdout == "True\n", process.stderr
