"""Sources, metrics and notebooks that come from outside, as people add them: by installing them."""

import json
import os
import subprocess
import sys
import zipfile

import nbformat
import pytest

MODULE = '''
import json

from aico_lab.metrics import PEOPLE, Column, Parameter, metric
from aico_lab.sources import Source, batches_of

telegrams = Source(
    name="telegrams",
    description="a JSON list of telegrams",
    module="tiny_lab_addon",
    needs_path=True,
    unit="bytes",
)


def total(path, limit):
    return path.stat().st_size if limit is None else None


def read(path, *, limit):
    telegrams = json.loads(path.read_text())
    return batches_of(
        ({"content": one["text"], "timestamp": one.get("sent"), "user_id": one["by"]}
         for one in telegrams),
        limit=limit,
    )


@metric(
    domain="usage",
    question="How many messages are shouted?",
    source="none: an example",
    parameters=[Parameter("at_least", int, 3, "The fewest characters of such a message.")],
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "messages in capital letters"),
        PEOPLE,
    ],
    finding=lambda rows: f"{rows['n'].sum()} messages are shouted",
    chart=lambda answer: None,
)
def shouted(talk, *, at_least):
    """Messages of some length that have no small letter."""
    texts = talk.texts
    loud = texts.filter((texts.content.length() >= at_least)
                        & (texts.content == texts.content.upper()))
    return loud.group_by("role").agg(n=loud.count(), people=loud.user_id.nunique())


broken = "no metric at all"
'''

POINTS = """[aico_lab.sources]
telegrams = tiny_lab_addon:telegrams

[aico_lab.metrics]
broken = tiny_lab_addon:broken
missing = tiny_lab_addon_that_is_gone:metric
shouted = tiny_lab_addon:shouted
turns = tiny_lab_addon:shouted
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package, as pip installs it."""
    folder = tmp_path_factory.mktemp("addon")
    wheel = folder / "tiny_lab_addon-1-py3-none-any.whl"
    info = "tiny_lab_addon-1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_lab_addon.py", MODULE)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-lab-addon\nVersion: 1\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/entry_points.txt", POINTS)
        archive.writestr(f"{info}/RECORD", "")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps",
         "--disable-pip-version-check", "--target", str(folder / "site"), str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "site"


@pytest.fixture
def run(installed, tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(installed), *filter(None, sys.path)]),
        "AICO_LAB_HOME": str(tmp_path / "home"),
        "HOME": str(tmp_path),
    }

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "aico_lab", *arguments],
            env=environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    return run


def test_an_item_of_a_source_that_is_no_mapping_is_rejected():
    """And one with values that JSON does not have; the others are taken."""
    from aico_lab.sources import batches_of

    good = {"content": "hello", "timestamp": "2024-05-01T12:00:00Z"}
    (batch,) = batches_of([good, None, ["content"], "text", good | {"raw": b"x"}, good])
    assert [one.content for one in batch.messages] == ["hello", "hello"]
    assert [(one.line, one.reason) for one in batch.rejected] == [
        (2, "it is not a mapping of fields"),
        (3, "it is not a mapping of fields"),
        (4, "it is not a mapping of fields"),
        (5, "a field holds a value or a key that JSON does not have"),
    ]


@pytest.mark.slow
def test_a_package_adds_a_source_and_a_metric_and_a_person_a_notebook(run, tmp_path):
    file = tmp_path / "telegrams.json"
    file.write_text(
        json.dumps(
            [
                {"text": "ARRIVED STOP", "sent": "2024-05-01T12:00:00Z", "by": "ada"},
                {"text": "Well done.", "sent": "2024-05-01T12:01:00Z", "by": "bob"},
                {"text": "no time", "by": "bob"},
            ]
        )
    )
    assert run("init").returncode == 0
    imported = run("import", "telegrams", str(file), "--json")
    assert imported.returncode == 0, imported.stderr
    assert json.loads(imported.stdout)["added"] == 2
    assert run("sync").returncode == 0
    shown = run("metrics", "show", "shouted", "-p", "at_least=5", "--json")
    assert shown.returncode == 0, shown.stderr
    assert [row["n"] for row in json.loads(shown.stdout)["rows"]] == [1]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("from aico_lab import Lab\nLab.open().metrics.shouted()")]
    )
    own = tmp_path / "home" / "notebooks" / "mine.ipynb"
    own.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, own)
    reported = run("report", "run", "mine")
    assert reported.returncode == 0, reported.stderr
    assert "mine.html" in reported.stdout


def test_what_cannot_be_used_is_named_and_stops_nothing_else(run):
    listed = run("metrics", "list")
    assert listed.returncode == 0
    assert "shouted" in listed.stdout
    assert "How much does each side write in a turn?" in listed.stdout  # ours stays ours
    for name, reason in (("broken", "is not a metric of that name"), ("missing", "is_gone")):
        (said,) = [line for line in listed.stderr.splitlines() if f"'{name}'" in line]
        assert "tiny-lab-addon" in said
        assert reason in said
        assert "update that package or uninstall it" in said
        asked = run("metrics", "list", name)
        assert asked.returncode == 1
        assert reason in asked.stderr
    assert "shouted" in run("metrics", "list", "shoutd").stderr
