"""Tables as people have them: any delimiter, encoding, header and form of dates."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from aico_lab.errors import (
    AicoLabError,
    InvalidValue,
    SourceUnreadable,
    UnknownName,
    WhoIsWho,
    WrongUse,
)
from aico_lab.sources import SOURCES, recognise
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.sources.tables import KINDS
from aico_lab.sources.tables.dates import FormOfTimes
from aico_lab.sources.tables.headers import columns_by_field, folded
from aico_lab.zones import get_zone
from tests.exported import Read, read

if TYPE_CHECKING:
    from collections.abc import Iterator

BERLIN = get_zone("Europe/Berlin")
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def table(folder: Path, text: str | bytes, name: str = "chat.csv", **options: Any) -> Read:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read("table", path, **options)


def reasons(found: Read) -> list[tuple[int, str]]:
    return [(one.line, one.reason) for one in found.rejected]


# What was recognised


@pytest.mark.parametrize(
    ("delimiter", "word"), [(",", "commas"), (";", "semicolons"), ("\t", "tabs"), ("|", "pipes")]
)
def test_the_delimiter_is_detected(delimiter, word, tmp_path):
    rows = [["Date", "Sender", "Text"], ["2024-05-01 10:00", "me", "a, b; c"], ["", "Bot", "d|e"]]
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    found = table(tmp_path, out.getvalue())
    assert found.contents == ["a, b; c", "d|e"]
    assert found.roles == ["user", "assistant"]
    assert f"a table with {word} in UTF-8" in recognise(tmp_path / "chat.csv").why


@pytest.mark.parametrize(
    ("encoding", "word"),
    [
        ("utf-8", "UTF-8"),
        ("utf-8-sig", "UTF-8"),
        ("utf-16", "UTF-16 LE"),
        ("utf-16-le", "UTF-16 LE"),
        ("utf-16-be", "UTF-16 BE"),
        ("cp1252", "Windows-1252"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_encoding_is_detected_and_said(encoding, word, end, tmp_path):
    text = end.join(["Zeit;Absender;Nachricht", "2024-05-01 10:00;ich;Grüße für 5 €", ""])
    found = table(tmp_path, text.encode(encoding))
    assert found.contents == ["Grüße für 5 €"]
    assert found.rejected == []
    assert f"in {word};" in found.batches[0].read_as
    assert recognise(tmp_path / "chat.csv").why == found.batches[0].read_as


def test_the_line_of_excel_names_the_delimiter(tmp_path):
    found = table(tmp_path, "sep=;\r\ntext;date\r\nhi;2024-05-01 10:00\r\n")
    assert found.contents == ["hi"]
    assert found.batches[0].lines == [3]


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        ("Text,Date,Author", "content timestamp author"),
        ("MESSAGE,Created_At,Sender", "content timestamp author"),
        ("Body,sent at,From", "content timestamp author"),
        ("content,Timestamp (UTC),User,Role", "content timestamp author role"),
        ("Nachricht,Datum,Absender,Unterhaltung", "content timestamp author conversation_id"),
        ("Contenu,Envoyé le,Expéditeur", "content timestamp author"),
        ("Mensaje,Fecha y hora,Remitente,Canal", "content timestamp author channel_id"),
        ("id,Thread,Name,Message,Time", "message_id conversation_id author content timestamp"),
        ("Wer,Wann,Was", "author timestamp content"),
        ("who,when,what", "author timestamp content"),
        ("Who,Time,What", "author timestamp content"),
        ("qui,quand,quoi", "author timestamp content"),
        ("Quién,Cuándo,Qué", "author timestamp content"),
        ("session,speaker,utterance,epoch_ms", "conversation_id author content timestamp"),
        ("Zeit,Verfasser,Äußerung", "timestamp author content"),
        ("Data e ora,Autore,Testo", "timestamp author content"),
        ("Data/Hora,Remetente,Mensagem,Conversa", "timestamp author content conversation_id"),
        ("Data,Mittente,Messaggio", "timestamp author content"),
    ],
)
def test_headers_of_several_languages_and_spellings_are_known(header, fields):
    columns = header.split(",")
    found = columns_by_field(columns)
    assert found == {name: (column,) for name, column in zip(fields.split(), columns, strict=True)}


def test_data_is_a_date_in_italian_and_portuguese_only():
    assert columns_by_field(["Data", "Ora", "Mittente", "Messaggio"])["timestamp"] == (
        "Data",
        "Ora",
    )
    assert columns_by_field(["Data", "Hora", "Remetente", "Texto"])["timestamp"] == ("Data", "Hora")
    assert columns_by_field(["text", "data"]) == {"content": ("text",)}


@pytest.mark.parametrize("question", ["who", "what", "Wer", "Was", "qui", "quoi", "Quién", "qué"])
def test_a_question_alone_says_nothing_about_a_column(question):
    """It may ask for anything; only several of one language are a header."""
    assert columns_by_field([question, "other"]) == {}
    assert columns_by_field(["who", "was", "quoi"]) == {}


def test_every_spelling_is_written_as_it_is_compared():
    from aico_lab.sources.tables.headers import NAMES

    names = [name for names in NAMES.values() for name in names]
    assert [name for name in names if folded(name) != name] == []
    assert [name for name in set(names) if names.count(name) > 1] == ["user"]  # or a question


def test_date_and_time_may_be_in_two_columns(tmp_path):
    text = "Datum;Uhrzeit;Von;Text\n13.05.2024;09:05;me;a\n14.05.2024;10:06:07;Bot;b\n"
    found = table(tmp_path, text, zone=BERLIN)
    assert found.times == ["2024-05-13T07:05:00.000000Z", "2024-05-14T08:06:07.000000Z"]
    assert "Datum+Uhrzeit is the time" in found.batches[0].read_as
    mapped = table(tmp_path, text, zone=BERLIN, columns={"timestamp": "datum+uhrzeit"})
    assert mapped.messages == found.messages


def test_decimal_commas_are_detected(tmp_path):
    text = "date;text;sentiment_score;response_time\n2024-05-01 10:00;a;0,25;1.234,5\n"
    (message,) = table(tmp_path, text).messages
    assert (message.sentiment_score, message.response_time) == (0.25, 1234.5)
    mixed = table(tmp_path, text + "2024-05-01 10:01;b;0.5;\n")
    assert mixed.contents == ["b"]
    assert reasons(mixed) == [(2, "sentiment_score must be a number")]


def test_a_table_is_recognised_from_one_command(cli, homes, home, tmp_path):
    homes.open(home).close()
    path = tmp_path / "chat.csv"
    path.write_text("Datum;Von;Text\n13.05.2024 10:00;Ada;Hi\n13.05.2024 10:01;Otto;Ho\n")
    asked = cli("import", str(path))
    assert asked.returncode == 2
    assert "--companion NAME, one of Ada (1), Otto (1)" in asked.stderr
    done = cli("import", str(path), "--companion", "Otto", "--json")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert (result["format"], result["added"], result["zoneless"]) == ("table", 2, 2)
    assert result["read_as"].startswith("chat.csv is a table with semicolons in UTF-8; Text is")
    assert result["read_as"] in done.stderr
    assert "read as UTC" in done.stderr
    tried = cli("import", str(path), "--companion", "Otto", "--dry-run")
    assert "0 messages added, 2 stored already" in tried.stdout


def test_every_kind_of_table_has_a_row_in_the_readme():
    for kind, (description, details) in KINDS.items():
        assert f"| `{kind}` | {description} | {details} |" in README


# Files of the older readers


OWN = [
    {"content": "one", "timestamp": "2024-05-01T12:00:00Z"},
    {"content": "one", "timestamp": "2024-05-01T12:00:00Z"},
    {"content": 'zwei\n"2"', "timestamp": "2024-05-01 12:00", "user_id": "ada", "role": "user"},
    {"content": "", "timestamp": "2024-05-01T12:00:01.5+02:00", "role": "assistant"},
    {"content": "five", "timestamp": "2024-05-01T12:00:02Z", "user_id": "bob", "mood": "fine"},
    {"content": "six", "timestamp": "2024-05-01T12:00:03Z", "conversation_id": "c"},
    {"content": "seven", "timestamp": "2024-05-01T12:00:04Z", "channel_id": "d", "role": "system"},
    {"content": "eight", "timestamp": "2024-05-01T12:00:05Z", "message_id": "m8"},
    {"content": "nine", "timestamp": "2024-05-01T12:00:06Z", "reply_to": "m8", "role": "assistant"},
    {"content": "ten", "timestamp": "2024-05-01T12:00:07Z", "sentiment_score": -0.5},
    {"content": "eleven", "timestamp": "2024-05-01T12:00:08Z", "metadata": {"a": [1]}},
    {"content": "late first", "timestamp": "2023-05-01T12:00:08Z", "role": "assistant"},
]  # fmt: skip


def write_own(folder: Path, kind: str, lines: list[dict[str, Any]]) -> Path:
    path = folder / f"own.{kind}"
    if kind == "jsonl":
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
        return path
    header = list(dict.fromkeys(key for line in lines for key in line))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for line in lines:
            cells = (line.get(key, "") for key in header)
            writer.writerow([json.dumps(c) if isinstance(c, dict) else c for c in cells])
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("lines", [OWN, OWN[:2], [*reversed(OWN)], OWN[3:6]])
def test_a_file_that_was_imported_by_its_older_reader_adds_nothing(kind, lines, tmp_path, lab):
    """`import csv FILE`, and then `import FILE`: the same messages in the same conversations."""
    path = write_own(tmp_path, kind, lines)
    before = lab.import_from(kind, path)
    assert before.added == len(lines)
    stored = lab.primary.fetch_all("SELECT * FROM messages ORDER BY message_id")
    after = lab.import_from(path)
    assert (after.added, after.known, after.conflicts) == (0, len(lines), 0)
    assert after.read_as
    assert lab.primary.fetch_all("SELECT * FROM messages ORDER BY message_id") == stored


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_older_reader_adds_nothing_either(kind, tmp_path, lab):
    path = write_own(tmp_path, kind, OWN)
    assert lab.import_from(path).added == len(OWN)
    assert lab.import_from(kind, path).added == 0


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("more", [{"id": "7"}, {"session": "s"}, {"author": "Ada"}])
@pytest.mark.parametrize("role", [{"role": "user"}, {}])
def test_a_file_with_names_that_only_tables_know_is_read_as_before(kind, more, role, tmp_path, lab):
    line = {"content": "one", "timestamp": "2024-05-01T12:00:00Z"} | more | role
    path = write_own(tmp_path, kind, [line])
    assert lab.import_from(kind, path).added == 1
    again = lab.import_from(path)
    assert (again.added, again.known) == (0, 1)
    assert f"`aico-lab import {kind}`" in again.notes[0]


def test_a_new_file_with_such_names_is_read_as_a_table(tmp_path, lab):
    line = {"content": "one", "timestamp": "2024-05-01T12:00:00Z", "id": "7", "session": "s"}
    path = write_own(tmp_path, "jsonl", [line])
    for added in (1, 0):
        result = lab.import_from(path)
        assert (result.added, result.notes) == (added, [])
    stored = lab.primary.fetch_all("SELECT message_id, conversation_id FROM messages")
    assert stored == [("7", "s")]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_older_file_with_cr_lf_in_its_texts_adds_nothing(kind, tmp_path, lab):
    """Its ids are of the text as it is in the file, in whichever order the readers come."""
    path = write_own(tmp_path, kind, [OWN[0] | {"content": "a\r\nb"}])
    assert table(tmp_path, path.read_bytes(), path.name).contents == ["a\nb"]
    assert [lab.import_from(*one).added for one in ((kind, path), (path,))] == [1, 0]
    lab.primary.execute("DELETE FROM messages")
    assert [lab.import_from(*one).added for one in ((path,), (kind, path))] == [1, 0]


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_texts_have_line_feeds_only(suffix, tmp_path):
    """The ids are those of the same table with such texts."""
    ids = set()
    for end in ("\r\n", "\n"):
        rows = [{"Text": f"a{end}b\rc", "Date": "2024-05-01 10:00", "Role": "bot"}]
        text = json.dumps(rows if suffix == "json" else rows[0])
        if suffix == "csv":
            text = f'Text,Date,Role{end}"a{end}b\rc",2024-05-01 10:00,bot{end}'
        found = table(tmp_path, text, f"chat.{suffix}")
        assert found.contents == ["a\nb\rc"]
        ids.add(found.messages[0].message_id)
    assert len(ids) == 1


def test_objects_in_lists_of_lists_are_no_table(tmp_path):
    """They are parts of the messages of another product."""
    parts = [{"type": "REQUEST", "content": "hi", "time": "2026-01-01T10:00:00Z"}]
    node = {"id": "1", "message": {"inserted_at": "2026-01-01T10:00:00Z", "fragments": parts}}
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([{"id": "d", "title": "x", "mapping": {"1": node}}]))
    told = "may be another product's file: it is JSON, a list of objects with the keys id, mapping"
    with pytest.raises(SourceUnreadable, match=told):
        recognise(path)
    with pytest.raises(SourceUnreadable, match="is no table"):
        read("table", path)


@pytest.mark.parametrize("name", ["Nummer", "Nr.", "ID"])
def test_numbers_that_count_the_messages_are_ids(name, tmp_path):
    found = table(tmp_path, f"{name};Text;Datum\n7;a;2024-05-01 10:00\n9;b;2024-05-01 10:01\n")
    assert [one.message_id for one in found.messages] == ["7", "9"]


def test_numbers_that_do_not_count_the_messages_are_kept_as_metadata(tmp_path):
    """They may be of a telephone."""
    found = table(tmp_path, "Nummer;Text;Datum\n7;a;2024-05-01 10:00\n7;b;2024-05-01 10:01\n")
    assert [one["Nummer"] for one in found.metadata] == ["7", "7"]
    assert len({one.message_id for one in found.messages}) == 2
    assert "Nummer does not count the messages" in found.batches[0].notes[0]


# Columns and roles that the user names


def test_columns_may_be_named(tmp_path):
    text = "Wert;Stempel;Wer\nhallo;13.05.2024 10:00;bot\n"
    with pytest.raises(SourceUnreadable, match=r"columns found: Wert, Stempel, Wer"):
        table(tmp_path, text)
    columns = {"content": "wert", "timestamp": "Stempel", "role": "Wer"}
    (message,) = table(tmp_path, text, columns=columns).messages
    assert (message.content, message.role) == ("hallo", "assistant")
    assert message.timestamp == "2024-05-13T10:00:00.000000Z"


def test_an_unknown_column_or_field_is_named_with_the_ones_that_exist(tmp_path):
    text = "Nachricht;Datum\nhallo;13.05.2024 10:00\n"
    with pytest.raises(
        UnknownName, match=r"no column 'Nachrict': did you mean Nachricht\? Its columns are Nach"
    ):
        table(tmp_path, text, columns={"content": "Nachrict"})
    with pytest.raises(UnknownName, match=r"no field 'contents': did you mean content\?"):
        table(tmp_path, text, columns={"contents": "Nachricht"})


def test_an_unknown_role_stops_with_the_values_and_the_option(tmp_path):
    text = "date,role,text\n2024-05-01 10:00,owner,a\n2024-05-01 10:01,Bot,b\n2024-05-01,owner,c\n"
    with pytest.raises(SourceUnreadable, match=r"owner \(2\)\. .*--role-map 'owner'=assistant"):
        table(tmp_path, text)
    found = table(tmp_path, text, role_map={"Owner": "user"})
    assert found.roles == ["user", "assistant", "user"]
    with pytest.raises(InvalidValue, match="'boss' is no role"):
        table(tmp_path, text, role_map={"owner": "boss"})


def test_known_words_are_roles_in_any_case(tmp_path):
    words = {
        "AI": "assistant",
        "bot": "assistant",
        "Human": "user",
        "ME": "user",
        "KI": "assistant",
    }
    rows = "".join(f"2024-05-01 10:0{n},{word},x{n}\n" for n, word in enumerate(words))
    found = table(tmp_path, "date,role,text\n" + rows)
    assert found.roles == list(words.values())
    tool = table(tmp_path, "date,role,text\n2024-05-01 10:00,tool,x\n" + rows)
    assert tool.roles == found.roles
    assert tool.skipped == {"message of a tool": 1}


AUTHORS = "date,author,text\n" + "".join(
    f"2024-05-01 10:0{n},{author},x{n}\n" for n, author in enumerate(["Otto", "Ada", "Otto"])
)


def test_authors_need_a_companion_as_in_exports(tmp_path):
    with pytest.raises(WhoIsWho) as question:
        table(tmp_path, AUTHORS)
    assert question.value.authors == ["Otto", "Ada"]
    for options in ({"companion": ("otto",)}, {"me": "Ada"}, {"role_map": {"Otto": "assistant"}}):
        found = table(tmp_path, AUTHORS, **options)
        assert found.roles == ["assistant", "user", "assistant"]
        assert {message.conversation_id for message in found.messages} == {"table:Otto"}
        assert [message.user_id for message in found.messages] == [None, "Ada", None]
    with pytest.raises(WhoIsWho, match="Nobody in the file is called Karl"):
        table(tmp_path, AUTHORS, companion=("Karl",))


def test_authors_that_are_words_for_roles_need_no_answer(tmp_path):
    found = table(tmp_path, AUTHORS.replace("Otto", "AI"))
    assert found.roles == ["assistant", "user", "assistant"]
    found = table(tmp_path, AUTHORS.replace("Ada", "me"))
    assert found.roles == ["assistant", "user", "assistant"]


def test_a_companion_without_a_column_of_authors_is_refused(tmp_path):
    with pytest.raises(InvalidValue, match="--map author=COLUMN"):
        table(tmp_path, "date,text\n2024-05-01 10:00,x\n", companion=("Otto",))


def test_an_export_has_columns_of_its_own():
    path = Path(__file__).parent / "exports" / "telegram_result.json"
    with pytest.raises(WrongUse, match="leave --map and --role-map out"):
        read("telegram", path, columns={"content": "text"})


# Times


TIME = datetime(2024, 5, 13, 9, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    "written",
    [
        "2024-05-13T09:05:06Z",
        "2024-05-13 09:05:06",
        "2024-05-13 11:05:06+02:00",
        "2024-05-13 11:05:06 UTC+2",
        "2024/05/13 09:05:06",
        "20240513T090506Z",
        "20240513090506",
        "1715591106",
        "1715591106000",
        "1715591106000000",
        "1715591106.0",
        "1715591106,0",
        "13.05.2024 09:05:06",
        "13.5.2024, 9:05:06 Uhr",
        "13/05/2024 09:05:06",
        "05/13/2024 09:05:06 AM",
        "5/13/24 9:05:06 am",
        "May 13, 2024 at 9:05:06 AM",
        "13. Mai 2024 09:05:06",
        "Mon May 13 09:05:06 2024",
        "Mon May 13 09:05:06 UTC 2024",
        "May 13 09:05:06 2024",
        "13 mai 2024 à 09:05:06",
        "13 de mayo de 2024 9:05:06",
        "Mon, 13 May 2024 09:05:06 GMT",
        "09:05:06 13.05.2024",
        "45425.37854166667",
        "45425,37854166667",
    ],
)
def test_a_time_is_read_in_many_forms(written, tmp_path):
    found = table(tmp_path, f'date;text\n"{written}";hello\n')
    (message,) = found.messages
    assert datetime.fromisoformat(message.timestamp) == TIME
    assert message.metadata is None
    if written.isdecimal():
        array = table(tmp_path, json.dumps([{"date": int(written), "text": "hello"}]), "a.json")
        assert array.messages == found.messages


@pytest.mark.parametrize(
    "written", ["1.7155911E+12", "13.13.2024 10:00", "2024-05-13 25:00", "soon", "17", "12:30 PM"]
)
def test_what_is_no_time_is_reported_with_its_line(written, tmp_path):
    found = table(tmp_path, f"date;text\n{written};a\n2024-05-13 10:00;b\n")
    assert found.contents == ["b"]
    ((line, reason),) = reasons(found)
    assert line == 2
    assert reason.startswith("timestamp is")
    assert written not in reason


def test_serial_numbers_of_a_spreadsheet_need_a_time_of_day(tmp_path):
    """Whole numbers may be anything."""
    with pytest.raises(SourceUnreadable, match="numbers that are no times since 1970"):
        table(tmp_path, "date,text\n45425,a\n45426,b\n")


def test_a_column_with_both_orders_stops_with_the_two_lines(tmp_path):
    text = "date,text\n1/2/2024 10:00,a\n13/2/2024 10:00,b\n3/4/2024 10:00,c\n2/14/2024 10:00,d\n"
    with pytest.raises(SourceUnreadable, match=r"month before the day in line 5.* in line 3"):
        table(tmp_path, text)


def test_a_column_that_leaves_the_order_open_stops_with_the_advice(tmp_path):
    text = "date,text\n5/5/2024 10:00,a\n1/2/2024 10:00,b\n"
    with pytest.raises(SourceUnreadable, match=r"line 3, .*--day-first or --month-first"):
        table(tmp_path, text)
    assert min(table(tmp_path, text, day_first=True).times).startswith("2024-02-01")
    assert min(table(tmp_path, text, day_first=False).times).startswith("2024-01-02")
    assert table(tmp_path, text[:-18]).times == ["2024-05-05T10:00:00.000000Z"]


def test_folds_and_gaps_are_resolved_by_order(tmp_path):
    """On 27 October 2024 the hour from 2 came twice in Berlin; on 31 March it did not come."""
    times = ["2024-03-31 02:30", "2024-10-27 02:50", "2024-10-27 02:10", "2024-10-27 03:00"]
    text = "date,role,text\n" + "".join(f"{time},user,{n}\n" for n, time in enumerate(times))
    found = table(tmp_path, text, zone=BERLIN)
    hours = [time[11:16] for time in found.times]
    assert hours == ["01:00", "00:50", "01:10", "02:00"]
    assert [one.get("timestamp_estimated") for one in found.metadata] == [True, None, True, None]


@pytest.mark.parametrize("begin", ["", "2025-03-30 01:59,user,a\n"])
def test_a_time_that_no_clock_showed_stands_between_its_neighbours(begin, tmp_path):
    """On 30 March 2025 Berlin's clocks went from 1:59:59 to 3:00:00."""
    later = "02:00", "02:30", "02:10", "03:00", "03:01", "03:02"
    text = f"date,role,text\n{begin}" + "".join(f"2025-03-30 {one},user,{one}\n" for one in later)
    found = table(tmp_path, text, zone=BERLIN)
    assert found.times == sorted(found.times)
    assert [time[11:19] for time in found.times][-6:] == [*["01:00:00"] * 4, "01:01:00", "01:02:00"]
    estimated = [one.get("timestamp_estimated") for one in found.metadata][-6:]
    assert estimated == [True] * 3 + [None] * 3


def test_a_day_that_no_calendar_had_stands_between_its_neighbours(tmp_path):
    text = "date,role,text\n" + "".join(
        f"2011-12-{time},user,x\n" for time in ("29 23:59", "30 12:00", "31 00:00", "31 00:01")
    )
    found = table(tmp_path, text, zone=get_zone("Pacific/Apia"))
    assert [time[11:16] for time in found.times] == ["09:59", "10:00", "10:00", "10:01"]


def test_a_time_without_a_zone_is_utc_and_counted_unless_the_header_says_so(tmp_path):
    text = "date,text\n2024-05-01 10:00,a\n2024-05-01 10:00Z,b\n"
    assert sum(batch.zoneless for batch in table(tmp_path, text).batches) == 1
    said = table(tmp_path, text.replace("date", "Date (UTC)"), zone=BERLIN)
    assert said.times == ["2024-05-01T10:00:00.000000Z"] * 2
    assert sum(batch.zoneless for batch in said.batches) == 0


def test_a_missing_time_is_that_of_its_neighbour_in_the_conversation(tmp_path):
    text = (
        "chat,date,text\nA,,a\nA,2024-05-01 10:00,b\nB,2024-05-02 10:00,c\nA,,d\nB,null,e\nB,0,f\n"
    )
    found = table(tmp_path, text)
    assert [time[8:10] for time in found.times] == ["01", "01", "02", "01", "02", "02"]
    assert [bool(one) for one in found.metadata] == [True, False, False, True, True, True]
    assert sum(batch.estimated for batch in found.batches) == 4


def test_a_date_without_a_time_of_day_is_marked(tmp_path):
    found = table(tmp_path, "date,text\n2024-05-01,a\n2024-05-02,b\n", zone=BERLIN)
    assert found.times == ["2024-04-30T22:00:00.000000Z", "2024-05-01T22:00:00.000000Z"]
    assert all(one["timestamp_estimated"] for one in found.metadata)


def test_a_table_without_times_needs_a_start(tmp_path, lab):
    text = "role,text\nuser,ok\nbot,ok\nuser,ok\n"
    with pytest.raises(SourceUnreadable, match=r"--start TIME, .*--step SECONDS"):
        table(tmp_path, text)
    start = datetime(2024, 5, 1, tzinfo=UTC)
    found = table(tmp_path, text, start=start, step=timedelta(seconds=30))
    assert [time[14:19] for time in found.times] == ["00:00", "00:30", "01:00"]
    path = tmp_path / "chat.csv"
    assert lab.import_from(path, options=Options(start=start)).added == 3
    later = Options(start=start + timedelta(days=9))
    assert lab.import_from(path, options=later).added == 0


def test_times_of_an_import_are_refused_unless_they_are_trusted(tmp_path):
    text = "date,text\n" + "".join(f"2024-05-01 10:00:07,{n}\n" for n in range(9))
    with pytest.raises(SourceUnreadable, match="--trust-times"):
        table(tmp_path, text)
    assert len(table(tmp_path, text, trust_times=True).messages) == 9


def test_a_table_that_begins_with_the_newest_message_is_read_in_order(tmp_path):
    rows = [f"2024-05-01 10:{n:02},{'me' if n % 3 else 'AI'},{n}\n" for n in range(40)]
    text = "date,author,text\n"
    forwards = table(tmp_path, text + "".join(rows)).messages
    assert table(tmp_path, text + "".join(reversed(rows))).messages == forwards


# Properties


FORMS = {
    "iso": "%Y-%m-%d %H:%M:%S",
    "year": "%Y/%m/%d %H:%M:%S",
    "dotted": "%d.%m.%Y %H:%M:%S",
    "day": "%d/%m/%Y %H:%M:%S",
    "day-": "%d-%m-%Y %H:%M:%S",
    "month": "%m/%d/%Y %I:%M:%S %p",
    "short day": "%d/%m/%y %H:%M:%S",
    "short month": "%m/%d/%y %H:%M:%S",
    "short year": "%y/%m/%d %H:%M:%S",
    "short dotted": "%d.%m.%y %H:%M:%S",
}
moments = st.datetimes(
    datetime(1990, 1, 2),  # noqa: DTZ001 local times
    datetime(2026, 1, 1),  # noqa: DTZ001
).map(lambda moment: moment.replace(microsecond=0))


@settings(deadline=None)
@given(st.lists(moments, min_size=1, max_size=12), st.sampled_from(sorted(FORMS)), st.booleans())
def test_dates_in_any_order_are_read_exactly_or_refused(times, form, padded):
    """Never with day, month and year in another order."""
    texts = [time.strftime(FORMS[form]) for time in times]
    if not padded and "short" not in form:
        texts = [text.lstrip("0").replace("/0", "/") for text in texts]
    known = FormOfTimes()
    for number, text in enumerate(texts, 2):
        known.add(number, text)
    try:
        known.decide("date")
    except SourceUnreadable as refused:
        assert "--day-first" in str(refused)  # noqa: PT017 it is either of two outcomes
        assert form not in ("iso", "year", "dotted", "short dotted")
        return
    assert [known.time_of(text).time for text in texts] == times


@settings(deadline=None)
@given(st.lists(moments, min_size=2, max_size=12), st.data())
def test_orders_that_contradict_each_other_are_never_read(times, data):
    """A file that was put together from two forms is refused unless no date shows it."""
    texts = [
        time.strftime(data.draw(st.sampled_from(["%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S"])))
        for time in times
    ]
    known = FormOfTimes()
    for number, text in enumerate(texts, 2):
        known.add(number, text)
    day_first = any(int(text[:2]) > 12 for text in texts)
    month_first = any(int(text[3:5]) > 12 for text in texts)
    if day_first and month_first:
        with pytest.raises(SourceUnreadable, match=r"month before the day in line \d+"):
            known.decide("date")


words = st.text(
    st.sampled_from("abc ,;|\t\"'\näß€é=-.0"), max_size=12
).filter(lambda text: text.strip() == text)  # fmt: skip


def reads_as_utf_8(line: bytes) -> bool:
    """Return whether a line that is not ASCII is valid UTF-8, as "ß€" in Windows-1252 is."""
    try:
        return not line.decode().isascii()
    except UnicodeDecodeError:
        return False


@settings(deadline=None)
@example(rows=[("", "€")], delimiter=",", encoding="cp1252", quoting=csv.QUOTE_MINIMAL, end="\n")
@given(
    rows=st.lists(st.tuples(words, words.filter(bool)), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_program_writes_is_read_back(  # noqa: PLR0917
    tmp_path_factory, rows, delimiter, encoding, quoting, end
):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow(["Date", "Note", "Text"])
    for number, (note, text) in enumerate(rows):
        writer.writerow([f"2024-05-01 10:{number:02}", note, text])
    data = out.getvalue().encode(encoding)
    # Such a line has two readings, and a table is read as UTF-8 where it can be.
    assume(encoding != "cp1252" or not any(map(reads_as_utf_8, data.split(b"\n"))))
    folder = tmp_path_factory.mktemp("table")
    found = table(folder, data)
    assert found.contents == [text for _, text in rows]
    assert [one.get("Note", "") for one in found.metadata] == [note for note, _ in rows]
    assert found.rejected == []
    again = table(folder, data)
    assert [one.message_id for one in again.messages] == [one.message_id for one in found.messages]
    assert len({one.message_id for one in found.messages}) == len(rows)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_last_row_that_is_cut_short_is_left_out(tmp_path, encoding, end):
    """It has a text and a time, but perhaps not all of the text; a whole line may be short."""
    begin = f"date,text,note{end}2024-05-01 10:00,5 €,x{end}2024-05-01 10:01,6 €"
    found = table(tmp_path, begin.encode(encoding))
    assert found.contents == ["5 €"]
    assert reasons(found) == [(3, "the row has 2 columns, the header has 3: it is cut off")]
    assert table(tmp_path, f"{begin}{end}".encode(encoding)).contents == ["5 €", "6 €"]


def test_a_later_file_adds_only_what_is_new(tmp_path, lab):
    rows = [f"2024-05-01 10:{n:02},{'me' if n % 2 else 'AI'},same\n" for n in range(30)]
    begin = "date,author,text\n"
    (tmp_path / "may.csv").write_text(begin + "".join(rows[:20]))
    (tmp_path / "june.csv").write_text(begin + "".join(rows[5:]))
    assert lab.import_from(tmp_path / "may.csv").added == 20
    assert lab.import_from(tmp_path / "june.csv").added == 10
    assert lab.import_from(tmp_path / "june.csv").added == 0


NAIVE = "date,author,text\n" + "".join(
    f"{time},{author},same\n"
    for time in ("2024-10-27 02:50", "2024-10-27 02:10", "2024-03-31 02:30", "2024-05-01 10:00")
    for author in ("Otto", "Ada")
)


def stored_in(lab: Any, columns: str) -> list[Any]:
    return lab.primary.fetch_all(f"SELECT {columns} FROM messages ORDER BY timestamp, id")


def test_another_zone_updates_the_times_of_the_same_messages(tmp_path, lab):
    """Also in the hours that come twice, or not at all, where the time is a guess."""
    path = tmp_path / "chat.csv"
    path.write_text(NAIVE)
    assert lab.import_from(path, options=Options(companion=("Otto",))).added == 8
    for zone in ("Europe/Berlin", "Asia/Tokyo", None):
        answers = {"companion": ("Otto",), "zone": zone and get_zone(zone)}
        options = Options(**answers)
        result = lab.import_from(path, options=options)
        assert (result.added, result.known, result.updated) == (0, 0, 8)
        times = [one.timestamp for one in read("table", path, **answers).messages]
        assert [time for (time,) in stored_in(lab, "timestamp")] == sorted(times)
        assert lab.import_from(path, options=options).known == 8


def test_another_zone_of_a_table_of_an_older_reader_updates_it_too(tmp_path, lab):
    path = write_own(tmp_path, "csv", [one | {"timestamp": one["timestamp"][:19]} for one in OWN])
    assert lab.import_from("csv", path).added == len(OWN)
    result = lab.import_from(path, options=Options(zone=BERLIN))
    assert (result.added, result.conflicts) == (0, len(OWN))


def test_a_table_with_ids_keeps_what_is_stored(tmp_path, lab):
    """Ids such as 1 and 2 may belong to another table: nothing stored is lost unasked."""
    for text, counts in [("one", (1, 0)), ("two", (0, 0))]:
        path = tmp_path / f"{text}.csv"
        path.write_text(f"id,date,text\n1,2024-05-01 10:00,{text}\n")
        result = lab.import_from(path)
        assert (result.added, result.updated) == counts
    assert (result.conflicts, result.on_conflict) == (1, "keep")
    assert stored_in(lab, "content") == [("one",)]


@pytest.mark.parametrize("role_map", [{"x": "user"}, {"x": "system"}])
def test_another_role_of_the_same_messages_updates_them(role_map, tmp_path, lab):
    path = tmp_path / "chat.csv"
    path.write_text("date,chat,role,text\n2024-05-01 10:00,A,x,Hi\n2024-05-01 10:00,A,user,Hi\n")
    assert lab.import_from(path, options=Options(role_map={"x": "assistant"})).added == 2
    result = lab.import_from(path, options=Options(role_map=role_map))
    assert (result.added, result.known, result.updated) == (0, 1, 1)
    assert {role for (role,) in stored_in(lab, "role")} == {role_map["x"], "user"}


def test_another_companion_in_the_same_conversation_updates_the_roles(tmp_path, lab):
    path = tmp_path / "chat.csv"
    path.write_text(
        "date,chat,author,text\n2024-05-01 10:00,A,Ada,Hi\n2024-05-01 10:00,A,Otto,Hi\n"
    )
    assert lab.import_from(path, options=Options(companion=("Ada",))).added == 2
    result = lab.import_from(path, options=Options(companion=("Otto",)))
    assert (result.added, result.updated) == (0, 2)
    assert dict(stored_in(lab, "json_extract(metadata, '$.author'), role")) == {
        "Ada": "user",
        "Otto": "assistant",
    }


AMBIGUOUS = """Date,Sender,Message
1/2/2026 10:05,Ada,hello
1/3/2026 9:06,Otto,yes
3/1/2026 9:06,Otto,yes
5/5/2026 9:06,Ada,bye
"""


@pytest.mark.parametrize("more", ["", "13/5/2026 9:07,Otto,bye\n"])
def test_another_order_of_day_and_month_updates_the_times(tmp_path, lab, more):
    """Also if a later file shows it by itself."""
    path = tmp_path / "chat.csv"
    path.write_text(AMBIGUOUS)
    assert lab.import_from(path, companion="Otto", day_first=False).added == 4
    path.write_text(AMBIGUOUS + more)
    corrected = {} if more else {"day_first": True}
    result = lab.import_from(path, companion="Otto", timezone="UTC", **corrected)
    assert (result.added, result.updated) == (bool(more), 1)  # the other two are each other's
    days = {time[:10] for (time,) in stored_in(lab, "timestamp")}
    assert days == {"2026-02-01", "2026-03-01", "2026-01-03", "2026-05-05"} | (
        {"2026-05-13"} if more else set()
    )
    again = lab.import_from(path, companion="Otto", timezone="UTC", **corrected)
    assert (again.added, again.updated) == (0, 0)


def test_another_companion_of_a_table_updates_its_roles(tmp_path, lab):
    path = tmp_path / "chat.csv"
    path.write_text(AUTHORS)
    added = lab.import_from(path, companion="Ada").added
    for _ in range(2):
        result = lab.import_from(path, companion="Otto")
        assert result.added == 0
        assert dict(stored_in(lab, "json_extract(metadata, '$.author'), role")) == {
            "Ada": "user",
            "Otto": "assistant",
        }
        assert set(stored_in(lab, "role, user_id")) == {("user", "Ada"), ("assistant", None)}
    assert result.updated == 0
    path.write_text(f"{AUTHORS}2024-05-03 10:00,Ada,more\n")
    assert lab.import_from(path, companion="Otto").added == 1
    assert set(stored_in(lab, "conversation_id")) == {("table:Ada",)}
    assert lab.primary.fetch_all("SELECT count(*) FROM messages") == [(added + 1,)]


def dated(*days: int, month: int = 1) -> str:
    """Return rows of a table on some days of a month, in two spellings if both are possible."""
    return "".join(f"{day}/{month}/2026 10:05,{'AO'[day % 2]},text {day}.{month}\n" for day in days)


DATED = "Date,Sender,Message\n"


@pytest.mark.parametrize("is_at_once", [False, True])
def test_companion_and_order_of_a_table_may_both_be_corrected(tmp_path, lab, is_at_once):
    path = tmp_path / "chat.csv"
    path.write_text(DATED + dated(1, 2, 3, 4))
    assert lab.import_from(path, companion="A", day_first=False).added == 4
    if not is_at_once:
        assert lab.import_from(path, companion="A", day_first=True).added == 0
    assert lab.import_from(path, companion="O", day_first=True).added == 0
    path.write_text(DATED + dated(1, 2, 3, 4) + dated(5, month=2))
    assert lab.import_from(path, companion="O", day_first=True).added == 1
    assert sorted(stored_in(lab, "timestamp, role")) == [
        *(
            (f"2026-01-0{day}T10:05:00.000000Z", ("user", "assistant")[day % 2])
            for day in range(1, 5)
        ),
        ("2026-02-05T10:05:00.000000Z", "assistant"),
    ]
    assert len(set(stored_in(lab, "conversation_id"))) == 1


@pytest.mark.parametrize("companion", ["A", "O"])
@pytest.mark.parametrize("is_newest_first", [False, True])
def test_a_table_that_was_corrected_is_never_doubled(tmp_path, lab, companion, is_newest_first):
    """Each row is known by the answers of its own first import, whatever file it is in."""
    path = tmp_path / "chat.csv"
    months = [dated(*range(2 + at, 11), month=1 + at) for at in range(4)]
    sizes = [text.count("\n") for text in months]

    def take(*which: int, **answers: Any) -> int:
        rows = "".join(months[at] for at in which).splitlines(keepends=True)
        path.write_text(DATED + "".join(rows[::-1] if is_newest_first else rows))
        answers = {"companion": "O", "day_first": True, "timezone": "UTC"} | answers
        return lab.import_from(path, **answers).added

    assert take(0, companion=companion, day_first=False) == sizes[0]
    assert take(0) == 0
    assert take(1) == sizes[1]
    assert take(0, 1, 2) == sizes[2]
    assert take(0, 1, 2, 3) == sizes[3]
    assert {time[5:7] for (time,) in stored_in(lab, "timestamp")} == {"01", "02", "03", "04"}


@pytest.mark.parametrize("first", [1, 3])
def test_an_order_may_be_corrected_wherever_the_stored_rows_lie_in_a_longer_file(
    tmp_path, lab, first
):
    path = tmp_path / "chat.csv"
    path.write_text(DATED + dated(*range(1, 13), month=first))
    assert lab.import_from(path, companion="O", day_first=False).added == 12
    path.write_text(DATED + "".join(dated(*range(1, 13), month=at) for at in range(1, 7)))
    assert lab.import_from(path, companion="O", day_first=True).added == 60
    assert {time[5:7] for (time,) in stored_in(lab, "timestamp")} == {f"0{n}" for n in range(1, 7)}


def test_an_equal_text_at_the_same_time_of_another_day_shows_no_wrong_order(tmp_path, lab):
    """As each day begins with the same words of the companion."""
    path = tmp_path / "chat.csv"
    for days in (["2/1", "3/1", "4/1"], ["1/2"], ["1/3", "1/4"]):
        rows = "".join(
            f"{day}/2026 08:00,O,Good morning!\n{day}/2026 08:01,A,on {day}\n" for day in days
        )
        path.write_text(DATED + rows)
        result = lab.import_from(path, companion="O", day_first=True)
        assert (result.added, result.updated) == (2 * len(days), 0)


@pytest.mark.parametrize("day_first", list(itertools.product([True, False], repeat=3)))
def test_rows_that_come_with_another_order_are_known_by_that_of_the_others(
    tmp_path, lab, day_first
):
    path = tmp_path / "chat.csv"
    for months, is_day_first in enumerate(day_first, 1):
        path.write_text(DATED + "".join(dated(*range(1, 13), month=at + 1) for at in range(months)))
        assert lab.import_from(path, companion="O", day_first=is_day_first).added == 12


def test_a_companion_may_be_corrected_back_after_the_table_grew(tmp_path, lab):
    path = tmp_path / "chat.csv"
    for companion, days, added in (("A", 4, 4), ("O", 9, 5), ("A", 9, 0), ("O", 9, 0)):
        path.write_text(DATED + dated(*range(1, days + 1)))
        assert lab.import_from(path, companion=companion, day_first=True).added == added


def test_a_wrong_companion_takes_no_answers_of_another_person(tmp_path, lab):
    def take(person: str, companion: str, *answers: str) -> tuple[int, int]:
        days = "".join(
            f"2026-01-0{at},Otto,Question {at}?\n2026-01-0{at},{person},{answer}\n"
            for at, answer in enumerate(answers, 5)
        )
        path = tmp_path / f"{person}.csv"
        path.write_text(f"date,author,text\n{days}")
        result = lab.import_from(path, companion=companion)
        return result.added, result.updated

    assert take("Ada", "Otto", "fine", "slept") == (4, 0)
    assert take("Ben", "Ben", "sad", "worked") == (4, 0)
    assert take("Ben", "Otto", "sad", "worked") == (0, 4)
    assert take("Ada", "Otto", "fine", "slept") == (0, 0)


def test_a_companion_may_be_corrected_and_corrected_back(tmp_path, lab):
    path = tmp_path / "chat.csv"
    path.write_text(DATED + dated(1, 2, 3, 4))
    for companion in "OAOAO":
        result = lab.import_from(path, companion=companion, day_first=True)
        assert result.added == (0 if result.known + result.updated else 4)
    assert set(stored_in(lab, "conversation_id, role, user_id")) == {
        ("table:O", "user", "A"),
        ("table:O", "assistant", None),
    }


def test_days_that_read_the_same_both_ways_decide_nothing(tmp_path, lab):
    path = tmp_path / "chat.csv"
    path.write_text(
        DATED + "".join(f"1/1/2026 {at // 60}:{at % 60:02},A,text {at}\n" for at in range(210))
        + dated(2, 3, 4)
    )  # fmt: skip
    assert lab.import_from(path, companion="O", day_first=False).added == 213
    result = lab.import_from(path, companion="O", day_first=True)
    assert (result.added, result.updated) == (0, 3)


@pytest.mark.parametrize("names", list(itertools.permutations([None, "Ada", "Bea"], 2)))
def test_another_person_of_a_table_without_authors_has_another_conversation(tmp_path, lab, names):
    """It may be another participant's, who was asked the same; the import says so."""
    path = tmp_path / "chat.csv"
    path.write_text(
        "date,role,text\n2024-05-01 10:00,user,Hi\n2024-05-01 10:00,assistant,Hi\n"
        "2024-05-01 10:01,user,so?\n"
    )
    first = lab.import_from(path, me=names[0])
    second = lab.import_from(path, me=names[1])
    again = lab.import_from(path, me=names[1])
    assert (first.added, second.added, again.added) == (3, 3, 0)
    stored = f"are stored as the conversation direct:{names[0] or 'me'}:"
    assert [stored in " ".join(one.notes) for one in (first, second, again)] == [
        False, True, False
    ]  # fmt: skip
    assert set(stored_in(lab, "conversation_id, user_id")) >= {
        (f"direct:{name or 'me'}", name or "me") for name in names
    }


@pytest.mark.parametrize(
    "text",
    [
        "date,prompt,response\n2026-01-05,How are you?,{}\n2026-01-06,Slept?,{}\n",
        "date,role,text\n2026-01-05,user,{}\n2026-01-05,bot,So?\n2026-01-06,user,{}\n2026-01-06,bot,Oh\n",
        "date,role,text\n2026-01-05,bot,So?\n2026-01-05,user,{}\n2026-01-06,bot,Oh\n2026-01-06,user,{}\n",
    ],
)
def test_answers_of_two_people_to_the_same_questions_stay_apart(tmp_path, lab, text):
    path = tmp_path / "study.csv"
    for _ in range(2):
        for me, said in (("Ada", ("fine", "well")), ("Ben", ("sad", "badly"))):
            path.write_text(text.format(*said))
            lab.import_from(path, me=me)
    found = stored_in(lab, "conversation_id, content")
    assert {text for name, text in found if name == "direct:Ben"} >= {"sad", "badly"}
    assert not {text for name, text in found if name == "direct:Ada"} & {"sad", "badly"}
    assert len(found) == 2 * 4


def test_tables_of_two_companions_are_two_conversations(tmp_path, lab):
    for name, minute in (("Otto", 1), ("Pelle", 2)):
        path = tmp_path / f"{name}.csv"
        path.write_text(
            "date,author,text\n2024-05-01 10:00,Mira,Good morning\n"
            f"2024-05-01 10:0{minute},{name},Hello\n"
        )
        result = lab.import_from(path, options=Options(companion=(name,)))
        assert (result.added, result.known) == (2, 0)
    assert stored_in(lab, "conversation_id, count(*) OVER (PARTITION BY conversation_id)") == [
        ("table:Otto", 2), ("table:Pelle", 2), ("table:Otto", 2), ("table:Pelle", 2)
    ]  # fmt: skip


def rows_of_study(path: Path, *rows: tuple[int, str, str]) -> Path:
    """Write messages of a minute, an author and a text."""
    lines = (f"2024-05-01 10:{minute:02},{author},{text}\n" for minute, author, text in rows)
    path.write_text("time,author,text\n" + "".join(lines))
    return path


def test_files_of_participants_are_conversations_of_their_own(tmp_path, lab):
    """Equal answers in one minute are two, and each file goes on in its own conversation."""
    options = Options(companion=("Zed",))
    ann = [(0, "Ann", "hi"), (1, "Zed", "Hello!"), (5, "Ann", "bye")]
    bob = [(0, "Bob", "hey"), (1, "Zed", "Hello!"), (6, "Zed", "Still there?")]
    cy = [(0, "Cy", "hey"), (1, "Zed", "Hello!")]
    added = [
        lab.import_from(rows_of_study(tmp_path / "p.csv", *rows), options=options).added
        for rows in (ann, bob, cy, bob, ann, [*bob, (7, "Bob", "yes")], [*ann, (8, "Ann", "well")])
    ]
    assert added == [3, 3, 2, 0, 0, 1, 1]
    counted = "SELECT conversation_id, count(*) FROM messages GROUP BY 1 ORDER BY 1"
    assert lab.primary.fetch_all(counted) == [
        ("table:Zed", 4), ("table:Zed with Bob", 4), ("table:Zed with Cy", 2)
    ]  # fmt: skip


def test_a_home_in_which_participants_share_a_conversation_adds_nothing_twice(tmp_path, lab):
    options = Options(companion=("Zed",))
    both = [(0, "Ann", "hi"), (0, "Bob", "hey"), (1, "Zed", "Hello!"), (3, "Ann", "so")]
    lab.import_from(rows_of_study(tmp_path / "all.csv", *both), options=options)
    bob = [both[1], both[2], (4, "Bob", "yes")]
    assert lab.import_from(rows_of_study(tmp_path / "p.csv", *bob), options=options).added == 1
    assert {row[0] for row in stored_in(lab, "conversation_id")} == {"table:Zed"}
    more = [(9, "Bob", "new"), (9, "Cy", "hi"), (9, "Zed", "Hi")]  # who came later
    assert lab.import_from(rows_of_study(tmp_path / "p.csv", *more), options=options).added == 3
    assert {row[0] for row in stored_in(lab, "conversation_id")} == {"table:Zed"}


def test_a_group_with_its_companion_is_one_conversation(tmp_path):
    authors = ("Mira", "Otto", "Ann", "otto", "Mira")
    text = "date,author,text\n" + "".join(
        f"2024-05-01 10:0{n},{author},x\n" for n, author in enumerate(authors)
    )
    found = table(tmp_path, text, companion=("otto",))
    assert {one.conversation_id for one in found.messages} == {"table:Otto"}
    assert [one.user_id for one in found.messages] == ["Mira", None, "Ann", None, "Mira"]
    roles = "date,author,role,text\n" + "".join(
        f"2024-05-01 10:0{n},{author},{'bot' if author in 'Ottotto' else 'user'},x\n"
        for n, author in enumerate(authors)
    )
    found = table(tmp_path, roles)
    assert {one.conversation_id for one in found.messages} == {"table:Otto"}


def test_columns_of_conversations_or_no_named_companion_leave_them_apart(tmp_path):
    chats = "date,chat,author,text\n2024-05-01 10:00,A,Ada,x\n2024-05-01 10:00,B,Otto,x\n"
    found = table(tmp_path, chats, companion=("Otto",))
    assert [one.conversation_id for one in found.messages] == ["A", "B"]
    unnamed = "date,author,role,text\n2024-05-01 10:00,Ada,user,x\n2024-05-01 10:00,,bot,x\n"
    found = table(tmp_path, unnamed)
    assert [one.conversation_id for one in found.messages] == ["direct:Ada"] * 2


# Saved imports


def test_a_saved_import_is_one_command(cli, lab, home, tmp_path):
    lab.close()
    may, june = tmp_path / "may.csv", tmp_path / "june.csv"
    may.write_text("Wann;Wer;Was\n3.4.2024 10:00;Ada;a\n4.4.2024 10:00;Otto;b\n", encoding="utf-8")
    june.write_text("Wann;Wer;Was\n3.6.2024 10:00;Ada;ä\n", encoding="utf-16")
    answers = (
        *("--map", "content=Was", "--map", "timestamp=Wann", "--map", "author=Wer"),
        *("--companion", "Otto", "--companion", 'Ott"o', "--timezone", "europe/berlin"),
    )
    done = cli("import", str(may), *answers, "--save", "monthly")
    assert done.returncode == 0, done.stderr
    file = home / "sources" / "monthly.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "`aico-lab import monthly FILE" in done.stderr
    assert "aico-lab import monthly FILE" in cli("sources").stdout
    assert "monthly" in json.loads(cli("sources", "--json").stdout)
    refused = cli("import", "monthly", str(june))
    assert refused.returncode == 2
    assert "Nobody in the file is called Otto" in refused.stderr
    june.write_text(
        "Wann;Wer;Was\n3.6.2024 10:00;Ada;ä\n3.6.2024 11:00;Otto;c\n", encoding="utf-16"
    )
    result = json.loads(cli("import", "monthly", str(june), "--json").stdout)
    assert (result["added"], result["first"]) == (2, "2024-06-03T08:00:00.000000Z")
    other = json.loads(
        cli("import", "monthly", str(june), "--timezone", "UTC", "--dry-run", "--json").stdout
    )
    assert other["first"] == "2024-06-03T10:00:00.000000Z"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mapp = {}", r"unknown key 'mapp': did you mean map\?"),
        ("map = { contnt = 'x' }", r"'map' in .*toml: .*did you mean content\?"),
        ("map = 3", r"'map' in .*must be a table such as"),
        ("role_map = { a = 'b' }", r"'role_map' in .*'b' is no role"),
        ("timezone = 'Europe/Berln'", r"'timezone' in .*did you mean Europe/Berlin"),
        ("step = -1", r"'step' in .*must be a number of seconds"),
        ("start = 'soon'", r"'start' in .*must be a time such as"),
        ("day_first = 'yes'", r"'day_first' in .*must be true or false"),
        ("companion = [3]", r"'companion' in .*must be a name in quotes, or a list"),
        ("format = 'tabel'", r"did you mean table\?"),
        ("format = ", r"monthly\.toml is not valid TOML"),
    ],
)
def test_a_fault_in_a_saved_import_names_file_key_and_remedy(text, message, lab, tmp_path):
    (lab.home.path / "sources").mkdir()
    (lab.home.path / "sources" / "monthly.toml").write_text(text)
    (tmp_path / "x.csv").write_text("date,text\n2024-05-01 10:00,x\n")
    with pytest.raises(WrongUse, match=message):
        lab.import_from("monthly", tmp_path / "x.csv")


def test_a_step_of_a_pipeline_may_name_a_saved_import(cli, lab, tmp_path):
    from aico_lab.pipeline import load_pipeline

    (lab.home.path / "sources").mkdir()
    (lab.home.path / "sources" / "monthly.toml").write_text("map = { content = 'Was' }\n")
    (tmp_path / "x.csv").write_text("date,Was\n2024-05-01 10:00,x\n")
    steps = tmp_path / "steps.toml"
    steps.write_text("[[steps]]\nrun = 'import'\nsource = 'monthly'\npath = 'x.csv'\n")
    assert cli("pipeline", "run", str(steps)).returncode == 0
    assert lab.primary.fetch_all("SELECT content FROM messages") == [("x",)]
    steps.write_text(steps.read_text().replace("monthly", "yearly"))
    with pytest.raises(UnknownName, match="yearly"):
        load_pipeline(str(steps), lab.home)


def test_a_name_of_a_source_or_a_path_is_not_saved(cli, lab, tmp_path):
    lab.close()
    (tmp_path / "x.csv").write_text("date,text\n2024-05-01 10:00,x\n")
    for name in ("csv", "../x", "a b"):
        done = cli("import", str(tmp_path / "x.csv"), "--save", name)
        assert done.returncode == 2
    assert not list((tmp_path).glob("*.toml"))


# Bad input


BAD = "date,author,text\n"


def test_rows_that_do_not_fit_are_reported_and_the_rest_goes_in(tmp_path):
    text = (
        BAD
        + "2024-05-01 10:00,me,one\n"
        + "2024-05-01 10:01\n"
        + "2024-05-01 10:02,me,two, and three\n"
        + '2024-05-01 10:03,me,said "four"\n'
        + '2024-05-01 10:04,me,"five\n'
        + "2024-05-01 10:05,me,six\n"
        + "2024-05-01 10:06,me,se\0ven\n"
        + '2024-05-01 10:07,me,"eight\nand ""nine"""\n'
        + "2024-05-01 10:08,me,ten,\n"
        + "2024-05-01 10:0"
    )  # fmt: skip
    found = table(tmp_path, text)
    wanted = ["one", "two, and three", 'said "four"', "six", "seven", 'eight\nand "nine"', "ten"]
    assert found.contents == wanted
    assert [line for line, _ in reasons(found)] == [3, 6, 12]


def test_lines_in_another_encoding_are_read_and_noted(tmp_path):
    rows = [f"2024-05-01 10:{n:02},me,Grüße {n}\n".encode() for n in range(9)]
    rows[4] = "2024-05-01 10:04,me,Grüße 4\n".encode("cp1252")
    rows[6] = b"2024-05-01 10:06,me,\x81\x8d\n"
    found = table(tmp_path, BAD.encode() + b"".join(rows))
    assert found.contents == [f"Grüße {n}" for n in range(9) if n != 6]
    assert reasons(found) == [(8, "the row is not UTF-8")]
    (note,) = found.batches[0].notes
    assert "1 line is not UTF-8" in note
    assert "Windows-1252; the first is line 6" in note


def test_an_empty_file_and_one_without_rows(tmp_path):
    with pytest.raises(SourceUnreadable, match="is empty"):
        table(tmp_path, "")
    found = table(tmp_path, BAD)
    assert found.messages == []
    assert found.batches[0].notes == ["chat.csv has columns, and no rows."]


def test_columns_with_the_same_name_are_told_apart(tmp_path):
    found = table(tmp_path, "date,text,text\n2024-05-01 10:00,a,b\n")
    assert found.contents == ["a"]
    assert found.metadata == [{"text (2)": "b"}]
    assert "names text more than once" in found.batches[0].notes[0]
    mapped = table(
        tmp_path, "date,text,text\n2024-05-01 10:00,a,b\n", columns={"content": "text (2)"}
    )
    assert mapped.contents == ["b"]


def test_an_error_quotes_no_message_of_a_file_without_a_header(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("2024-05-01 10:00,I love you dearly\n2024-05-01 10:01,so do I\n")
    for call in (recognise, lambda file: read("table", file)):
        with pytest.raises(SourceUnreadable) as refused:
            call(path)
        assert "dearly" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("x,my secret love\nx,so do I\n", {"content": "x"}),
        ("text,my secret love is Otto dearest\nx,so do I\n", {}),
        ("date,role,text\n2024-05-01,my secret love is Otto,x\n", {}),
        ("date,author,text\n2024-05-01,my secret love is Otto,x\n2024-05-01,Ada,x\n", {}),
    ],
)
def test_an_error_quotes_no_sentence_as_a_name(text, columns, tmp_path):
    """Of a first line that is no header, and of columns of authors or roles that have messages."""
    with pytest.raises(AicoLabError) as refused:
        table(tmp_path, text, columns=columns)
    assert "secret" not in str(refused.value)


def test_a_table_of_unknown_columns_is_refused_with_the_option_that_names_them(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("Wert;Stempel\nhallo;2024-05-01 10:00\n")
    with pytest.raises(SourceUnreadable, match=r"columns Wert, Stempel, of which --map content="):
        recognise(path)


def test_a_json_array_that_is_cut_off_keeps_its_whole_objects(tmp_path):
    rows = [{"text": f"t{n}", "created_at": 1715591106 + n, "n": None} for n in range(50)]
    data = json.dumps({"messages": rows}, indent=1)
    found = table(tmp_path, data[: len(data) // 2], "a.json")
    assert 20 <= len(found.messages) <= 25
    assert found.contents == [f"t{n}" for n in range(len(found.messages))]
    ((_, reason),) = reasons(found)
    assert "before the end of this item" in reason
    whole = table(tmp_path, data, "a.json")
    assert len(whole.messages) == 50
    assert "a JSON array of objects" in whole.batches[0].read_as


def test_json_lines_with_other_names(tmp_path):
    lines = ['{"Body": "a", "sent_at": 1715591106123, "sender": "AI"}', "", "no", "[1]"]
    lines += ['{"Body": 5, "sent_at": 1715591107}', '{"Body": "b", "sender": "Ada"}']
    found = table(tmp_path, "\n".join(lines), "a.jsonl")
    assert found.contents == ["a", "b"]
    assert found.roles == ["assistant", "user"]
    assert [line for line, _ in reasons(found)] == [3, 4, 5]


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_parquet_has_times_of_any_unit_and_zone(unit, zone, tmp_path):
    import pyarrow as pa

    times = pa.array([TIME if zone else TIME.replace(tzinfo=None), None], pa.timestamp("us", zone))
    columns = {
        "Date": times.cast(pa.timestamp(unit, zone)),
        "Sender": pa.array(["me", "AI"]).dictionary_encode(),
        "Text": ["a", "b"],
        "tags": [["x"], None],
        "more": [{"y": 1}, None],
    }
    found = read("table", parquet(tmp_path / "a.parquet", columns))
    assert [datetime.fromisoformat(time) for time in found.times] == [TIME, TIME]
    assert found.roles == ["user", "assistant"]
    assert found.metadata[0] == {"author": "me", "tags": ["x"], "more": {"y": 1}}
    assert found.metadata[1]["timestamp_estimated"] is True
    assert sum(batch.zoneless for batch in found.batches) == (zone is None)


def test_parquet_may_have_date_and_time_in_two_columns(tmp_path):
    columns = {"Date": [TIME.date()], "Time": [TIME.time()], "Text": ["a"]}
    (message,) = read("table", parquet(tmp_path / "a.parquet", columns)).messages
    assert datetime.fromisoformat(message.timestamp) == TIME


def test_parquet_in_many_groups_keeps_those_that_are_whole(tmp_path):
    texts = [f"text {n} {random.Random(n).random()}" for n in range(4_000)]
    columns = {"text": texts, "timestamp": [1715591106 + n for n in range(4_000)]}
    path = parquet(
        tmp_path / "a.parquet", columns, row_group_size=1_000, compression="zstd",
        use_dictionary=False,
    )  # fmt: skip
    assert read("table", path).contents == texts
    data = bytearray(path.read_bytes())
    at = len(data) // 3
    data[at : at + 400] = bytes(400)
    path.write_bytes(data)
    found = read("table", path)
    assert 2_000 <= len(found.messages) <= 3_999
    assert "damaged in the file" in found.rejected[0].reason
    path.write_bytes(data[:-9])
    with pytest.raises(SourceUnreadable, match="damaged or cut off"):
        read("table", path)


def test_parquet_with_a_nested_text_is_no_table(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"text": [{"a": 1}], "timestamp": [1715591106]})
    found = read("table", path)
    assert found.messages == []
    assert found.rejected[0].where == "row 1"


@pytest.mark.slow
def test_a_line_of_100_megabytes_is_reported_in_constant_memory(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("wb") as stream:
        stream.write(b"date,text\n2024-05-01 10:00,first\n2024-05-01 10:01,")
        for _ in range(100):
            stream.write(b"x" * 1_000_000)
        stream.write(b"\n2024-05-01 10:02,last\n")
    tracemalloc.start()
    found = read("table", path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.contents == ["first", "last"]
    assert [line for line, _ in reasons(found)] == [3]
    assert peak < 120_000_000


def rows_of(count: int) -> Iterator[str]:
    yield "date,author,text\n"
    for n in range(count):
        yield f"2024-05-{1 + n // 5000:02} {n // 3600 % 24:02}:{n // 60 % 60:02},me,text {n}\n"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for count in (12_000, 36_000):
        path = tmp_path / "a.csv"
        with path.open("w") as stream:
            stream.writelines(rows_of(count))
        tracemalloc.start()
        total = sum(len(batch.messages) for batch in SOURCES["table"].read(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == count
    assert peaks[1] < 1.3 * peaks[0] + 4_000_000


def test_no_file_ends_in_a_traceback_when_it_is_recognised(tmp_path):
    chance = random.Random(4)
    refused = []
    for seed in range(60):
        path = tmp_path / f"x{seed}.csv"
        path.write_bytes(chance.randbytes(chance.randrange(200)) + BAD.encode() * (seed % 2))
        for call in (recognise, lambda file: read("table", file, companion=("x",))):
            try:
                call(path)
            except AicoLabError as error:
                refused.append(str(error))
    assert refused
    assert all(sentence.endswith(".") for sentence in refused)


# Two messages in a row

PAIRS = [("prompt", "response"), ("Question", "Answer"), ("input", "output"), ("user", "assistant")]


@pytest.mark.parametrize("columns", [*PAIRS, ("message", "reply"), ("Frage", "Antwort")])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_a_question_and_its_answer_in_one_row_are_two_messages(columns, kind, tmp_path):
    times = ["2024-05-01T10:00:00Z", "2024-05-01T10:01:00Z"]
    texts = [("Hello", "Fine"), ("How is tea?", "Fine")]
    rows = [
        {"time": time, **dict(zip(columns, two, strict=True)), "model": "m1"}
        for time, two in zip(times, texts, strict=True)
    ]
    path = tmp_path / f"x.{kind}"
    if kind == "parquet":
        parquet(path, {name: [row[name] for row in rows] for name in rows[0]})
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]")
    assert f"{columns[1]} is the answer" in recognise(path).why
    found = read("table", path)
    assert found.contents == ["Hello", "Fine", "How is tea?", "Fine"]
    assert found.roles == ["user", "assistant"] * 2
    assert found.times == [f"{time[:-1]}.000000Z" for time in times for _ in range(2)]
    replies = [one.reply_to for one in found.messages]
    ids = [one.message_id for one in found.messages]
    assert replies == [None, ids[0], None, ids[2]]
    assert len(set(ids)) == 4
    assert {one.conversation_id for one in found.messages} == {"direct:me"}
    assert [one.get("timestamp_estimated", False) for one in found.metadata] == [False, True] * 2
    assert all(one["model"] == "m1" for one in found.metadata)


def test_rows_of_questions_may_be_newest_first_and_have_ids_and_gaps(tmp_path):
    text = "id,when,author,prompt,response\n3,2024-05-01 10:02,Ada,c,C\n2,2024-05-01 10:01,Ada,b,\n"
    found = table(tmp_path, f"{text}1,2024-05-01 10:00,Ada,a,A\n0,2024-05-01 09:00,Ada,,Z\n")
    assert found.contents == ["Z", "a", "A", "b", "c", "C"]
    assert [one.message_id for one in found.messages] == [
        "0:answer", "1", "1:answer", "2", "3", "3:answer"
    ]  # fmt: skip
    assert [one.reply_to for one in found.messages] == [None, None, "1", None, None, "3"]
    assert {one.user_id for one in found.messages if one.role == "user"} == {"Ada"}
    assert found.skipped == {"question or answer without text": 2}


def test_columns_of_questions_and_answers_can_be_named(tmp_path):
    text = "Zeit;Gefragt;Gesagt;text\n01.05.2024 10:00;Hallo;Tag;x\n"
    both = {"question": "Gefragt", "answer": "Gesagt"}
    found = table(tmp_path, text, columns=both)
    assert found.contents == ["Hallo", "Tag"]
    with pytest.raises(UnknownName, match="--map answer=COLUMN"):
        table(tmp_path, text, columns={"question": "Gefragt"})
    with pytest.raises(InvalidValue, match="one message"):
        table(tmp_path, text, columns={**both, "content": "text"})


@pytest.mark.parametrize("name", ["response_time", "answer_time"])
def test_a_time_of_the_answer_in_the_same_row_is_its_own(name, tmp_path):
    text = f"question,question_time,answer,{name}\n" + "".join(
        f"hi {n},5/1/2026 10:0{n},yo {n},{seconds}\n"
        for n, seconds in enumerate(["13/1/2026 10:00:30", "", "5/1/2026 10:02:05"])
    )
    found = table(tmp_path, text)
    assert [time[8:19] for time in found.times] == [
        *("05T10:00:00", "13T10:00:30", "05T10:01:00", "05T10:01:00"),
        *("05T10:02:00", "05T10:02:05"),
    ]
    assert [bool(one) for one in found.metadata] == [False, False, False, True, False, False]
    untimed = table(tmp_path, text.replace(name, "other"), day_first=True)
    assert [one.message_id for one in found.messages] == [
        one.message_id for one in untimed.messages
    ]
    slow = text.replace("13/1/2026 10:00:30", "2.5").replace("5/1/2026 10:02:05", "3")
    found = table(tmp_path, slow, day_first=True)
    kept = [one.response_time for one in found.messages]
    assert kept == ([None, 2.5, None, None, None, 3.0] if name == "response_time" else [None] * 6)
    assert found.rejected == []


def test_a_question_of_blanks_is_none(tmp_path):
    found = table(tmp_path, "time,prompt,response\n2024-05-01 10:00,  ,Hello\n")
    assert found.contents == ["Hello"]
    assert found.skipped.total() == 1


def test_a_response_beside_a_writer_is_no_answer(tmp_path):
    text = "time,author,message,response\n2024-05-01 10:00,me,Hello,yes\n"
    found = table(tmp_path, text)
    assert found.contents == ["Hello"]
    assert found.metadata == [{"author": "me", "response": "yes"}]


def test_two_spellings_of_a_word_for_a_role_are_one_person(tmp_path):
    text = "time,speaker,text\n" + "".join(
        f"2024-05-01 10:0{n},{name},x{n}\n"
        for n, name in enumerate(["human", "AI", "Human", "ai", "human"])
    )
    found = table(tmp_path, text)
    assert [one.user_id for one in found.messages if one.role == "user"] == ["Human"] * 3
    assert found.authors == ["human", "AI", "Human", "ai", "human"]
    names = text.replace("Human", "Ada").replace("human", "ada")
    found = table(tmp_path, names)
    assert [one.user_id for one in found.messages if one.role == "user"] == ["ada", "Ada", "ada"]


def test_a_task_and_what_it_is_about_are_one_question(tmp_path):
    """As in the training files of Alpaca."""
    path = tmp_path / "alpaca.jsonl"
    rows = [("Say hello in French", "", "Bonjour"), ("Add them", "1 2", "3")]
    names = ("instruction", "input", "output")
    path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows))
    found = read("table", path, start=datetime(2026, 1, 1, tzinfo=UTC))
    assert found.contents == ["Say hello in French", "Bonjour", "Add them\n\n1 2", "3"]
    mapped = read(
        "table", path, start=datetime(2026, 1, 1, tzinfo=UTC),
        columns={"question": "instruction+input", "answer": "output"},
    )  # fmt: skip
    assert mapped.contents == found.contents
