"""What `aico-lab import` asks, says and refuses, with people's own files."""

from __future__ import annotations

import gzip
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import zipfile
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.errors import InvalidValue, SourceUnreadable, UnknownName, WrongUse
from aico_lab.importing.saved import load_saved
from aico_lab.lab import Lab
from aico_lab.pipeline import load_pipeline, run_pipeline
from aico_lab.sources import recognise
from aico_lab.sources.exports.engine.conversation import ANSWERS, Options
from tests.exported import telegram_chat

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("lab")

CHAT = "03.05.25, 23:05 - Ada: Good evening!\n03.05.25, 23:07 - Otto: Hello, Ada.\n"
TABLE = "Datum;Von;Text\n13.05.2024 23:30;Ada;a\n13.05.2024 23:40;Otto;b\n"


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    path = tmp_path / "WhatsApp Chat with Otto.txt"
    path.write_text(CHAT, encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "chat.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


# The question at a terminal


def at_terminal(arguments: list[str], question: str, answer: bytes | None) -> tuple[int, str]:
    """Run a command at a terminal, and answer when the question is the last thing on it.

    Without an answer, the command is stopped as by Control-C.
    """
    import pty

    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "aico_lab", *arguments],
        stdin=terminal, stdout=terminal, stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(terminal)
    seen, answered, end = b"", False, time.monotonic() + 120
    while time.monotonic() < end:
        if select.select([main], [], [], 0.5)[0]:
            try:
                got = os.read(main, 65_536)
            except OSError:  # Linux, when the process has closed the terminal
                break
            if not got:
                break
            seen += got
        elif not answered and question.encode() in seen:
            # Half a second of silence: no progress is drawn over the question.
            assert seen.rstrip().endswith(question.encode()), seen
            if answer is None:
                process.send_signal(signal.SIGINT)
            else:
                os.write(main, answer)
            answered = True
    os.close(main)
    return process.wait(60), seen.decode()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it has no such terminals")
@pytest.mark.parametrize("answer", [b"2\n", b"otto\n"])
def test_the_question_for_the_companion_stays_visible(answer, lab, home, chat):
    lab.close()
    code, seen = at_terminal(["import", str(chat), "--home", str(home)], "name:", answer)
    assert code == 0, seen
    assert "2 messages added" in seen


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it has no such terminals")
def test_control_c_at_the_question_keeps_nothing_and_says_so(lab, home, chat):
    lab.close()
    code, seen = at_terminal(["import", str(chat), "--home", str(home)], "name:", None)
    assert code == 130, seen
    assert "nothing was done" in seen
    assert "kept" not in seen


# Pipelines


def test_a_table_in_a_watched_folder_stops_no_other_file(lab, tmp_path, chat, table):
    (tmp_path / "other.csv").write_text(TABLE.replace("2024", "2023"), encoding="utf-8")
    steps = tmp_path / "job.toml"
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for path in (chat, table, tmp_path / "other.csv"):
        path.rename(inbox / path.name)
    steps.write_text(
        "[[steps]]\nrun = 'import'\npath = 'inbox'\ncompanion = 'Otto'\ndeletions = true\n"
    )
    (step,) = run_pipeline(lab, load_pipeline(str(steps)))
    assert [one.result.added for one in step.result.files] == [2, 2, 2]
    notes = [note for one in step.result.files for note in one.result.notes]
    assert sum("no whole conversations" in note for note in notes) == 1


def test_a_file_that_the_options_do_not_suit_is_named_and_stops_no_other(lab, tmp_path, chat):
    (tmp_path / "inbox").mkdir()
    bare = tmp_path / "inbox" / "bare.csv"
    bare.write_text("date,text\n2024-05-01 10:00,x\n")  # without a column of authors
    chat.rename(tmp_path / "inbox" / chat.name)
    steps = tmp_path / "job.toml"
    step = "[[steps]]\nrun = 'import'\ncompanion = 'Otto'\non_rejects = 'continue'\npath = "
    steps.write_text(f"{step}'inbox'\n")
    (done,) = run_pipeline(lab, load_pipeline(str(steps)))
    assert [one.path.name for one in done.result.broken] == ["bare.csv"]
    assert lab.primary.fetch_all("SELECT count(*) FROM messages") == [(2,)]
    steps.write_text(f"{step}'inbox/bare.csv'\n")
    with pytest.raises(InvalidValue, match=r"bare\.csv"):
        run_pipeline(lab, load_pipeline(str(steps)))


# Saved imports


def test_a_saved_import_without_a_file_says_that_the_file_is_missing(cli, lab, table):
    assert cli("import", str(table), "--companion", "Otto", "--save", "monthly").returncode == 0
    refused = cli("import", "monthly")
    assert refused.returncode == 2
    assert "The file is missing" in refused.stderr
    assert "import monthly FILE" in refused.stderr
    with pytest.raises(WrongUse, match="The file is missing"):
        lab.import_from("monthly")
    assert "did you mean monthly?" in cli("import", "monthyl").stderr


# What the result says


def test_the_reason_of_estimated_times_is_true(cli, tmp_path):
    path = tmp_path / "fold.csv"
    path.write_text("date,role,text\n2024-03-31 02:30,user,a\n2024-04-01 10:00,assistant,b\n")
    said = cli("import", str(path), "--timezone", "Europe/Berlin").stderr
    assert "1 message is marked with timestamp_estimated" in said
    assert "came twice or never" in said
    assert "leave it out" in said


def test_the_days_of_the_result_are_those_of_the_zone(cli, table):
    done = cli("import", str(table), "--companion", "Otto", "--timezone", "Asia/Tokyo")
    assert "2024-05-13 to 2024-05-13 (Asia/Tokyo)" in done.stdout
    path = table.with_name("early.csv")
    path.write_text("date,role,text\n2024-05-14T01:30:00+09:00,user,a\n")
    assert "2024-05-13 to 2024-05-13 (UTC)" in cli("import", str(path)).stdout
    path.write_text("date,role,text\n0001-01-01T00:30:00Z,user,a\n")
    assert "0001-01-01" in cli("import", str(path), "--timezone", "America/Lima").stdout


# Python


def test_answers_are_keyword_arguments(lab, table):
    done = lab.import_from(table, companion="Otto", timezone="Europe/Berlin")
    assert (done.added, done.first) == (2, "2024-05-13T21:30:00.000000Z")
    roles = lab.primary.fetch_all("SELECT role FROM messages ORDER BY id")
    assert roles == [("user",), ("assistant",)]
    assert lab.import_from(table, me="ada", timezone="Europe/Berlin").added == 0
    assert lab.import_from(table, companion=["Otto", "Ott"], timezone="Europe/Berlin").added == 0
    with pytest.raises(WrongUse, match="not both"):
        lab.import_from(table, companion="Otto", options=Options(me="Ada"))


def test_every_answer_of_the_command_is_an_argument_and_in_the_help(cli):
    import inspect

    arguments = set(ANSWERS)
    assert arguments < set(inspect.signature(Lab.import_from).parameters)
    for name in arguments:
        assert f"            {name}: " in Lab.import_from.__doc__
    help_ = cli("import", "--help").stdout
    options = {name.replace("_", "-") for name in arguments} | {"month-first"}
    assert [name for name in options if f"--{name}" not in help_] == []


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer_is_a_key_of_steps_and_of_saved_imports(lab, tmp_path, answer):
    values = {
        "timezone": "'Europe/Berlin'", "companion": "['Otto']", "start": "2024-05-01T10:00:00",
        "step": "30", "day_first": "true", "trust_times": "true", "map": "{ content = 'Text' }",
        "role_map": "{ x = 'user' }",
    }  # fmt: skip
    told = f"{answer} = {values.get(answer, repr('Ada'))}\n"
    steps = tmp_path / "job.toml"
    steps.write_text(f"[[steps]]\nrun = 'import'\npath = 'x.csv'\n{told}")
    load_pipeline(str(steps))
    (lab.home.path / "sources").mkdir()
    (lab.home.path / "sources" / "x.toml").write_text(told)
    saved = load_saved(lab.home, "x")
    assert saved is not None
    assert saved.options != Options()


def test_a_file_without_people_counts_none(cli, tmp_path):
    path = tmp_path / "cut.csv"
    path.write_text("date,author,text\n2024-05-01 10:00,Otto,Hi\n")
    told = cli("import", str(path), "--dry-run", "--companion", "Otto").stdout
    assert "\n1 conversation, as table, from 2024-05-01 " in told


def test_a_start_may_be_a_time_and_a_companion_one_name(lab, tmp_path):
    start = datetime(2024, 5, 1, 10)  # noqa: DTZ001 - in the zone of the import
    assert Options.read(companion="Otto", start=start) == Options(companion=("Otto",), start=start)
    path = tmp_path / "training.jsonl"
    told = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path.write_text(json.dumps({"messages": told}) + "\n")
    done = lab.import_from(path, start=start, step=30)
    assert (done.first, done.last) == ("2024-05-01T10:00:00.000000Z", "2024-05-01T10:00:30.000000Z")


# Files that people have instead of exports


def test_a_table_without_a_header_is_no_chat(cli, tmp_path):
    path = tmp_path / "chat.csv"
    path.write_text(
        "31.10.2025 08:15,Mira,Good morning: did you sleep?\n31.10.2025 08:16,Otto,I never do\n"
    )
    for options in ((), ("--as", "table"), ("--as", "telegram")):
        refused = cli("import", str(path), "--companion", "Otto", *options)
        assert refused.returncode != 0
        assert "header of" in refused.stderr
        assert "sleep" not in refused.stderr


def _spreadsheet(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")


@pytest.mark.parametrize(
    "sample",
    [
        ("chat.xlsx", _spreadsheet, "save the sheet as CSV"),
        ("chat.csv.gz", lambda path: path.write_bytes(gzip.compress(TABLE.encode())), "unpack it"),
        ("messages.html", lambda path: path.write_text("<!DOCTYPE html><p>x"), "again as JSON"),
        ("MyActivity", lambda path: path.write_text("\n<html><p>x"), "again as JSON"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--as", "table"), ("--as", "telegram")])
def test_what_people_have_instead_gets_advice(sample, options, cli, tmp_path):
    name, write, said = sample
    write(tmp_path / name)
    refused = cli("import", str(tmp_path / name), *options)
    assert refused.returncode != 0
    assert said in refused.stderr


def test_tables_are_imported_one_at_a_time(cli, tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text(TABLE)
    for arguments in ((folder,), (folder / "a.csv", folder / "b.csv")):
        refused = cli("import", *map(str, arguments), "--companion", "Otto")
        assert refused.returncode != 0
        assert "one file at a time" in refused.stderr


def test_the_list_of_sources_has_what_was_saved_and_what_is_broken(cli, lab, table):
    answers = ("--companion", "Otto", "--timezone", "Europe/Berlin", "--save", "monthly")
    assert cli("import", str(table), *answers).returncode == 0
    folder = lab.home.path / "sources"
    (folder / "torn.toml").write_text("format = ")
    (folder / "wrong.toml").write_text("format = 'tabel'")
    listed = cli("sources")
    assert listed.returncode == 0
    assert 'saved in this home: table, timezone = "Europe/Berlin", companion = ["Otto"]' in (
        listed.stdout
    )
    for name in ("torn", "wrong"):
        assert re.search(rf"^{name} .*broken.*{name}\.toml", listed.stdout, re.MULTILINE)
    found = json.loads(cli("sources", "--json").stdout)
    assert found["monthly"]["format"] == "table"
    with pytest.raises(UnknownName, match=r"wrong\.toml.*did you mean table"):
        lab.import_from("wrong", table)


# Roles and conflicts


def test_a_row_without_a_role_in_a_column_of_roles_is_reported(lab, tmp_path):
    path = tmp_path / "roles.csv"
    path.write_text(
        "date,role,text\n2024-05-01 10:00,user,a\n2024-05-01 10:01,,b\n"
        "2024-05-01 10:02,assistant,c\n"
    )
    done = lab.import_from(path)
    assert [(one.line, one.reason) for one in done.examples] == [(3, "role is empty")]
    assert lab.primary.fetch_all("SELECT content FROM messages ORDER BY id") == [("a",), ("c",)]


def test_a_person_who_is_not_there_or_is_the_companion_is_refused(cli, chat, table):
    for path in (chat, table):
        refused = cli("import", str(path), "--me", "Nobody")
        assert refused.returncode != 0
        assert "Nobody in the file is called Nobody" in refused.stderr
        refused = cli("import", str(path), "--me", "otto", "--companion", "Otto")
        assert refused.returncode == 2
        assert "both the person" in refused.stderr


def test_what_became_of_a_save_is_said(cli, home, table):
    arguments = ("import", str(table), "--companion", "Otto", "--save", "monthly")
    said = cli(*arguments, "--dry-run").stderr
    assert "monthly was not saved" in said
    assert not (home / "sources").exists()
    assert "in place of" not in cli(*arguments).stderr
    assert "in place of the import saved" in cli(*arguments).stderr


def test_an_import_with_conflicts_alone_ends_with_what_to_do(cli, tmp_path):
    path = tmp_path / "own.jsonl"
    line = '{"message_id": "m", "content": "%s", "timestamp": "2024-05-01T10:00:00Z"}\n'
    path.write_text(line % "a")
    assert cli("import", "jsonl", str(path)).returncode == 0
    path.write_text(line % "b")
    done = cli("import", "jsonl", str(path), "--on-conflict", "keep")
    assert "1 in conflict" in done.stdout
    assert "Nothing is new" not in done.stdout
    assert "--on-conflict replace" in done.stdout


def test_a_step_with_one_file_prints_its_counts(cli, tmp_path):
    (tmp_path / "chat.csv").write_text(TABLE)
    steps = tmp_path / "job.toml"
    steps.write_text("[[steps]]\nrun = 'import'\npath = 'chat.csv'\ncompanion = 'Otto'\n")
    assert "chat.csv: 2 added, 0 stored already" in cli("pipeline", "run", str(steps)).stderr
    assert "chat.csv: 0 added, 2 stored already" in cli("pipeline", "run", str(steps)).stderr


def test_an_older_export_does_not_undo_an_edit(lab, tmp_path):
    def put(name: str, text: str, minute: int | None) -> Path:
        chat = telegram_chat(1, 1, 2)
        if minute is not None:
            chat["messages"][1]["edited_unixtime"] = str(1714557600 + 60 * minute)
            chat["messages"][1]["edited"] = f"2024-05-01T10:{minute:02d}:00"
        chat["messages"][1]["text"] = text
        (tmp_path / name).write_text(json.dumps(chat))
        return tmp_path / name

    def stored() -> str:
        return lab.primary.fetch_all("SELECT content FROM messages ORDER BY timestamp")[1][0]

    exports = [put("a.json", "wrods", None), put("b.json", "words", 5), put("c.json", "Words", 9)]
    texts = []
    for path in (*exports, *exports, exports[1]):
        done = lab.import_from(path, me="Ada")
        texts.append((stored(), done.updated, done.conflicts))
    assert texts == [
        ("wrods", 0, 0), ("words", 1, 1), ("Words", 1, 1),
        ("Words", 0, 0), ("Words", 0, 0), ("Words", 0, 0), ("Words", 0, 0),
    ]  # fmt: skip


def test_an_edit_of_the_same_moment_as_the_last_one_is_taken(lab, tmp_path):
    """Exports have whole seconds, in which a message can be edited twice."""
    chat = telegram_chat(1, 1, 2)
    edited = chat["messages"][1]
    edited |= {"edited": "2024-05-01T10:05:00", "edited_unixtime": "1714557900"}
    for text in ("wrods", "words"):
        edited["text"] = text
        (tmp_path / "result.json").write_text(json.dumps(chat))
        done = lab.import_from(tmp_path / "result.json", me="Ada")
    assert (done.updated, done.conflicts) == (1, 1)
    rows = lab.primary.fetch_all("SELECT content FROM messages ORDER BY timestamp")
    assert rows == [("words 1",), ("words",)]


@pytest.mark.parametrize("seconds", ["0.25", "86400.25", "1e-06", "30", "30000000.5"])
def test_a_saved_step_is_the_step_that_was_given(cli, lab, tmp_path, seconds):
    path = tmp_path / "talk.csv"
    path.write_text("author,text\nAda,a\nOtto,b\n")
    start = ("--start", "2024-05-01T10:00:00", "--step", seconds, "--companion", "Otto")
    assert cli("import", str(path), *start, "--save", "talks").returncode == 0
    saved = load_saved(lab.home, "talks")
    assert saved is not None
    assert saved.options.step == timedelta(seconds=float(seconds))


def test_a_given_column_is_added_to_the_saved_ones(lab, tmp_path):
    (lab.home.path / "sources").mkdir()
    (lab.home.path / "sources" / "talks.toml").write_text(
        "companion = 'Otto'\nmap = { content = 'A', timestamp = 'B' }\nrole_map = { x = 'user' }\n"
    )
    path = tmp_path / "talk.csv"
    path.write_text("A,B,C,D\nHi,2024-05-01 10:00,x,m1\nYes,2024-05-01 10:01,y,m2\n")
    lab.import_from(
        "talks", path, map={"role": "C", "message_id": "D"}, role_map={"y": "assistant"}
    )
    rows = lab.primary.fetch_all("SELECT content, role FROM messages ORDER BY timestamp")
    assert rows == [("Hi", "user"), ("Yes", "assistant")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"SQLite format 3\0" + bytes(100), "a SQLite database, whose tables"),
        (b"%PDF-1.7\n1 0 obj", "a PDF document"),
        (b"[]", "JSON without any object"),
        (b"[1, 2]", "JSON without any object"),
    ],
)
def test_a_file_that_is_no_export_is_called_what_it_is(
    content: bytes, said: str, tmp_path: Path
) -> None:
    (path := tmp_path / "file").write_bytes(content)
    with pytest.raises(SourceUnreadable, match=f"it is {said}"):
        recognise(path)


def test_the_note_on_the_format_names_the_file_once(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "Otto.txt"
    path.write_text("13.05.25, 21:07 - Ann: hi\n13.05.25, 21:08 - Otto: hey\n")
    done = cli("import", str(path), "--companion", "Otto")
    assert done.stderr.startswith("Otto.txt is in the format whatsapp: it has lines ")


def test_a_map_of_a_table_is_no_question_about_a_document(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"name": "Ann", "id": 1}, indent=1))
    with pytest.raises(SourceUnreadable, match=r"is no table .*columns found: none"):
        lab.import_from("table", path, map={"content": "Wording"})


@pytest.mark.usefixtures("chat")
def test_an_empty_name_is_no_folder(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (("",), ("whatsapp", "")):
        with pytest.raises(WrongUse, match="is empty"):
            lab.import_from(*arguments, companion="Otto")


def test_an_index_of_claude_is_called_so(lab, tmp_path):
    path = tmp_path / "conversations.json"
    times = {"created_at": "2026-01-01T10:00:00Z", "updated_at": "2026-01-01T10:00:00Z"}
    path.write_text(json.dumps([{"uuid": "a", "name": "b", **times}]))
    with pytest.raises(SourceUnreadable, match="only the index"):
        lab.import_from(path)


def test_a_chat_has_a_person(lab, table):
    with pytest.raises(InvalidValue, match="Everybody"):
        lab.import_from(table, companion=("Otto", "Ada"))


def test_a_start_that_is_not_used_is_said(lab, table, chat):
    for path in (table, chat):
        (told,) = lab.import_from(path, companion="Otto", timezone="UTC", start="2026-01-01").notes
        assert "has times of its own" in told
