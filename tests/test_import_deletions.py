"""Messages that a later export no longer has: marked if it is asked, and never in doubt."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aico_lab.errors import WrongUse
from aico_lab.importing.disappearing import Present
from aico_lab.importing.import_log import ImportLog
from aico_lab.messages.records import MessageRecord
from aico_lab.sources.exports.engine.conversation import Options
from tests.effort import examples
from tests.exported import telegram_chat as chat

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.importing.importer import ImportResult
    from aico_lab.lab import Lab

ADA = Options(me="Ada")
NOON = "2024-05-01T12:00:00.000000Z"


def account(*chats: dict[str, Any]) -> dict[str, Any]:
    return {
        "about": "", "personal_information": {"first_name": "Ada", "user_id": 0},
        "chats": {"about": "", "list": list(chats)},
    }  # fmt: skip


def tree(*texts: str, title: str = "a") -> dict[str, Any]:
    """Return a conversation of ChatGPT whose path has these messages, with their text as id."""
    nodes: dict[str, Any] = {
        "root": {"id": "root", "parent": None, "children": [], "message": None}
    }
    last = "root"
    for place, text in enumerate(texts):
        nodes[last]["children"] = [text]
        nodes[text] = {
            "id": text, "parent": last, "children": [],
            "message": {
                "id": text, "author": {"role": ("user", "assistant")[place % 2]},
                "create_time": 1714557600.0 + 3600 * ord(title[0]) + place, "weight": 1.0,
                "recipient": "all",
                "content": {"content_type": "text", "parts": [text]}, "metadata": {},
            },
        }  # fmt: skip
        last = text
    return {
        "title": title, "conversation_id": title, "id": title, "create_time": 1714557600.0,
        "update_time": 1714557600.0, "mapping": nodes, "current_node": last,
    }  # fmt: skip


@pytest.fixture
def take(lab: Lab, tmp_path: Path) -> Any:
    """Import an export, with deletions unless it is said otherwise."""

    def run(export: object, **options: Any) -> ImportResult:
        path = tmp_path / "result.json"
        text = export if isinstance(export, str) else json.dumps(export)
        path.write_text(text, encoding="utf-8")
        asked = {"deletions": True, "options": ADA} | options
        return lab.import_from(path, **asked)

    return run


def missing(lab: Lab) -> list[str]:
    """Return the texts of the marked messages."""
    rows = lab.primary.fetch_all(
        "SELECT content FROM messages WHERE json_extract(metadata, '$.missing_since') IS NOT NULL "
        "ORDER BY content"
    )
    return [text for (text,) in rows]


def test_what_a_later_export_lacks_is_marked_counted_and_comes_back(lab, take):
    take(account(chat(1, 0, 1, 2, 3, 4), chat(2, 10, 11)))
    kept = take(account(chat(1, 0, 1, 3, 4), chat(2, 10, 11)), deletions=False)
    assert (kept.missing, missing(lab)) == (0, [])
    tried = take(account(chat(1, 0, 1, 3, 4), chat(2, 10, 11)), dry_run=True)
    assert (tried.missing, missing(lab)) == (1, [])
    marked = take(account(chat(1, 0, 1, 3, 4), chat(2, 10, 11)))
    assert (marked.missing, marked.added, missing(lab)) == (1, 0, ["words 2"])
    lab.sync()
    assert lab.metrics.overview().pl()["n"].sum() == 6
    assert lab.sql("SELECT count(*) FROM conversations").fetchall() == [(7,)]
    assert lab.verify().ok
    again = take(account(chat(1, 0, 1, 3, 4), chat(2, 10, 11)))
    assert (again.missing, again.returned) == (0, 0)
    back = take(account(chat(1, 0, 1, 2, 3, 4)), deletions=False)
    assert (back.returned, back.known, missing(lab)) == (1, 5, [])
    lab.sync()
    assert lab.metrics.overview().pl()["n"].sum() == 7
    untouched = lab.primary.fetch_all(
        "SELECT count(*) FROM messages WHERE instr(metadata, 'missing_since')"
    )
    assert untouched == [(0,)]


def test_a_message_that_cannot_be_read_leaves_the_others_compared(lab, take):
    whole = chat(1, 0, 1, 2, 3, 4, 5)
    take(account(whole))
    later = chat(1, 0, 1, 2, 3, 5)
    later["messages"][1:2] = [{"id": 1, "type": "unsupported"}]
    result = take(account(later))
    assert (result.missing, result.uncompared, missing(lab)) == (1, 0, ["words 4"])
    del later["messages"][1]["id"]
    later["messages"].pop(2)
    result = take(account(later, chat(2, 1, 2)))
    assert (result.missing, result.uncompared, missing(lab)) == (0, 1, ["words 4"])
    assert take(account(later), deletions=False).uncompared == 0


def test_a_part_of_the_time_marks_nothing_outside_of_it(lab, take):
    """As a date filter of the exporting program chooses it."""
    take(chat(1, *range(10)))
    assert take(chat(1, 3, 4, 6)).missing == 1
    assert missing(lab) == ["words 5"]


def test_the_moments_of_the_first_and_the_last_message_belong_to_the_export(lab, take):
    """Times of Telegram are whole seconds, in which several messages may be written."""
    whole = chat(1, 0, 1, 2, 3, 4, 5)
    for at, same in ((1, 2), (4, 3)):
        for key in ("date", "date_unixtime"):
            whole["messages"][at][key] = whole["messages"][same][key]
    take(whole)
    part = whole | {"messages": [whole["messages"][at] for at in (2, 3)]}
    assert take(part).missing == 2
    assert missing(lab) == ["words 1", "words 4"]


def test_the_messages_of_an_export_take_8_bytes_each(lab):
    """Also while they are compared, in however many conversations they are."""
    present = Present()
    messages = [
        MessageRecord(f"m{n}", f"c{n // 100}", f"c{n // 100}", "ada", "user", "x", NOON, None, None,
                      None, None, None)
        for n in range(50_000)
    ]  # fmt: skip
    present.note(messages, [one.message_id for one in messages])
    whole = sorted({one.conversation_id for one in messages})
    tracemalloc.start()
    log = ImportLog(lab.primary, None)
    present.mark_others(lab.primary, whole, ends_known=True, log=log, dry_run=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # sets of numbers have 4 MB


def test_a_chat_that_the_export_does_not_have_is_none_of_its_business(lab, take):
    take(account(chat(1, 0, 1, 2), chat(2, 10, 11, 12)))
    assert take(account(chat(1, 0, 2))).missing == 1
    assert missing(lab) == ["words 1"]


def test_a_tree_has_all_messages_so_its_ends_count(lab, take):
    take([tree("q", "a", "q2", "a2"), tree("x", "y", title="b")])
    result = take([tree("q", "a"), tree("x", "y", title="b")])
    assert result.missing == 2
    assert missing(lab) == ["a2", "q2"]
    edited = take([tree("q", "a", "q3", "a3")])
    assert (edited.added, edited.missing) == (2, 0)


def test_a_limit_a_damaged_chat_and_a_cut_off_file_mark_nothing_of_that_chat(lab, take):
    take(account(chat(1, *range(6)), chat(2, *range(10, 16))))
    assert take(account(chat(1, 0, 5), chat(2, 10, 15)), limit=1).missing == 0
    whole = json.dumps(account(chat(1, 0, 5), chat(2, 10, 12, 15)))
    cut_off = whole[: whole.index("words 15")]
    assert take(cut_off).rejected
    assert all(text in ("words 1", "words 2", "words 3", "words 4") for text in missing(lab))
    broken = account(chat(1, 0, 5), chat(2, 10, 15))
    broken["chats"]["list"][1]["messages"].insert(1, "damaged")
    take(broken)
    assert not any(text.startswith("words 1") and text != "words 1" for text in missing(lab))


def test_a_broken_conversation_in_a_good_export_leaves_the_others_compared(lab, take):
    names = "abcde"
    take([tree(f"q{name}", f"a{name}", title=name) for name in names])
    later = [tree(f"q{name}", title=name) for name in names]
    later[2]["mapping"] = None
    result = take(later)
    assert result.rejected == 1
    assert {"aa", "ae"} <= set(missing(lab))
    assert "ac" not in missing(lab)


def test_only_exports_take_deletions(lab, cli, tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"content": "a", "timestamp": "2024-05-01T10:00:00Z"}\n')
    with pytest.raises(WrongUse, match="jsonl holds no whole conversations"):
        lab.import_from("jsonl", path, deletions=True)
    assert cli("import", "jsonl", str(path), "--deletions").returncode == 2


@pytest.mark.usefixtures("lab")
def test_the_command_line_says_what_is_missing_and_what_is_back(cli, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(chat(1, 0, 1, 2)))
    assert cli("import", str(path), "--me", "Ada").returncode == 0
    path.write_text(json.dumps(chat(1, 0, 2)))
    said = cli("import", str(path), "--me", "Ada", "--deletions").stdout
    assert "1 stored message is no longer in the export" in said
    path.write_text(json.dumps(chat(1, 0, 1, 2)))
    assert "1 message is back" in cli("import", str(path), "--me", "Ada").stdout


KILLED = """
import sys
from pathlib import Path
from aico_lab.importing import disappearing
from aico_lab.adapters.libsql import Connection
from aico_lab.lab import Lab
from aico_lab.sources.exports.engine.conversation import Options
from tests.faults import dies

real = disappearing._mark

def mark(connection, row_ids, log):
    dies(Connection, "execute", number=2, only=lambda _, sql, *__: "json_set" in sql)()
    real(connection, row_ids, log)

disappearing._ROWS, disappearing._mark = 1, mark
home, path = map(Path, sys.argv[1:])
with Lab.open(home) as lab:
    lab.import_from(path, deletions=True, options=Options(me="Ada"))
"""


def test_killed_in_the_middle_it_is_completed_by_the_next_run(lab, take, home, tmp_path):
    take(chat(1, *range(8)))
    path = tmp_path / "later.json"
    path.write_text(json.dumps(chat(1, 0, 7)))
    arguments = [str(home), str(path)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False
    )
    assert killed.returncode == -9, killed.stderr
    assert missing(lab) == ["words 1"]
    assert lab.primary.fetch_all("SELECT count(*) FROM messages") == [(8,)]
    assert take(chat(1, 0, 7)).missing == 5
    assert missing(lab) == [f"words {at}" for at in range(1, 7)]


@pytest.mark.slow
@settings(
    max_examples=examples(15), deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.lists(st.dictionaries(
    st.integers(1, 3), st.sets(st.integers(0, 9), min_size=1), min_size=1
), min_size=1, max_size=5))  # fmt: skip
def test_after_any_exports_what_is_marked_is_what_the_last_one_lacks(homes, tmp_path, exports):
    """By the words of the definition: within the times of the chat's last export."""
    stored: dict[int, set[int]] = {}
    gone: dict[int, set[int]] = {}
    path = tmp_path / "result.json"
    with homes.open(tmp_path / uuid.uuid4().hex) as made:
        for export in exports:
            path.write_text(
                json.dumps(account(*(chat(n, *sorted(ids)) for n, ids in export.items())))
            )
            made.import_from(path, deletions=True, options=ADA)
            for number, ids in export.items():
                inside = {at for at in stored.get(number, ()) if min(ids) <= at <= max(ids)}
                gone[number] = (gone.get(number, set()) | inside) - ids
                stored[number] = stored.get(number, set()) | ids
        found = made.primary.fetch_all(
            "SELECT conversation_id, message_id FROM messages "
            "WHERE instr(metadata, 'missing_since')"
        )
        assert {(c.split(":")[-1].split()[-1], m.split(":")[-1]) for c, m in found} == {
            (str(number), str(at)) for number, ids in gone.items() for at in ids
        }
