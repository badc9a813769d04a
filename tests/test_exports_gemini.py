"""Gemini's activity and its conversations in Google Workspace."""

from __future__ import annotations

import json
import zipfile

import pytest

from aico_lab.sources import recognise
from aico_lab.sources.exports.engine.html_text import to_plain
from tests.exported import read


def record(title, time, answer=None, **others):
    found = {"header": "Gemini Apps", "title": title, "time": f"2026-03-02T{time}Z",
             "products": ["Gemini Apps"], **others}  # fmt: skip
    return found if answer is None else found | {"safeHtmlItem": [{"html": answer}]}


def export(tmp_path, *records, name="MyActivity.json"):
    path = tmp_path / name
    path.write_text(json.dumps(list(records)), encoding="utf-8")
    return path


def test_a_pause_of_half_an_hour_ends_a_conversation(tmp_path):
    """The file is newest first."""
    path = export(
        tmp_path,
        record("Prompted Three", "11:00:01", "<p>3</p>"),
        record("Prompted Two", "10:30:00", "<p>2</p>"),
        record("Prompted One", "10:00:00", "<p>1</p>"),
    )
    got = read("gemini", path)
    assert got.contents == ["One", "1", "Two", "2", "Three", "3"]
    ids = [one.conversation_id for one in got.messages]
    assert [ids.count(one) for one in dict.fromkeys(ids)] == [4, 2]
    assert {one.reply_to for one in got.messages} == {None}  # the file names no replies


def test_next_months_export_adds_only_what_is_new(tmp_path):
    """The last conversation went on after the export, and the file has another name."""
    old = [record("Prompted Two", "10:10:00", "2"), record("Prompted One", "10:00:00", "1")]
    before = read("gemini", export(tmp_path, *old)).messages
    new = [record("Prompted Three", "10:20:00", "3"), *old]
    after = read("gemini", export(tmp_path, *new, name="MyActivity (1).json")).messages
    assert after[:4] == before
    assert len(after) == 6


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("Prompted Why?", "Why?"),
        ("Prompted Said enough", "Said enough"),
        ("Prompted", ""),
        ("Said Prompted Why?", "Prompted Why?"),
        ("Asked Bard: Why?", "Why?"),
        ("Prompted Used cars: good?", "Used cars: good?"),
    ],
)
def test_one_verb_is_taken_away(tmp_path, title, said):
    assert read("gemini", export(tmp_path, record(title, "10:00:00"))).contents == [said]


@pytest.mark.parametrize(
    ("title", "reason"),
    [
        ("Used an Assistant feature", "activity"),
        ("Created Gemini Canvas titled Kites", "activity"),
        ("Gave feedback: Good response", "feedback"),
        ("Feedback gegeben", "activity without an answer"),
    ],
)
def test_a_record_without_a_prompt_is_counted(tmp_path, title, reason):
    """A feedback's answer is not said again."""
    answer = None if reason.endswith("answer") else "<p>Yes</p>"
    path = export(tmp_path, record(title, "10:05:00", answer), record("Prompted Hi", "10:00:00"))
    got = read("gemini", path)
    assert got.contents == ["Hi"]
    assert got.skipped == {reason: 1}


def test_other_products_are_passed_over(tmp_path):
    other = record("Searched for Gemini", "10:05:00") | {"header": "Search", "products": ["Search"]}
    got = read("gemini", export(tmp_path, record("Prompted Hi", "10:06:00"), other))
    assert got.contents == ["Hi"]
    assert got.skipped == {"activity of another product": 1}
    with pytest.raises(Exception, match="none of the known formats"):
        recognise(export(tmp_path, other))


def test_the_note_on_attachments_is_no_text(tmp_path):
    """It is translated, but stands in the subtitles too."""

    def subtitles(note):
        return [
            {"name": note},
            {"name": "-  a.png", "url": "a-1.png"},
            {"name": "b", "url": "b.pdf"},
        ]

    path = export(
        tmp_path,
        record("Gefragt: Was? 2 Dateien angehängt.", "10:02:00", "x",
               subtitles=subtitles("2 Dateien angehängt.")),
        record("Prompted What? Attached 1 file.", "10:01:00", attachedFiles=["a.png"]),
        record("Prompted It says: Attached 1 file.", "10:00:00"),
    )  # fmt: skip
    got = read("gemini", path)
    assert got.contents[:3] == ["It says: Attached 1 file.", "What?", "Gefragt: Was?"]
    assert got.metadata[1]["attachments"] == [{"kind": "image"}]
    assert got.metadata[2]["attachments"] == [{"kind": "image"}, {"kind": "file"}]


@pytest.mark.parametrize("bad", [None, 7, "yesterday", {}])
def test_a_broken_time_is_estimated(tmp_path, bad):
    path = export(
        tmp_path,
        record("Prompted Three", "10:10:00"),
        record("Prompted Two", "10:05:00") | {"time": bad},
        record("Prompted One", "10:00:00"),
    )
    got = read("gemini", path)
    assert got.contents == ["One", "Two", "Three"]
    assert [metadata.get("timestamp_estimated") for metadata in got.metadata] == [None, True, None]


def test_a_damaged_record_leaves_the_others(tmp_path):
    path = export(
        tmp_path, *(record(f"Prompted {n}", f"1{n}:00:00", "x") for n in range(4, -1, -1))
    )
    path.write_bytes(path.read_bytes().replace(b'"Prompted 2"', b'"Prompted 2'))
    got = read("gemini", path)
    assert [text for text in got.contents if text != "x"] == ["0", "1", "3", "4"]
    assert len(got.rejected) == 1


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>a</p><p>b</p>", "a\nb"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("x &lt;b&gt; &amp;amp; &#128640;", "x <b> &amp; 🚀"),
        ("<ul>\n  <li>one</li>\n  <li>two</li>\n</ul>", "one\ntwo"),
        ("<pre><code>if a:\n    b\n</code></pre>done", "if a:\n    b\ndone"),
        ("<table><tr><td>1</td><td>2</td></tr></table>", "1 2"),
        ("<style>p {}</style><script>x</script>seen", "seen"),
        ("to <b>be</b>, or", "to be, or"),
        ("", ""),
    ],
)
def test_html_becomes_the_text_that_people_see(source, text):
    assert to_plain(source)[0] == text


def workspace(turns, **others):
    return json.dumps({"conversation_turns": turns, "title": "Kites",
                       "creation_time": "2026-03-02T10:00:00.123456+00:00", **others})  # fmt: skip


def asked(text, index, time="10:00:01"):
    return {"user_turn": {"prompt": text, "turn_index": index,
                          "turn_last_modified": f"2026-03-02T{time}+00:00"}}  # fmt: skip


def answered(*parts, index, time="10:00:05", **others):
    stamp = f"2026-03-02T{time}+00:00"
    turn = {"text": list(parts), "turn_index": index, "turn_last_modified": stamp, **others}
    return {"system_turn": turn}


def test_conversations_of_a_workspace_are_read_from_the_zip(tmp_path):
    turns = [
        asked("Where?", 0),
        answered({"preamble": "Well.", "data": ""}, {"data": "Up."}, index=1, model_thoughts="Hm"),
        {"tool_turn": {}},
        answered({"cards": [{}]}, index=2, time="10:00:09"),
        answered(index=3),
    ]
    path = tmp_path / "takeout.zip"
    folder = "Takeout/Gemini in Workspace/ExportedConversation History"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}/conversation_1774999569.txt", workspace(turns))
        archive.writestr(f"{folder}/conversation_1774999570.txt", '{"conversation_turns": [')
        archive.writestr("Takeout/Gemini/gemini_gems_data.html", "<div></div>")
    assert recognise(path).name == "gemini"
    got = read("gemini", path)
    assert got.contents == ["Where?", "Well.\nUp.", ""]
    assert got.roles == ["user", "assistant", "assistant"]
    assert got.times[1] == "2026-03-02T10:00:05.000000Z"
    assert got.metadata[2]["attachments"] == [{"kind": "card"}]
    assert got.skipped == {"reasoning": 1, "turn of another kind": 1, "empty answer": 1}
    assert len(got.rejected) == 1


def test_a_turn_of_a_workspace_may_have_a_prompt_and_its_answer(tmp_path):
    """What of the answer is no text is counted."""
    path = tmp_path / "conversation_1.txt"
    both = asked("Where?", 0) | answered({"data": "Up."}, 5, {"data": 7}, {"cards": ["x"]}, index=0)
    path.write_text(workspace([both, asked("Hm", 1) | {"system_turn": {"text": []}}]))
    got = read("gemini", path)
    assert got.contents == ["Where?", "Up.", "Hm"]
    assert got.roles == ["user", "assistant", "user"]
    assert got.skipped == {"damaged message": 3, "empty answer": 1}


def test_a_conversation_of_a_workspace_keeps_its_id_under_another_name(tmp_path):
    first, second = tmp_path / "conversation_1.txt", tmp_path / "conversation_2 (1).txt"
    first.write_text(workspace([asked("Hi", 0)]))
    second.write_text(workspace([asked("Hi", 0), asked("Ho", 1, "10:00:02")]))
    before, after = read("gemini", first).messages, read("gemini", second).messages
    assert after[0] == before[0]
    assert len(after) == 2


@pytest.mark.parametrize(
    "header", ["Geminiアプリ", "Gemini 앱", "Aplikacje_Gemini", "Приложения Gemini"]
)
def test_the_product_is_known_in_every_language(tmp_path, header):
    record = {
        "header": header,
        "title": "Prompted hello",
        "time": "2026-01-01T10:00:00Z",
        "products": [header],
        "safeHtmlItem": [{"html": "<p>Hi</p>"}],
    }
    path = tmp_path / "MyActivity.json"
    path.write_text(json.dumps([record]))
    assert recognise(path).name == "gemini"
    assert read("gemini", path).contents == ["hello", "Hi"]
