"""The command line in the hands of a shell: streams, encodings, signals, folders, completion."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from typer.core import TyperGroup

import aico_lab
from aico_lab.cli import _KEPT
from aico_lab.cli.app import app
from aico_lab.cli.common import as_typed
from aico_lab.cli.streams import _replace
from aico_lab.lab import Lab
from aico_lab.schema import SchemaRegistry, SchemaVersion, register_schema
from aico_lab.schema.migrate import Migration
from tests.messages import add, message
from tests.test_cli import mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Homes

PYTHON = shlex.quote(sys.executable)


@pytest.fixture(scope="module")
def synced_home(tmp_path_factory: pytest.TempPathFactory, homes: Homes) -> Path:
    """A home without encryption, so that no key has to be found, with a few messages."""
    folder = tmp_path_factory.mktemp("synced") / "home"
    homes.open(folder, "none", messages=20, synced=True).close()
    return folder


@pytest.fixture
def shell(synced_home, tmp_path):
    """A line of bash in which `$LAB` is the program and `$HOME_` its home."""

    def run(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        names = {"LAB": f"{PYTHON} -m aico_lab", "HOME_": f"--home {synced_home}"}
        return subprocess.run(
            ["bash", "-c", line.replace("$LAB", names["LAB"]).replace("$HOME_", names["HOME_"])],
            capture_output=True, check=False, cwd=tmp_path, timeout=120,
            env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
        )  # fmt: skip

    return run


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_stops_nothing(shell, synced_home, closed):
    """Nor does a database get its number, and what a library prints into it."""
    with Lab.open(synced_home) as lab:
        before = lab.generation
    process = shell(f"$LAB sync --full $HOME_ {closed}")
    assert (process.returncode, process.stderr) == (0, b"")
    with Lab.open(synced_home) as lab:
        assert lab.generation == before + 1


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--help", "info $HOME_", 'sql "FROM range(100000)" $HOME_'])
def test_a_full_device_is_one_sentence(shell, command, unbuffered):
    process = shell(f"$LAB {command} > /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert process.returncode == 1
    assert process.stderr == (
        b"aico-lab: The output cannot be written (No space left on device).\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("refusing", ["2> /dev/full", "2> >(exec 0<&-; sleep 9)"])
def test_notes_that_nobody_takes_stop_nothing(shell, tmp_path, homes, refusing, unbuffered):
    """Neither an import, of which there is a note before it begins, nor the report of an error."""
    homes.open(tmp_path / "own", "none").close()
    rows = ("time,author,text", "2026-01-02 10:00,Ann,hi", "2026-01-02 10:01,Zed,Hello!")
    (tmp_path / "chat.csv").write_text("\n".join(rows))
    wait = "sleep 0.2; " if ">(" in refusing else ""
    own, unbuffered = f"--home {tmp_path / 'own'}", {"PYTHONUNBUFFERED": unbuffered}
    line = f"{{ {wait}$LAB import chat.csv --companion Zed {own}; }} {refusing}"
    process = shell(line, **unbuffered)
    assert (process.returncode, process.stdout.splitlines()[:1]) == (
        0, [b"2 messages added, 0 stored already."]
    )  # fmt: skip
    assert (
        shell(f"{{ {wait}$LAB import none.csv {own}; }} {refusing}", **unbuffered).returncode == 1
    )
    assert shell(f"{{ {wait}$LAB import; }} {refusing}", **unbuffered).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_stops_is_told_nothing(shell, unbuffered):
    process = shell(
        'set -o pipefail; $LAB sql "FROM range(100000)" --json $HOME_ | head -c 10',
        PYTHONUNBUFFERED=unbuffered,
    )
    # As of every program that the signal for a broken pipe ends.
    assert (process.returncode, process.stdout, process.stderr) == (141, b'[{"range":', b"")


@pytest.mark.slow
def test_what_an_encoding_lacks_is_replaced_in_text_and_escaped_in_json(shell):
    query = "SELECT chr(228) || chr(1078) AS a"
    text = shell(f'$LAB sql "{query}" $HOME_', PYTHONIOENCODING="latin-1")
    assert (text.returncode, text.stderr) == (0, b"")
    assert "| ä?" in text.stdout.decode("latin-1")
    wide = "SELECT '日本 → ' || 'e' || chr(769) || repeat('…', 3) AS a, 1 AS b"
    table = shell(f'$LAB sql "{wide}" $HOME_', PYTHONIOENCODING="latin-1").stdout.decode("latin-1")
    assert len({len(line) for line in table.splitlines()}) == 1
    told = shell(f'$LAB sql --json "{query}" $HOME_', PYTHONIOENCODING="latin-1")
    assert json.loads(told.stdout) == [{"a": "äж"}]


def test_bytes_of_a_file_name_that_are_no_text_are_written_as_they_are():
    name = os.fsdecode(b"h\xe9")
    error = UnicodeEncodeError("utf-8", name, 1, 2, "surrogates not allowed")
    assert _replace(error) == (b"\xe9", 2)


@pytest.mark.slow
def test_a_deleted_working_folder_is_one_sentence_where_it_is_needed(shell, tmp_path):
    (tmp_path / "gone").mkdir()
    deleted = f"cd gone && rmdir {tmp_path}/gone && "
    assert shell(f"{deleted} $LAB info $HOME_").returncode == 0
    (tmp_path / "gone").mkdir()
    process = shell(f"{deleted} $LAB info --home here")
    assert process.returncode == 1
    assert process.stderr == (
        b"aico-lab: The working directory was deleted: change to another one and try again.\n"
    )


@pytest.mark.slow
def test_control_c_says_in_a_sentence_what_was_kept(aico_lab, home, tmp_path):
    """Early, in the middle, and in the middle of a query."""
    aico_lab("init", "--no-encryption")
    aico_lab("sync")
    lines = [
        {"content": f"message {i}", "timestamp": "2024-05-01T10:00:00Z"} for i in range(60_000)
    ]
    file = tmp_path / "m.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    endless = "SELECT count(*) FROM range(1000000000000) WHERE hash(range) = 3"

    def stopped(*arguments: str) -> str:
        command = [sys.executable, "-m", "aico_lab", *arguments, "--home", str(home)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        return errors

    assert stopped("sql", endless) == "aico-lab: Stopped: nothing was changed.\n"
    assert stopped("import", "jsonl", str(file)) == (
        "aico-lab: Stopped: every batch that was stored is kept; run it again to add the rest.\n"
    )
    with Lab.open(home) as lab:
        (count,) = lab.primary.fetch_one("SELECT count(*) FROM messages")
    assert count % 10_000 == 0


@pytest.mark.slow
def test_control_c_while_threads_write_is_no_fault(home, tmp_path):
    """They were still at work when Python had ended; a few moments do not get through to it."""
    with Lab.create(home) as lab:
        lab.sync()
    query = "SELECT range AS a FROM range(100000000)"
    command = [sys.executable, "-m", "aico_lab", "sql", query, "--home", str(home), "--output"]
    for number in range(3):
        file = tmp_path / f"{number}.csv"
        with subprocess.Popen([*command, str(file)], stderr=subprocess.PIPE, text=True) as process:
            time.sleep(1 + number / 5)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=100)
        assert process.returncode in {0, 130}, errors
        assert file.exists() == (process.returncode == 0)
        file.unlink(missing_ok=True)


READERS = {
    "bench cache", "bench etl", "bench federation", "bench import", "bench metrics",
    "bench personality", "bench report", "bench start", "bench storage", "bench vectors",
    "cache get", "cache keys", "cache stats", "device list", "doctor", "federate conflicts",
    "federate log", "federate status", "info", "keys status", "knowledge list", "metrics list",
    "metrics show", "personality show", "personality status", "pipeline check", "pipeline list",
    "pipeline runs", "pipeline show", "report diff", "report list", "report open", "report show",
    "schedule list", "schedule status", "schema describe", "schema status", "schema verify",
    "sources", "sql", "verify",
}  # fmt: skip
"""The commands that change nothing in a home."""


def commands(group: TyperGroup, before: str = "") -> Iterator[str]:
    """Yield all commands of a group with the names of their groups."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{name} ")
        else:
            yield f"{before}{name}"


def test_a_stopped_command_tells_what_was_kept_if_it_writes():
    """Each command either says so, or changes nothing in a home."""
    every = [*commands(typer.main.get_group(app))]
    assert sorted(every) == sorted([*READERS, *_KEPT])


@pytest.mark.slow
def test_control_c_between_two_versions_of_a_plugin_says_what_is_kept(cli, lab, monkeypatch):
    """The first version stays applied."""
    versions = {
        number: SchemaVersion(
            version=number,
            name=f"Version {number}",
            description="A table.",
            sql_statements=[f"CREATE TABLE knots_{number} (id INTEGER PRIMARY KEY)"],
            rollback_statements=[f"DROP TABLE knots_{number}"],
        )
        for number in (1, 2)
    }
    registry = SchemaRegistry.default
    monkeypatch.setattr(registry, "_schemas", dict(registry._schemas))
    register_schema("knots", "plugin")(versions)
    move = Migration._move

    def until_the_second(migration, schema, number, direction):
        if schema.name == "knots" and number == 2:
            signal.raise_signal(signal.SIGINT)
        return move(migration, schema, number, direction)

    monkeypatch.setattr(Migration, "_move", until_the_second)
    stopped = cli("schema", "activate", "knots")
    assert stopped.returncode == 130
    assert stopped.stderr == (
        "aico-lab: Stopped: a version is applied as a whole or not at all; run it again to "
        "continue.\n"
    )
    tables = "SELECT name FROM sqlite_master WHERE name GLOB 'knots_*'"
    assert lab.primary.fetch_all(tables) == [("knots_1",)]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError])
def test_what_a_library_makes_of_control_c_is_told_as_such(in_process, monkeypatch, raised):
    def run(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise raised("a library's own words") from None

    monkeypatch.setattr("aico_lab.cli.invoke.app", lambda *_, **__: run())
    process = in_process("sync")
    assert (process.returncode, process.stdout) == (130, "")
    assert process.stderr == (
        "aico-lab: Stopped: the last snapshot is intact; run it again to continue.\n"
    )


WRONG = [
    (["syn"], "No such command 'syn'. Did you mean 'sync'?"),
    (["sync", "--ful"], "No such option: --ful. Did you mean --full?"),
    (["import"], "Missing argument 'FILE' (see `aico-lab import --help`)."),
    (["sync", "more"], "(see `aico-lab sync --help`)."),
    (["import", "jsonl", "--limit", "many"], "Invalid value for '--limit': "),
    (["import", "jsonl", "--limit", "0"], "Invalid value for '--limit': "),
    (["sync", "--on-change", "bogus"], "'bogus' is not one of 'evolve', 'freeze', 'ignore'"),
    (["metrics", "show", "turns", "--role", "me"], "'me' is not one of 'user', 'assistant'"),
    (["sql", "SELECT 1", "--timezone", "Europe/Berln"], "did you mean Europe/Berlin"),
    (["metrics", "list", "reply_latenci"], "did you mean reply_latency?"),
    (["metrics", "list", "wrds"], "did you mean frequent_words or "),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_arguments_are_one_sentence(in_process, arguments, words):
    process = in_process(*arguments)
    assert (process.returncode, process.stdout, process.stderr.count("\n")) == (2, "", 1)
    assert process.stderr.startswith("aico-lab: ")
    assert words in process.stderr


def test_a_group_of_commands_shows_what_there_is(in_process):
    process = in_process("metrics")
    assert process.returncode == 2
    assert "Commands:" in process.stderr


def test_the_version_is_that_of_the_package(in_process):
    process = in_process("--version")
    assert process.returncode == 0
    assert re.fullmatch(r"aico-lab \d+\.\d+\.\d+\n", process.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sy", "sync"),
        ("sync --on-", "--on-change"),
        ("metrics show reply", "reply_latency"),
        ("metrics show turns --timezone Europe/Berl", "Europe/Berlin"),
        ("report run pat", "pattern_analysis"),
        ("pipeline run n", "nightly"),
        ("import json", "jsonl"),
        ("report run --home {home} min", "mine"),
        ("import --home {home} mon", "monthly"),
        ("report run --home {home}/missing pat", "pattern_analysis"),
    ],
)
def test_the_shell_completes_commands_options_and_names(typed, offered, tmp_path):
    for name in ("notebooks/mine.ipynb", "sources/monthly.toml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    words = f"aico-lab {typed.format(home=tmp_path)}"
    process = subprocess.run(
        [sys.executable, "-m", "aico_lab"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "_AICO_LAB_COMPLETE": "complete_bash",
             "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
    )  # fmt: skip
    assert process.stdout.split() == [offered], process.stderr


def test_commands_are_told_as_they_can_be_typed(monkeypatch, tmp_path):
    """By the name where the shell finds this program under it, else as it was called."""
    monkeypatch.setenv("PATH", str(tmp_path))
    script = tmp_path / "an environment/bin/aico-lab"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    for called, told in ((str(script), shlex.quote(str(script))), ("aico-lab", "aico-lab")):
        monkeypatch.setattr("aico_lab.cli.common.sys.argv", [called])
        assert as_typed("run `aico-lab sync` first") == f"run `{told} sync` first"


@pytest.mark.parametrize(
    ("given", "told", "printed"),
    [
        (["--home", "my home"], "run `aico-lab sync` next", "run `aico-lab sync --home 'my home'`"),
        (["--home=h"], "`aico-lab init` or `aico-lab import FILE`",
         "`aico-lab init --home h` or `aico-lab import FILE --home h`"),
        (["--key-file", "k", "--home", "h"], "`aico-lab sync --full`",
         "`aico-lab sync --full --key-file k --home h`"),
        (["--home", "h"], "`aico-lab sql --home other`", "`aico-lab sql --home other`"),
        (["--home", "h"], "`aico-lab schema migrate`", "`aico-lab schema migrate --home h`"),
        (["--home", "h"], "see `aico-lab bench`", "see `aico-lab bench`"),
        (["--home", "h"], "see `aico-lab sync --help`", "see `aico-lab sync --help`"),
        (["--", "--home", "h"], "`aico-lab sync`", "`aico-lab sync`"),
        ([], "`aico-lab sync`", "`aico-lab sync`"),
    ],
)  # fmt: skip
def test_commands_are_told_with_the_home_that_was_named(monkeypatch, given, told, printed):
    """Once each, and only where the command takes one; a home of the environment stays there."""
    monkeypatch.setenv("AICO_LAB_HOME", "elsewhere")
    monkeypatch.setattr("aico_lab.cli.common.sys.argv", ["aico-lab", "import", "f", *given])
    assert as_typed(told).startswith(printed)


def test_the_command_after_an_import_works_as_it_is_printed(shell, tmp_path):
    """In a home that the environment does not name, and also as advice on an error."""
    line = json.dumps({"content": "hello", "timestamp": "2026-03-01T10:00:00Z"})
    (tmp_path / "m.jsonl").write_text(line)
    home = "--home 'a home' --key-file key"
    assert shell(f"$LAB init {home}").returncode == 0
    imported = shell(f"$LAB import jsonl m.jsonl {home}")
    commands = re.findall("`([^`]+)`", imported.stdout.decode())
    assert len(commands) == 2, imported
    missing = shell(f"$LAB sql 'FROM raw.messages' {home}").stderr.decode()
    assert re.findall("`([^`]+)`", missing)[0] == commands[0]
    assert shell(commands[0]).returncode == 0
    assert b"hello" in shell(f"$LAB sql 'FROM raw.messages' {home}").stdout


@pytest.mark.slow
def test_a_time_zone_may_be_written_in_any_case(in_process, synced_home):
    home = ["--home", str(synced_home)]
    query = "SELECT '2024-03-01 12:00:00+00'::TIMESTAMPTZ::VARCHAR AS t"
    told = in_process("sql", "--json", query, "--timezone", "america/new_york", *home)
    assert json.loads(told.stdout) == [{"t": "2024-03-01 07:00:00-05"}]
    shown = in_process("metrics", "show", "turns", "--timezone", "europe/berlin", *home)
    assert "days and hours of Europe/Berlin" in shown.stdout


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's mount")
@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_a_home_that_cannot_be_written_can_be_read(in_process, tmp_path, request, killed):
    """Also where a writer was killed there, so that its log has to be applied in a copy."""
    disk = tmp_path / "disk"
    mount(disk, "size=2g", request)
    home, key = disk / "home", tmp_path / "key"
    with Lab.create(home, key_file=key) as lab:
        add(lab.primary, *map(message, range(10)))
        lab.sync()
    if killed:
        program = (
            "import os, sys\nfrom aico_lab.lab import Lab\n"
            "from tests.messages import add, message\n"
            "lab = Lab.open(sys.argv[1], key_file=sys.argv[2])\n"
            "add(lab.primary, message(10)); os._exit(0)"
        )
        subprocess.run([sys.executable, "-c", program, home, key], check=True)
        assert (home / "aico.db-wal").stat().st_size > 0
    rows = 11 if killed else 10
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    options = ("--home", str(home), "--key-file", str(key))

    def told(*command: str):
        process = in_process(*command, "--json", *options)
        assert (process.returncode, process.stderr) == (0, "")
        return json.loads(process.stdout)

    assert told("info")["rows"]["messages"] == rows
    assert told("verify")["ok"]
    assert {schema["state"] for schema in told("schema", "status")} == {"up to date"}
    assert told("schema", "verify")["ok"]
    assert told("doctor")
    assert in_process("import", "chitchat", "--limit", "5", *options).returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's mount")
def test_an_installation_and_a_person_that_cannot_be_written_are_enough(tmp_path):
    """Numba finds no place for what it compiles."""
    package = Path(aico_lab.__file__).parent
    person = tmp_path / "person"
    person.mkdir()
    folders = " ".join(shlex.quote(str(folder)) for folder in (package, person))
    script = (
        f"for folder in {folders}; do mount --bind $folder $folder"
        " && mount -o remount,ro,bind $folder || exit 77; done\n"
        f"exec {PYTHON} -B -c 'import aico_lab.etl.record_format'"
    )
    process = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        capture_output=True, text=True, check=False,
        env={**os.environ, "HOME": str(person), "NUMBA_CACHE_DIR": ""},
    )  # fmt: skip
    if process.returncode == 77 or "unshare" in process.stderr:
        pytest.skip("may not mount a file system here")
    assert process.returncode == 0, process.stderr


@pytest.mark.slow
def test_a_query_in_utf_8_is_read_in_a_locale_without_it(shell):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0"}
    for encoding in ("latin-1", "utf-8"):
        told = shell(
            "$LAB sql --json \"SELECT 'é日本' AS x\" $HOME_", PYTHONIOENCODING=encoding, **plain
        )
        assert (told.returncode, told.stderr) == (0, b"")
        assert json.loads(told.stdout) == [{"x": "é日本"}]
    refused = shell("$LAB sql \"SELECT '$(printf '\\377')' AS x\" $HOME_", **plain)
    assert refused.returncode == 2
    assert b"bytes that are not UTF-8" in refused.stderr
