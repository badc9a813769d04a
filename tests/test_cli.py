"""The command line as a person meets it: in a process of its own, from outside."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import typer

from aico_lab.lab import Lab
from aico_lab.reports.lab_reports import Reports, notebooks
from aico_lab.reports.parameters import bind, read_parameters
from aico_lab.reports.runner import RunResult
from tests.conftest import plain_text_files
from tests.messages import add, message

if TYPE_CHECKING:
    from pathlib import Path

    from tests.databases import Homes

LINES = [
    {"content": "hello there", "timestamp": "2024-05-01T10:00:00Z"},
    {"content": "hi, how are you?", "timestamp": "2024-05-01T10:00:07Z", "role": "assistant"},
]


def write_jsonl(path: Path, *lines: object) -> Path:
    path.write_text(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines),
        encoding="utf-8",
    )
    return path


def failed(process: subprocess.CompletedProcess[str], code: int, *words: str) -> bool:
    """One sentence on stderr, nothing on stdout, the right exit code, no traceback."""
    assert process.returncode == code, process.stderr
    assert process.stdout == ""
    assert "Traceback" not in process.stderr
    assert process.stderr.startswith("aico-lab: ")
    assert process.stderr.count("\n") == 1, process.stderr
    assert process.stderr.rstrip().endswith((".", ")", "?", "!"))
    for word in words:
        assert word in process.stderr
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["cli", pytest.param("aico_lab", marks=pytest.mark.slow)], ids=["here", "processes"]
)
def test_a_persons_own_messages_go_in_and_answers_come_out(command, request, tmp_path):
    """init, import, sync, sql, info, doctor, each as one JSON value."""
    aico_lab = request.getfixturevalue(command)
    assert json.loads(aico_lab("init", "--json").stdout)["protection"] == "key-file"
    file = write_jsonl(tmp_path / "m.jsonl", *LINES)
    imported = json.loads(aico_lab("import", "jsonl", str(file), "--json").stdout)
    assert (imported["added"], imported["known"], imported["rejected"]) == (2, 0, 0)
    again = json.loads(aico_lab("import", "jsonl", str(file), "--json").stdout)
    assert (again["added"], again["known"]) == (0, 2)
    synced = json.loads(aico_lab("sync", "--json").stdout)
    assert (synced["mode"], synced["rows"]["messages"]) == ("full", 2)
    rows = json.loads(
        aico_lab(
            "sql", "--json",
            "SELECT content, timestamp, response_time, sentiment FROM conversations ORDER BY 2",
        ).stdout
    )  # fmt: skip
    assert rows == [
        {"content": "hello there", "timestamp": "2024-05-01T10:00:00+00:00",
         "response_time": None, "sentiment": "neutral"},
        {"content": "hi, how are you?", "timestamp": "2024-05-01T10:00:07+00:00",
         "response_time": 7.0, "sentiment": "neutral"},
    ]  # fmt: skip
    info = json.loads(aico_lab("info", "--json").stdout)
    assert info["rows"]["messages"] == 2
    assert info["warehouse"]["changes not yet synced"] == 0
    doctor = json.loads(aico_lab("doctor", "--json").stdout)
    assert all(finding["ok"] for finding in doctor)
    assert {"primary database", "warehouse", "encryption"} <= {f["check"] for f in doctor}


@pytest.mark.slow
def test_text_output_is_for_people(cli, tmp_path):
    """The same commands without --json."""
    assert "back it up" in cli("init").stdout
    file = write_jsonl(tmp_path / "m.jsonl", *LINES)
    imported = cli("import", "jsonl", str(file)).stdout
    assert imported.startswith("2 messages added, 0 stored already.\n1 person in 1 conversation, ")
    assert cli("sync").stdout.startswith("Snapshot 1: ")
    assert cli("sync").stdout == "Nothing changed; snapshot 1 is up to date.\n"
    assert "│ hello there" in cli("sql", "SELECT content FROM conversations").stdout
    assert "messages                 2" in cli("info").stdout
    assert "FAIL" not in cli("doctor").stdout
    assert "pattern_analysis" in cli("report", "list").stdout


def test_csv_is_taken_as_jsonl_is(cli, tmp_path):
    """The same message from either is the same message."""
    cli("init")
    with (tmp_path / "m.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["content", "timestamp", "role"])
        writer.writeheader()
        writer.writerows({"role": "user", **line} for line in LINES)
    path = str(tmp_path / "m.csv")
    assert json.loads(cli("import", "csv", path, "--json").stdout)["added"] == 2
    path = str(write_jsonl(tmp_path / "m.jsonl", *LINES))
    assert json.loads(cli("import", "jsonl", path, "--json").stdout)["known"] == 2


def test_broken_lines_are_named_and_the_rest_goes_in(cli, tmp_path):
    """By number and reason; a file of which nothing can be taken fails."""
    cli("init")
    broken = ['{"content": "x"', {"content": "no time"}, '{"content": "\\u0000", "timestamp": "x"}']
    file = write_jsonl(tmp_path / "m.jsonl", LINES[0], *broken, LINES[1])
    process = cli("import", "jsonl", str(file))
    assert process.returncode == 0
    assert process.stdout.startswith("2 messages added, 0 stored already.\n")
    assert process.stderr.startswith("3 invalid lines left out:\n  line 2: ")
    assert all(f"line {number}: " in process.stderr for number in (2, 3, 4))
    nothing = cli("import", "jsonl", str(write_jsonl(tmp_path / "n.jsonl", *broken)))
    assert nothing.returncode == 1


WRONG = [
    (["sql", "SELECT 1"], 1, "aico-lab init"),
    (["sync"], 1, "aico-lab init"),
    (["import", "chitchat"], 1, "aico-lab init"),
    (["info"], 1, "aico-lab init"),
    (["report", "run", "pattern_analysis"], 1, "aico-lab init"),
]


@pytest.mark.parametrize(("arguments", "code", "word"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_a_missing_home_is_one_sentence(in_process, home, arguments, code, word):
    """And none is made."""
    assert failed(in_process(*arguments, "--home", str(home)), code, word, str(home))
    assert not home.exists()


WRONG_ON_A_HOME = [
    (["import", "nope"], 2, "chitchat"),
    (["import", "jsnl"], 2, "did you mean jsonl?"),
    (["import", "jsonl"], 2, "file"),
    (["import", "jsonl", "nowhere.jsonl"], 1, "nowhere.jsonl"),
    (["import", "jsonl", "."], 1, "folder"),
    (["import", "chitchat", "some.file"], 2, "leave"),
    (["report", "run", "nope"], 2, "pattern_analysis"),
    (["report", "run", "pattern_analisys"], 2, "did you mean pattern_analysis?"),
    (["pipeline", "run", "nightli"], 2, "did you mean nightly?"),
    (["report", "run", "pattern_analysis", "-p", "gap=1"], 2, "gap_minutes"),
    (["report", "run", "pattern_analysis", "-p", "gap_minute=1"], 2, "did you mean gap_minutes?"),
    (["report", "run", "pattern_analysis", "-p", "since=7d", "-p", "since=9d"], 2, "twice"),
    (["metrics", "show", "sessions", "-p", "gap_minutes=1", "-p", " gap_minutes=2"], 2, "twice"),
    (["sql", "SELECT 1; SELECT 2"], 2, "one query at a time"),
    (["schema", "rollback", "memmories", "--to", "0"], 2, "did you mean memories?"),
    (["report", "run", "pattern_analysis", "-p", "gap_minutes=many"], 2, "whole number"),
    (["report", "run", "pattern_analysis", "-p", "since"], 2, "NAME=VALUE"),
    (["report", "show", "pattern_analysis"], 2, "report list"),
    (["sql", "SELEC 1"], 1, "syntax error"),
    (["sql", "SELECT * FROM conversation"], 1, "conversations"),
    (["sql", "SELECT CAST('x' AS INTEGER)"], 1, "INT32"),
    (["sql", "SELECT 1", "--timezone", "Mars/Olympus"], 2, "IANA"),
    (["init"], 1, "already"),
    (["init", "--passphrase", "--no-encryption"], 2, "only one"),
]


@pytest.fixture(scope="module")
def synced_home(tmp_path_factory: pytest.TempPathFactory, homes: Homes) -> Path:
    """A home without encryption, so that no key has to be found, with a few messages."""
    folder = tmp_path_factory.mktemp("synced") / "home"
    homes.open(folder, "none", messages=20, synced=True).close()
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "word"), WRONG_ON_A_HOME, ids=[" ".join(w[0]) for w in WRONG_ON_A_HOME]
)
def test_wrong_input_is_one_sentence_that_says_what_to_do(
    in_process, synced_home, arguments, code, word
):
    """And nothing of the home is touched."""
    before = {path: path.stat().st_size for path in synced_home.rglob("*.duckdb")}
    process = in_process(*arguments, "--home", str(synced_home))
    assert failed(process, code, word)
    assert {path: path.stat().st_size for path in synced_home.rglob("*.duckdb")} == before
    with Lab.open(synced_home) as lab:
        assert lab.primary.fetch_one("SELECT count(*) FROM messages") == (20,)
        assert lab.reports.list() == []


def test_unknown_commands_and_options_exit_with_2(cli):
    """Typer says which there are."""
    assert cli("nope").returncode == 2
    assert cli("sync", "--nope").returncode == 2
    assert cli("demo", "--limit", "0").returncode == 2


def test_debug_shows_where_an_error_came_from(cli):
    """Wherever it stands among the arguments."""
    process = cli("sync", "--debug")
    assert process.returncode == 1
    assert "Traceback" in process.stderr
    assert "HomeMissing" in process.stderr


@pytest.mark.slow
def test_a_wrong_key_and_damaged_files_are_one_sentence(cli, home, tmp_path):
    """Key file of another home, a text file as database, half a database, a damaged marker."""
    cli("init")
    Lab.create(tmp_path / "other", key_file=tmp_path / "other.key").close()
    wrong = cli("sync", "--key-file", str(tmp_path / "other.key"))
    assert failed(wrong, 1, "does not open")
    database = home / "aico.db"
    content = database.read_bytes()
    for suffix in ("-wal", "-shm"):
        (home / f"aico.db{suffix}").unlink(missing_ok=True)
    for damaged in (b"text " * 2000, content[:100], content[: len(content) // 2], b"\0" * 9000):
        database.write_bytes(damaged)
        assert failed(cli("sync"), 1, "aico.db")
        doctor = cli("doctor")
        assert doctor.returncode == 1
        assert "FAIL" in doctor.stdout
    database.write_bytes(content)
    assert cli("sync").returncode == 0
    (home / "lab.json").write_text("{")
    assert failed(cli("sync"), 1, "damaged")


def mount(folder: Path, options: str, request: pytest.FixtureRequest) -> None:
    """Put a small file system in memory at a folder; skip where that is not allowed."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        check=False, capture_output=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", str(folder)], check=False))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's mount")
def test_a_folder_that_may_not_be_written_is_one_sentence(in_process, tmp_path, request):
    """A file system that is read-only, which binds even root."""
    disk = tmp_path / "disk"
    mount(disk, "size=50m", request)
    home, key = disk / "home", tmp_path / "key"
    with Lab.create(home, key_file=key) as lab:
        add(lab.primary, *map(message, range(10)))
        lab.sync()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    writing = ["sync", "--full", "--home", str(home)]  # else there is nothing to write
    for arguments in (["init", "--home", str(disk / "new")], writing):
        assert failed(in_process(*arguments, "--key-file", str(key)), 1, "Read-only file system")
    with Lab.open(home, key_file=key) as lab:  # the snapshot can be read all the same
        assert lab.sql("SELECT count(*) FROM conversations").fetchone() == (10,)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's mount")
def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, request):
    """A small file system in memory: the import stops, what was committed stays."""
    disk = tmp_path / "disk"
    mount(disk, "size=12m", request)
    home, key = disk / "home", tmp_path / "key"
    with Lab.create(home, key_file=key) as lab:
        add(lab.primary, *map(message, range(1000)))
        lab.sync()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "aico_lab", *arguments, "--home", str(home)]
        return subprocess.run(
            [*command, "--key-file", str(key)],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    lines = [{"content": f"{i} " * 200, "timestamp": "2024-05-01T10:00:00Z"} for i in range(15_000)]
    file = write_jsonl(tmp_path / "big.jsonl", *lines)
    assert failed(run("import", "jsonl", str(file)), 1, "full")
    filler = disk / "filler"
    with pytest.raises(OSError, match="space"), filler.open("wb", buffering=0) as filling:
        while True:
            filling.write(b"x" * 65536)
    assert failed(run("sync", "--full"), 1, "full")
    with Lab.open(home, key_file=key) as lab:  # the snapshot of before is there and whole
        assert lab.sql("SELECT count(*) FROM raw.messages").fetchone() == (1000,)
    filler.unlink()
    with Lab.open(home, key_file=key) as lab:
        assert lab.primary.fetch_one("SELECT count(*) FROM messages") == (1000,)
        assert lab.primary.fetch_all("PRAGMA integrity_check") == [("ok",)]
    assert run("sync", "--full").returncode == 0


@pytest.mark.slow
def test_a_passphrase_is_asked_for_on_a_terminal_only(cli, home, monkeypatch):
    """Elsewhere the sentence names the variable; the passphrase is never an argument."""
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", "correct horse battery")
    assert cli("init", "--passphrase").returncode == 0
    assert cli("sync").returncode == 0
    monkeypatch.delenv("AICO_LAB_PASSPHRASE")
    assert failed(cli("sync"), 1, "AICO_LAB_PASSPHRASE")
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", "wrong horse battery")
    assert failed(cli("sync"), 1, "AICO_LAB_PASSPHRASE", str(home))


def test_doctor_asks_for_the_passphrase_as_the_others_do(cli, monkeypatch):
    """On a terminal; without it nothing could be checked."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("AICO_LAB_PASSPHRASE", "correct horse battery")
    cli("init", "--passphrase")
    monkeypatch.delenv("AICO_LAB_PASSPHRASE")
    monkeypatch.setattr(io, "StringIO", Terminal)
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: "correct horse battery")
    assert "FAIL" not in cli("doctor").stdout


def test_init_names_the_key_file_that_it_made(cli, monkeypatch, tmp_path):
    """Who backs another one up has nothing."""
    file = tmp_path / "keys" / "mine.key"
    monkeypatch.setenv("AICO_LAB_KEY_FILE", str(file))
    assert json.loads(cli("init", "--json").stdout)["key_file"] == str(file)
    assert file.exists()


def test_the_demo_has_a_home_of_its_own(in_process, lab, monkeypatch):
    """Strangers' messages do not get among one's own, whatever the environment names."""
    monkeypatch.setenv("AICO_LAB_HOME", str(lab.home.path))
    homes = []
    monkeypatch.setattr("aico_lab.cli.demo.run_demo", lambda lab, **_: homes.append(lab.home.path))
    in_process("demo")
    in_process("demo", "--home", str(lab.home.path))
    assert [path.name for path in homes] == ["aico-lab-demo", "home"]


def test_columns_of_one_name_are_all_in_the_json(in_process, synced_home):
    """They are numbered; a name that is there already is not taken."""
    query = "SELECT 1 AS n, 2 AS n, 3 AS n_1, 4 AS n"
    answer = in_process("sql", "--json", query, "--home", str(synced_home))
    assert json.loads(answer.stdout) == [{"n": 1, "n_2": 2, "n_1": 3, "n_3": 4}]


@pytest.mark.usefixtures("lab")
def test_a_report_that_ran_is_not_taken_for_another(cli, monkeypatch, tmp_path):
    """A second run of it may have begun later and not be done."""
    own = RunResult(tmp_path / "first" / "r.ipynb", tmp_path / "first" / "r.html", seconds=1.0)
    runs = [
        SimpleNamespace(run_id="second", status="running", generation=9),
        SimpleNamespace(run_id="first", status="succeeded", generation=8),
    ]
    monkeypatch.setattr(Reports, "run", lambda *_, **__: own)
    monkeypatch.setattr(Reports, "list", lambda *_: runs)
    told = json.loads(cli("report", "run", "pattern_analysis", "--json").stdout)
    assert (told["status"], told["generation"]) == ("succeeded", 8)


@pytest.mark.slow
def test_help_is_quick_and_imports_no_database(aico_lab):
    """`--help` must not wait for libraries it does not need."""
    program = (
        "import sys; sys.argv = ['aico-lab', '--help']\n"
        "from aico_lab.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "slow = {'duckdb', 'pyarrow', 'polars', 'altair', 'libsql_experimental', 'rich'}\n"
        "print('loaded:', slow & set(sys.modules))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert process.stdout.endswith("loaded: set()\n"), process.stdout
    assert aico_lab("import").returncode == 2


@pytest.mark.slow
def test_the_output_can_be_piped_into_a_reader_that_stops(synced_home):
    """`aico-lab sql … | head -1` ends without a traceback."""
    command = f'{sys.executable} -m aico_lab sql "FROM range(100000)" --json --home {synced_home}'
    process = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -c 10"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in process.stderr
    assert process.stdout == '[{"range":'


@pytest.mark.slow
def test_the_demo_shows_insight_from_real_conversations(aico_lab, in_process, home, monkeypatch):
    """Import, sync, report; again it adds nothing and is quick; nothing private is readable."""
    monkeypatch.setenv("PATH", os.defpath)  # where the shell finds no aico-lab
    first = aico_lab("demo", "--limit", "2000", "--json")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""  # progress is for terminals
    result = json.loads(first.stdout)
    assert result["messages"] == result["added"] == 2000
    assert result["quarantined"] == 0
    report = result["report"]
    assert report.endswith(".html")
    again = json.loads(aico_lab("demo", "--limit", "2000", "--json").stdout)
    assert (again["added"], again["report"]) == (0, report)
    text = aico_lab("demo", "--limit", "2000").stdout
    called = f"  {shlex.quote(sys.executable)} -m aico_lab "
    typed = [line for line in text.splitlines() if line.startswith(called)]
    proposed = [shlex.split(line.removeprefix(called)) for line in typed]
    assert [command[0] for command in proposed] == [
        "sql", "metrics", "report", "lab", "init", "import",
    ]  # fmt: skip
    here, own = proposed[:4], proposed[4:]
    assert all(str(home) in command for command in here)
    assert all(str(home) not in command for command in own)  # not among strangers' messages
    for command in here:
        if command[0] in ("sql", "metrics"):
            assert in_process(*command).returncode == 0
        if command[0] == "report":
            given = dict(pair.split("=") for pair in command if "=" in pair)
            bind(read_parameters(notebooks()[command[2]]), given)
    with Lab.open(home) as lab:
        (sentence,) = lab.sql(
            "SELECT content FROM conversations WHERE length(content) BETWEEN 60 AND 90 "
            "AND content ~ '^[A-Za-z ,.]+$' ORDER BY content LIMIT 1"
        ).fetchone()
    assert plain_text_files(home, sentence) == []


@pytest.mark.slow
def test_an_interrupted_import_is_completed_by_the_next(aico_lab, home, tmp_path):
    """SIGKILL between batches: whole batches are there, and the same command adds the rest."""
    aico_lab("init")
    lines = [
        {"content": f"message {i}", "timestamp": f"2024-05-01T10:{i // 60 % 60:02}:{i % 60:02}Z"}
        for i in range(30_000)
    ]
    file = write_jsonl(tmp_path / "big.jsonl", *lines)
    command = [sys.executable, "-m", "aico_lab", "import", "jsonl", str(file), "--home", str(home)]
    with subprocess.Popen(command) as process, Lab.open(home) as lab:
        while lab.primary.fetch_one("SELECT count(*) FROM messages") == (0,):
            time.sleep(0.02)
            assert process.poll() is None
        process.kill()
    with Lab.open(home) as lab:
        (count,) = lab.primary.fetch_one("SELECT count(*) FROM messages")
        assert 0 < count < 30_000
        assert count % 10_000 == 0
        assert lab.primary.fetch_one("SELECT sum(message_count) FROM channels") == (count,)
    result = json.loads(aico_lab("import", "jsonl", str(file), "--json").stdout)
    assert (result["added"], result["known"]) == (30_000 - count, count)
    with Lab.open(home) as lab:
        assert lab.primary.fetch_one("SELECT sum(message_count) FROM channels") == (30_000,)


SWALLOWED = """
import signal, sys, weakref
from aico_lab.cli import main

class Thing: pass

class Once:
    def find_spec(self, name, path=None, target=None):
        if name == "aico_lab.cli.invoke":
            thing = Thing()
            kept = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
            del thing

sys.meta_path.insert(0, Once())
main()
"""


def test_an_interruption_that_python_ignores_stops_the_command_all_the_same(home):
    """As in a callback of a weak reference, while modules are imported."""
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED, "init", "--no-encryption", "--home", str(home)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, home.exists()) == (130, False)
    assert "Exception ignored" in done.stderr
    assert "Stopped: no home was created" in done.stderr
