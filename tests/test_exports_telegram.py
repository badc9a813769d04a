"""Chats as Telegram Desktop writes them."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aico_lab.errors import SourceUnreadable, WhoIsWho
from aico_lab.sources import recognise
from aico_lab.sources.exports.engine.conversation import ExportedConversation, Options
from aico_lab.sources.exports.engine.opened import Member, Opened
from aico_lab.sources.exports.telegram import _mended, conversations
from aico_lab.zones import get_zone
from tests.exported import read

if TYPE_CHECKING:
    from pathlib import Path


def message(number: int, text: object, **other: Any) -> dict[str, Any]:
    """Return a message of Mira's, ten seconds after the one with the number before."""
    return {
        "id": number,
        "type": "message",
        "date": f"2026-03-28T13:{number:02}:00",
        "date_unixtime": str(1774692000 + 10 * number),
        "from": "Mira",
        "from_id": "user300",
        "text": text,
        **other,
    }


def chat(*messages: Any, **other: Any) -> dict[str, Any]:
    """Return a chat with the bot Otto."""
    return {
        "name": "Otto",
        "type": "bot_chat",
        "id": 700,
        **other,
        "messages": list(messages),
    }


def written(path: Path, document: object) -> Path:
    """Write a document as Telegram Desktop does, with one blank of indentation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    return path


def account(*those: dict[str, Any], left: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """Return the export of a whole account."""
    contacts = [{"user_id": number, "first_name": "A"} for number in range(300)]
    return {
        "about": "Here is the data you requested.",
        "personal_information": {"user_id": 300, "first_name": "Mira"},
        "contacts": {"about": "x", "list": contacts},
        "frequent_contacts": {"about": "x", "list": [{"id": 1, "category": "people"}]},
        "chats": {"about": "x", "list": list(those)},
        "left_chats": {"about": "x", "list": list(left)},
    }


BOTS = {"from": "Otto", "from_id": "user700"}


def test_one_chat_and_a_whole_account_are_recognised(tmp_path: Path) -> None:
    one = written(tmp_path / "a.json", chat(message(1, "Hi")))
    folder = written(tmp_path / "DataExport" / "result.json", account(chat(message(1, "Hi"))))
    assert recognise(one).name == "telegram"
    assert recognise(folder).name == "telegram"
    assert recognise(folder.parent).name == "telegram"


def test_all_chats_of_an_account(tmp_path: Path) -> None:
    path = written(
        tmp_path / "result.json",
        account(
            chat(message(1, "Hi"), message(2, "Hello", **BOTS)),
            chat(id=701, name=None),
            chat(message(1, "to a friend"), type="personal_chat", id=702, name="Ada"),
            left=(chat(message(1, "in a group"), type="private_group", id=703, name="Club"),),
        ),
    )
    with pytest.raises(WhoIsWho, match="Otto"):
        read("telegram", path)
    with pytest.raises(WhoIsWho):
        read("telegram", path, companion=("Ottto",))
    got = read("telegram", path, companion=("otto",))
    assert got.contents == ["Hi", "Hello", "to a friend", "in a group"]
    assert got.roles == ["user", "assistant", "user", "user"]
    assert [one.conversation_id for one in got.messages] == [
        "telegram:user300 with 700",
        "telegram:user300 with 700",
        "telegram:user300 with 702",
        "telegram:703",
    ]
    assert not got.rejected
    kinds = {name: channel.kind for name, channel in got.channels.items()}
    assert kinds == {
        "telegram:user300 with 700": "direct",
        "telegram:user300 with 702": "direct",
        "telegram:703": "group",
    }


def test_the_other_side_of_a_bot_chat_is_the_companion_also_in_old_exports(tmp_path: Path) -> None:
    old = {"from_id": 700, "from": "Otto"}
    path = written(
        tmp_path / "result.json", chat(message(1, "a", from_id=300), message(2, "b", **old))
    )
    got = read("telegram", path)
    assert got.roles == ["user", "assistant"]
    assert got.authors == ["300", "700"]


def test_the_exact_time_comes_before_the_local_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", chat(message(0, "exact"), message(1, "local")))
    text = path.read_text(encoding="utf-8").replace('"date_unixtime": "1774692010",', "")
    path.write_text(text, encoding="utf-8")
    got = read("telegram", path, zone=get_zone("Europe/Moscow"))
    assert got.times == ["2026-03-28T10:00:00.000000Z", "2026-03-28T10:01:00.000000Z"]
    assert sum(batch.zoneless for batch in read("telegram", path).batches) == 1


def test_local_times_across_the_change_of_clocks_keep_their_order(tmp_path: Path) -> None:
    local = ["2021-10-31T02:50:00", "2021-10-31T02:10:00", "2021-10-31T03:00:00"]
    messages = [message(n, f"m{n}", date=date) for n, date in enumerate(local)]
    for one in messages:
        del one["date_unixtime"]
    got = read(
        "telegram",
        written(tmp_path / "a.json", chat(*messages)),
        zone=get_zone("Europe/Berlin"),
    )
    assert got.times == sorted(got.times)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain", "plain"),
        (["See ", {"type": "bold", "text": "this"}, "!"], "See this!"),
        ({"type": "bold", "text": "one"}, "one"),
        (["a", None, 3, {"text": 4}, {}, "b"], "ab"),
        (None, ""),
        (17, ""),
    ],
)
def test_a_text_is_a_string_or_pieces_joined_without_blanks(
    tmp_path: Path, text: object, said: str
) -> None:
    path = written(tmp_path / "a.json", chat(message(1, text)))
    assert read("telegram", path).contents == [said]


def test_entities_are_the_same_text_again(tmp_path: Path) -> None:
    entities = [{"type": "plain", "text": "Hi "}, {"type": "bold", "text": "you"}]
    path = written(
        tmp_path / "a.json",
        chat(message(1, "Hi you", text_entities=entities), message(2, "", text_entities=entities)),
    )
    assert read("telegram", path).contents == ["Hi you", "Hi you"]


def test_control_characters_and_paths_are_mended_and_backslashes_stay(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.json",
        chat(
            message(1, [{"type": "custom_emoji", "text": "😮", "document_id": "PATH (2).webm"}]),
            message(2, "button", inline_bot_buttons=[[{"text": "a", "data": "1=CONTROL2"}]]),
            message(3, "C:\\x41 \\\\x01 \\"),
            message(4, "word CONTROL"),
            message(5, 'says "document_id": x'),
        ),
    )
    text = path.read_text(encoding="utf-8")
    text = text.replace('"PATH (2).webm"', "video_files/sticker (2).webm")
    path.write_text(text.replace("CONTROL", "\\x01"), encoding="utf-8")
    got = read("telegram", path)
    assert not got.rejected
    assert got.contents == [
        "😮",
        "button",
        "C:\\x41 \\\\x01 \\",
        "word \x01",
        'says "document_id": x',
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", None])
@pytest.mark.parametrize(
    "path",
    ["stickers/a (2).tgs", "(File not included. Change settings, then export.)", "5 cats.tgs"],
)
@pytest.mark.parametrize("key", ['"document_id"', "document_id"])
def test_a_path_without_quotation_marks_is_mended(tmp_path, end, path, key):
    """With any end of a line, in one line, at the end of its object and before another key."""
    emoji = {"type": "custom_emoji", "text": "x"}
    said = [
        message(1, [emoji | {"document_id": "PATH"}, ' and "document_id": y, document_id: z']),
        message(2, [{"document_id": "PATH"} | emoji, "{document_id: z}"]),
        message(3, [{"document_id": 512345678901} | emoji]),
    ]
    text = json.dumps(chat(*said), indent=None if end is None else 1).replace("\n", end or "\n")
    text = text.replace('"document_id":', f"{key}:").replace('"PATH"', path)
    (tmp_path / "result.json").write_bytes(text.encode())
    got = read("telegram", tmp_path / "result.json")
    assert not got.rejected
    wanted = ['x and "document_id": y, document_id: z', "x{document_id: z}", "x"]
    assert got.contents == wanted


@given(st.lists(st.text(st.sampled_from('\\x01ABnu"/é \n{}[]:,'), max_size=12), max_size=6))
def test_sound_json_is_not_changed_by_mending(texts: list[str]) -> None:
    sound = json.dumps({"document_id": texts, "text": texts}, indent=1).encode()
    assert json.loads(_mended(sound)) == json.loads(sound)


def test_replies_in_another_chat_are_none_here(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.json",
        chat(
            message(1, "a"),
            message(2, "b", reply_to_message_id=1),
            message(3, "c", reply_to_message_id=1, reply_to_peer_id="channel9"),
            message(4, "d", reply_to_message_id=1, reply_to_peer_id="user700"),
        ),
    )
    replies = [one.reply_to for one in read("telegram", path).messages]
    assert replies == [None, "telegram:user300 with 700:1", None, "telegram:user300 with 700:1"]


def test_what_was_not_said_is_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.json",
        chat(
            message(1, "", type="service", action="pin_message"),
            {"id": 2, "type": "unsupported"},
            message(3, "Hi"),
            message(4, "x", type="something new"),
        ),
    )
    got = read("telegram", path)
    assert got.contents == ["Hi"]
    assert got.skipped == {"notice": 2, "unsupported message": 1}


def test_media_reactions_edits_and_forwards_are_kept(tmp_path: Path) -> None:
    sticker = {"media_type": "sticker", "file": "s.webp", "sticker_emoji": "👋"}
    path = written(
        tmp_path / "a.json",
        chat(
            message(1, "", **sticker, edited="1970-01-01T03:00:00", edited_unixtime="0"),
            message(2, "x", photo="p.jpg", reactions=[{"type": "emoji", "count": 2, "emoji": "❤"}]),
            message(3, "", media_type="voice_message", file="v.ogg"),
            message(4, "fwd", forwarded_from=None, via_bot="@gif", edited_unixtime="1774692090"),
            message(5, "", poll={"question": "Tea?", "answers": []}),
            message(6, "", poll={"question": ["Cof", {"type": "bold", "text": "fee?"}]}),
        ),
    )
    got = read("telegram", path)
    first, second, third, fourth, fifth, _ = got.metadata
    assert first["attachments"] == [{"kind": "sticker", "emoji": "👋"}]
    assert "edited_at" not in first
    assert second["reactions"] == [{"emoji": "❤", "count": 2}]
    assert second["attachments"] == [{"kind": "image"}]
    assert third["attachments"] == [{"kind": "audio"}]
    assert fourth["forwarded_from"] == "unknown"
    assert fourth["via_bot"] == "@gif"
    assert fourth["edited_at"] == "2026-03-28T10:01:30+00:00"
    assert fifth["attachments"] == [{"kind": "poll"}]
    assert got.contents[-2:] == ["Tea?", "Coffee?"]


def test_a_deleted_account_has_an_id_and_no_name(tmp_path: Path) -> None:
    gone = {"from": None, "from_id": "user9"}
    path = written(
        tmp_path / "a.json", chat(message(1, "a", **gone), message(2, "b", from_id=None))
    )
    assert read("telegram", path).authors == ["user9", "Mira"]


def test_damage_in_one_chat_leaves_the_others(tmp_path: Path) -> None:
    path = written(
        tmp_path / "result.json",
        account(
            *(
                chat(*(message(n, f"{name}{n}") for n in range(1, 5)), id=ord(name))
                for name in "abc"
            )
        ),
    )
    text = path.read_text(encoding="utf-8")

    def contents(damaged: str) -> list[str]:
        path.write_text(damaged, encoding="utf-8")
        got = read("telegram", path)
        assert got.rejected
        return got.contents

    others = ["a1", "a2", "a3", "a4", "c1", "c2", "c3", "c4"]
    assert contents(text.replace('"b2"', '"b2')) == [*others[:4], "b1", "b3", "b4", *others[4:]]
    assert contents(text.replace('"id": 98,', '"id": 98')) == others
    at = text.index('"b2"')
    end_of_b = text.index("]", at)
    broken = text[:end_of_b] + "}" + text[end_of_b + 1 :]
    assert contents(broken) == [*others[:4], "b1", "b2", "b3", "b4", *others[4:]]
    early = text[:at] + '"b2"}],{' + text[text.index('"b3"') - 200 : -1]
    assert contents(early)[:6] == [*others[:4], "b1", "b2"]
    assert contents(text[: text.index('"c3"')]) == [*others[:4], "b1", "b2", "b3", "b4", "c1", "c2"]
    assert contents(text.replace('"b3"', "\x00")) == [*others[:4], "b1", "b2", "b4", *others[4:]]


def test_values_of_any_type_are_no_error(tmp_path: Path) -> None:
    odd = [None, 3, True, "x", [], {}, [{}], {"id": []}, 1e400, -1, 10**30]
    whole = message(
        1,
        "x",
        **dict.fromkeys(
            (
                "edited",
                "edited_unixtime",
                "reply_to_message_id",
                "reply_to_peer_id",
                "reactions",
                "poll",
                "media_type",
                "forwarded_from",
                "text_entities",
            )
        ),
    )
    messages = [{**whole, name: value} for name in whole for value in odd]
    got = read("telegram", written(tmp_path / "a.json", chat(*messages, *odd)), trust_times=True)
    assert len(got.messages) > len(messages) / 2
    for name in ("id", "name", "type", "messages"):
        for value in odd:
            document = {**chat(message(1, "x")), name: value}
            with contextlib.suppress(SourceUnreadable):  # without messages it is no chat
                read("telegram", written(tmp_path / "a.json", document), me="Mira")


def test_halves_of_characters_and_nul_are_no_error_anywhere(tmp_path: Path) -> None:
    odd = "a\ud83d\0"
    names = {"from": odd, "from_id": odd, "text": odd, "forwarded_from": odd, "via_bot": odd}
    reactions = [{"type": "emoji", "count": 1, "emoji": odd}]
    path = tmp_path / "a.json"
    document = chat(
        message(1, odd, **{key: value for key, value in names.items() if key != "text"}),
        message(2, "b", reactions=reactions, reply_to_message_id=odd),
        name=odd,
        type="bot_chat",
    )
    path.write_text(json.dumps(document), encoding="utf-8")
    got = read("telegram", path)
    assert got.contents == ["a\ufffd", "b"]
    for one in (*got.messages, *got.channels.values()):
        for value in one:
            if isinstance(value, str):
                assert value.encode()
                assert "\0" not in value


def test_a_chat_is_read_as_its_messages_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("w", encoding="utf-8") as file:
        file.write('{"name": "Otto", "type": "bot_chat", "id": 700, "messages": [\n')
        file.writelines(json.dumps(message(1, "x" * 1_000)) + ",\n" for _ in range(12_000))
        file.write("]}")
    at = 0

    class Counting(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal at
            data = super().read(-1 if size is None else size)
            at += len(data)
            return data

    member = Member("a.json", path.stat().st_size, lambda: Counting(path))
    found = conversations(Opened(path, (member,)), Options())
    conversation = next(found)
    assert isinstance(conversation, ExportedConversation)
    messages = iter(conversation.messages)
    assert len(list(itertools.islice(messages, 100))) == 100
    assert at < 4_000_000 < path.stat().st_size
    assert sum(1 for _ in messages) == 11_900
    assert not list(found)


def between(kind: str, chat_id: int, *said: tuple[int, int, str], name: str = "Zed") -> str:
    """Return a chat of Ann, who is user 1, and Zed, with messages at days, each with its id."""
    return json.dumps({
        "name": name, "type": kind, "id": chat_id,
        "messages": [
            {
                "id": own, "type": "message", "date": f"2024-05-{day:02}T10:00:00",
                "date_unixtime": str(1714557600 + 86400 * (day - 1)), "text": text,
                "from": ("Zed", "Ann")[own % 2], "from_id": f"user{2 - own % 2}",
            }
            for day, own, text in said
        ],
    })  # fmt: skip


def test_ids_that_begin_again_are_of_other_messages(lab, tmp_path):
    """As after a group became another one; the replies lead to the later ones."""
    said = [(1, 1, "first"), (1, 2, "hi"), (1, 4, "four"), (2, 1, "again"), (2, 3, "three"),
            (3, 2, "hi again"), (3, 5, "five"), (4, 3, "third life")]  # fmt: skip
    chat = json.loads(between("private_supergroup", 7, *said))
    chat["messages"][4]["reply_to_message_id"] = 1
    path = tmp_path / "result.json"
    options = Options(companion=("Zed",))
    path.write_text(json.dumps(chat))
    first = lab.import_from(path, options=options)
    assert (first.added, first.updated) == (len(said), 0)
    ids = lab.primary.fetch_all("SELECT message_id FROM messages ORDER BY id")
    chat["messages"].append({**chat["messages"][0], "id": 9, "text": "new"})
    chat["messages"][3] |= {"text": "again!", "edited_unixtime": "1714900000"}
    path.write_text(json.dumps(chat))
    for expected in ((1, 1), (0, 0)):
        again = lab.import_from(path, options=options)
        assert (again.added, again.updated) == expected
    stored = lab.primary.fetch_all("SELECT content, message_id FROM messages ORDER BY id")
    assert [text for text, _ in stored] == [
        "first", "hi", "four", "again!", "three", "hi again", "five", "third life", "new"
    ]  # fmt: skip
    assert [(name,) for _, name in stored[:-1]] == ids
    (reply,) = lab.primary.fetch_one("SELECT reply_to FROM messages WHERE content = 'three'")
    assert reply == dict(stored)["again!"]


@pytest.mark.parametrize(
    ("options", "chat_id", "name"),
    [
        ({}, 2, "renamed"),
        ({}, 999, "Zed"),
        ({"companion": ("Zed",)}, 999, "renamed"),
        ({"me": "Ann"}, 999, "renamed"),
        ({"companion": ("zed",), "me": "Ann"}, 2, "Zed"),
    ],
)
def test_the_bot_of_a_chat_is_known_by_its_id_its_name_or_the_user(
    tmp_path, options, chat_id, name
):
    path = tmp_path / "result.json"
    path.write_text(between("bot_chat", chat_id, (1, 1, "hi"), (1, 2, "hello"), name=name))
    assert read("telegram", path, **options).roles == ["user", "assistant"]


def test_a_bot_that_nothing_tells_is_asked_for(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(between("bot_chat", 999, (1, 1, "hi"), (1, 2, "hello"), name="renamed"))
    with pytest.raises(WhoIsWho, match="--companion"):
        read("telegram", path)
