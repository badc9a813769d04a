"""The README tells the truth: its commands exist, its examples run, what it imports is exported."""

from __future__ import annotations

import configparser
import contextlib
import inspect
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
import zipfile
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
import typer

from aico_lab import config
from aico_lab.cli.app import ORDER, app
from aico_lab.lab import Lab
from aico_lab.sources.exports import FORMATS
from tests.test_knowledge import pdf

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    (language, text)
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]
COMMON = {"--home", "--key-file", "--json", "--help"}
NOT_RUN = ("python3 -m venv ", ". .venv/", "aico-lab lab")

PACKAGES = (
    "aico_lab",
    "aico_lab.domain",
    "aico_lab.etl",
    "aico_lab.metrics",
    "aico_lab.reports",
    "aico_lab.sources",
)


def commands() -> dict[str, Any]:
    """Every command by its full name; a group's name alone is none."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        for child, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{name} {child}".strip())
        if not hasattr(command, "commands"):
            yield name, command

    return dict(walk(typer.main.get_command(app), ""))


COMMANDS = commands()


def options_of(name: str) -> list[tuple[str, ...]]:
    """The names of each option, without those that are the same everywhere."""
    options = [tuple(one.opts) for one in COMMANDS[name].params if one.param_type_name == "option"]
    return [one for one in options if not COMMON.intersection(one)]


def names_of_options(command: str) -> set[str]:
    """Every name of an option, such as `--day-first` and `--month-first`."""
    return {one for p in COMMANDS[command].params for one in (*p.opts, *p.secondary_opts)}


def command_named_by(words: list[str]) -> str | None:
    """The command with which these words begin."""
    return next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), None)


def rows() -> dict[str, str]:
    """Each command of the reference with the text of its row."""
    _, _, reference = README.partition("### Commands\n")
    table, _, _ = reference.partition("\n### ")
    found: dict[str, str] = {}
    for line in table.splitlines():
        if not line.startswith("| `"):
            continue
        named, _, text = line.strip("| ").partition(" | ")
        for call in re.findall(r"`([^`]+)`", named):
            name = command_named_by(call.split())
            assert name, f"no command is called {call!r}"
            assert name not in found, f"{name} has two rows"
            found[name] = f"{named} {text}"
    return found


ROWS = rows()


def named_options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])(?:--[a-z][a-z-]*|-[a-z]\b)", text))


def test_every_command_has_a_row_of_the_reference():
    """And no row is about a command that does not exist."""
    assert sorted(ROWS) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_row_names_the_options_of_its_commands_and_no_others(name):
    """Common options stand below the table."""
    together = [other for other, row in ROWS.items() if row == ROWS[name]]
    named = named_options(ROWS[name])
    for option in options_of(name):
        assert named.intersection(option), f"the row of {name} does not name {option}"
    known = {
        one
        for other in together
        for p in COMMANDS[other].params
        for one in (*p.opts, *p.secondary_opts)
    }
    assert named <= known


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_help_of_a_command_explains_each_option_and_argument(name):
    """Also the options of the program itself, which the README names below the table."""
    command = COMMANDS[name] if name else typer.main.get_command(app)
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", ""), f"{name} {parameter.name}"
        if not name:
            assert f"`aico-lab {parameter.opts[0]}`" in README or parameter.opts[0] in README


def texts_of_help() -> Iterator[tuple[str, str]]:
    """The text of each argument and option, with the name of its command."""
    for name, command in COMMANDS.items():
        for one in command.params:
            yield f"{name} {one.name}", getattr(one, "help", "") or ""


@pytest.mark.parametrize(
    "group", ["", "metrics", "report", "pipeline", "schedule", "keyring", "schema", "bench"]
)
def test_no_summary_of_a_command_is_cut_off_at_80_columns(group, in_process, monkeypatch):
    """In the list of commands, which shows the first sentence of each."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = in_process(*group.split(), "--help").stdout
    _, _, listed = shown.partition("Commands:\n")
    lines = listed.strip().splitlines()
    assert len(lines) > 1
    assert all(line.endswith(".") and not line.endswith("...") for line in lines), listed


def test_commands_are_listed_as_a_new_user_needs_them(in_process):
    _, _, listed = in_process("--help").stdout.partition("Commands:\n")
    names = [line.split()[0] for line in listed.strip().splitlines()]
    assert names == list(ORDER)
    assert names[:4] == ["demo", "init", "import", "sync"]


def test_texts_of_help_have_one_grammar():
    """A flag has a verb ("Replace ..."), a value a noun ("The file ..."); each ends in a stop."""
    for name, text in texts_of_help():
        assert re.match(r"[A-Z]", text), name
        assert text.endswith("."), name
    for name, command in COMMANDS.items():
        for one in command.params:
            if one.param_type_name == "argument" or not getattr(one, "is_flag", False):
                assert re.match(r"(The|A|An) ", one.help), f"{name} {one.name}"


def test_common_options_are_options_of_the_commands_that_the_readme_says():
    """`--home` where a home is used, `--key-file` where it is decrypted, `--json` if it ends."""

    def having(option: str) -> set[str]:
        return {n for n, c in COMMANDS.items() if any(option in one.opts for one in c.params)}

    needs_no_home = {name for name in COMMANDS if name.startswith("bench ")}
    needs_no_home |= {name for name, row in ROWS.items() if "Needs no home" in row}
    assert having("--home") == COMMANDS.keys() - needs_no_home
    assert having("--key-file") == COMMANDS.keys() - needs_no_home - {
        "demo",
        "pipeline list",
        "schedule uninstall",
        "keyring add",
        "keyring remove",
    }
    assert having("--json") == COMMANDS.keys() - {"lab", "schedule run", "federate serve"}


def test_every_format_of_an_export_has_a_row_that_says_how_to_get_it():
    """As `aico-lab sources` says it."""
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    for name, (description, how) in FORMATS.items():
        row = f"| `{name}` | {description} | {' '.join(how.split())} |"
        assert row in rows


def test_no_command_or_option_of_the_text_is_made_up():
    """Wherever the README calls the program, in a block or a sentence."""
    calls = re.findall(r"`(?:\.venv/bin/)?aico-lab ([^`]+)`", README)
    for language, text in BLOCKS:
        if language == "sh":
            calls += re.findall(r"(?:^|/)aico-lab (.*)$", text, re.MULTILINE)
    assert len(calls) > 20
    general = {one for p in typer.main.get_command(app).params for one in p.opts}
    for call in calls:
        words = shlex.split(call, comments=True)
        if words[0] in general or words[0] == "COMMAND":
            continue
        name = command_named_by(words)
        assert name, f"`aico-lab {call}`: there is no such command"
        known = {
            one
            for parameter in COMMANDS[name].params
            for one in (*parameter.opts, *parameter.secondary_opts)
        }
        given = {word for word in words if word.startswith("-")}
        assert given <= known | general, f"`aico-lab {call}`: there is no such option"


def test_every_variable_of_the_environment_is_named():
    read = {value for name, value in vars(config).items() if name.endswith("_VARIABLE")}
    assert set(re.findall(r"AICO_LAB_[A-Z_]+", README)) == read


def test_links_within_the_readme_lead_somewhere():
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
    for file in re.findall(r"\]\((?!#|http)([^)]+)\)", README):
        assert (ROOT / file).exists(), file


def test_prose_is_at_most_100_characters_wide_and_items_are_indented():
    """Tables and blocks of code have the lines that they need."""
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    indent = 0  # of the lines that continue an item
    for line in prose.splitlines():
        item = re.match(r"(- |\d+\. )", line)
        if not line or line.startswith(("|", "#")):
            indent = 0
        elif item:
            indent = len(item[1])
        else:
            assert re.match(" " * indent + r"\S", line), line
        assert len(line) <= 100 or line.startswith("|"), line


def test_the_tree_names_every_module_and_folder():
    """One that is added needs a line, by which a stranger finds it."""
    _, _, after = README.partition("### Where things are\n")
    tree, _, table = after.partition("```\n")[2].partition("```\n")
    lines = [re.split(r"  +", line.strip())[0] for line in tree.splitlines()]
    named = set(re.findall(r"[\w.]+", " ".join(lines)))
    package = ROOT / "aico_lab"
    there = {*package.glob("[!_]*.py"), *(package / "metrics").glob("[!_]*/")}
    there |= {path.parent for path in package.glob("*/__init__.py")}
    assert {path.name for path in there if path.name != "__pycache__"} <= named
    for path in re.findall(r"`([a-z][a-z_/]*(?:/|\.py))`", table.partition("### Extending")[0]):
        found = (folder / path for folder in (package, ROOT, package / "sources" / "exports"))
        assert any(one.exists() for one in found), path


def test_each_part_of_a_lab_is_in_the_module_of_its_name():
    """As `lab.metrics` in `metrics/lab_metrics.py`, so that the tree shows where a part is."""
    package = ROOT / "aico_lab"
    parts = {name for name, part in vars(Lab).items() if isinstance(part, cached_property)}
    assert {path.stem.removeprefix("lab_") for path in package.rglob("lab_*.py")} == parts


def installed_from_the_readme(folder: Path) -> Path:
    """Put the files of the blocks that name one into a folder, as pip would install them."""
    files = {
        file: text for _, text in BLOCKS for file in re.findall(r"\A# (lab-telegrams/\S+)\n", text)
    }
    project = tomllib.loads(files.pop("lab-telegrams/pyproject.toml"))["project"]
    for file, text in files.items():
        target = folder / Path(file).relative_to("lab-telegrams")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    info = folder / f"lab_telegrams-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = configparser.ConfigParser()
    points.read_dict(project["entry-points"])
    with (info / "entry_points.txt").open("w") as file:
        points.write(file)
    return folder


def own_files(folder: Path) -> None:
    """What the examples read: two people's conversations, a shop, notebooks, telegrams."""
    lines = [
        {
            "content": f"{'a cat' if day % 2 else 'a good dog'}, day {day}: {said}",
            "timestamp": f"2024-05-{day:02}T{10 + turn}:0{minute}:00Z",
            "user_id": user,
            "role": role,
        }
        for day in range(1, 29)
        for turn, user in enumerate(("ada", "bob"))
        for minute, role, said in ((0, "user", "how are you?"), (1, "assistant", "fine, thanks"))
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "messages.jsonl").write_text(text, encoding="utf-8")
    with zipfile.ZipFile(folder / "chatgpt-export.zip", "w") as export:
        sample = ROOT / "tests" / "exports" / "chatgpt_conversations.json"
        export.write(sample, "conversations.json")
    shutil.copy(ROOT / "tests" / "exports" / "telegram_result.json", folder / "result.json")
    (folder / "WhatsApp Chat with Otto.txt").write_text(
        "03.05.25, 21:05 - Ada: Good evening!\n03.05.25, 21:07 - Otto: Hello, Ada.\n",
        encoding="utf-8",
    )
    (folder / "chat.csv").write_text(
        "Datum;Von;Text\n13.05.2024 21:05;Ada;Guten Abend!\n13.05.2024 21:07;Otto;Hallo, Ada.\n",
        encoding="utf-8",
    )
    (folder / "notes.md").write_text("# Plants\nThe fern likes shade.\n", encoding="utf-8")
    (folder / "handbook.pdf").write_bytes(pdf("Water the fern on Mondays"))
    with sqlite3.connect(folder / "shop.db") as shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, updated_at TIMESTAMP)")
        shop.execute("INSERT INTO orders VALUES (1, '2024-05-01T12:00:00Z')")
    shop.close()
    for name, parameters, question in (
        ("my", "days: int = 30  # what it is", "from aico_lab import Lab; print(Lab.open())"),
        (
            "pattern_analysis",
            'since: str | None = None\nchannel: str | None = None\ntimezone: str = "UTC"',
            "print(since, channel)",
        ),
        ("data_quality", "stale_days: int = 7", "print(stale_days)"),
        (
            "review",
            'period: str | None = None\ncompanion: str = ""\ntimezone: str = "UTC"',
            "print(period, companion)",
        ),
    ):
        declared = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(cells=[declared, nbformat.v4.new_code_cell(question)])
        nbformat.write(notebook, folder / f"{name}.ipynb")
    telegrams = [{"text": "ARRIVED STOP", "sent": "2024-05-01T12:00:00Z", "by": "ada"}]
    (folder / "telegrams.json").write_text(json.dumps(telegrams), encoding="utf-8")


def example_calls() -> Iterator[list[str]]:
    """Every line of shell and every block of Python that is to be run, in order."""
    for language, text in BLOCKS:
        if language == "sh":
            for line in text.splitlines():
                if not line.startswith(NOT_RUN):
                    yield ["sh", "-eu", "-c", line]
        elif language == "python" and not text.startswith("# lab-telegrams/"):
            yield [sys.executable, "-c", text]


@pytest.mark.slow
def test_the_examples_run_from_top_to_bottom(tmp_path):
    """As a person types them, in a shell and in Python, on one home."""
    own_files(tmp_path)
    site = installed_from_the_readme(tmp_path / "site")
    program = tmp_path / "bin" / "aico-lab"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m aico_lab "$@"\n')
    program.chmod(0o700)
    environment = {
        **os.environ,
        "AICO_LAB_HOME": str(tmp_path / "home"),
        "BROWSER": "true",  # the program that opens no page
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)]),
    }
    with contextlib.ExitStack() as stack:
        run_examples(tmp_path, environment, stack)
    for made in ("messages.parquet", "sessions.png", "reply_latency.csv"):
        assert (tmp_path / made).stat().st_size


def run_examples(folder: Path, environment: dict[str, str], stack: contextlib.ExitStack) -> None:
    """Run every example; the one that waits for another device goes on meanwhile."""
    code = "1234-5678"
    for call in example_calls():
        if call[-1].startswith("aico-lab device add"):
            call[-1] = call[-1].replace("device add", "device add --yes")
            adding = subprocess.Popen(
                call, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
            )
            stack.enter_context(adding)
            stack.callback(adding.kill)  # if an example fails before the other device joins
            code = re.search(r"\d{4}-\d{4}", adding.stderr.readline())[0]
            continue
        call[-1] = call[-1].replace("1234-5678", code)
        process = subprocess.run(
            call, cwd=folder, env=environment, capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip
        assert process.returncode == 0, f"{call[-1]}\n{process.stderr}"
        if re.match(r"aico-lab init +#", call[-1]):
            # Short notebooks of these names, since those of the package have tests of their own.
            notebooks = folder / "home" / "notebooks"
            notebooks.mkdir()
            for name in ("pattern_analysis", "data_quality", "review"):
                shutil.copy(folder / f"{name}.ipynb", notebooks)
            shutil.copy(
                folder / "pattern_analysis.ipynb", notebooks / "embedding_exploration.ipynb"
            )


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_exports_is_sorted_explained_and_there(package):
    module = import_module(package)
    assert module.__all__ == sorted(module.__all__, key=_order)
    for name in module.__all__:
        exported = getattr(module, name)
        assert name in dir(module)
        if inspect.isclass(exported) or inspect.isroutine(exported):
            assert vars(exported).get("__doc__") or exported.__doc__, f"{package}.{name}"
            assert not str(exported.__doc__).startswith(f"{name}("), f"{package}.{name}"
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018 - it raises


def _order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, as RUF022 has it."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def test_what_the_readme_imports_is_exported():
    """In its Python blocks; other packages export what they export without a list here."""
    python = "\n".join(text for language, text in BLOCKS if language == "python")
    imports = re.findall(r"^from (aico_lab[\w.]*) import (.*)$", python, re.MULTILINE)
    assert imports
    for package, names in imports:
        assert {name.strip() for name in names.split(",")} <= set(import_module(package).__all__)
