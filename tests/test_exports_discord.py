"""Channels as DiscordChatExporter writes them."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.errors import WhoIsWho
from aico_lab.sources import recognise
from tests.exported import read

if TYPE_CHECKING:
    from pathlib import Path

MIRA = {"id": "811111111111111111", "name": "mira.k", "nickname": "Mira", "isBot": False}
OTTO = {"id": "822222222222222222", "name": "otto", "nickname": "Otto the Bot", "isBot": True}


def message(number: int, content: str, **other: Any) -> dict[str, Any]:
    """Return a message of Mira's, one minute after the one with the number before."""
    return {
        "id": str(1190000000000000000 + number),
        "type": "Default",
        "timestamp": f"2026-03-28T22:{number:02}:00.5+01:00",
        "timestampEdited": None,
        "content": content,
        "author": MIRA,
        "attachments": [],
        "embeds": [],
        "reactions": [],
        **other,
    }


def channel(*messages: Any, **other: Any) -> dict[str, Any]:
    """Return the document of a channel."""
    return {
        "guild": {"id": "1177", "name": "Moon club"},
        "channel": {"id": "1188", "type": "GuildTextChat", "name": "otto", "topic": None, **other},
        "dateRange": {"after": None, "before": None},
        "messages": list(messages),
        "messageCount": len(messages),
    }


def written(path: Path, document: dict[str, Any]) -> Path:
    """Write a document as the exporter does, with two blanks of indentation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
    return path


def test_a_channel_is_recognised_by_its_content(tmp_path: Path) -> None:
    path = written(tmp_path / "anything.txt", channel(message(1, "Hi")))
    assert recognise(path).name == "discord"


@pytest.mark.parametrize("kind", ["20", "23", "Default", "Reply", "19"])
def test_types_without_a_name_are_answers_to_commands(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "a.json", channel(message(1, "An answer", type=kind)))
    assert read("discord", path).contents == ["An answer"]


@pytest.mark.parametrize(
    "kind", ["GuildMemberJoin", "Call", "ChannelPinnedMessage", "8", "24", "46", 7]
)
def test_notices_are_counted_and_not_said(tmp_path: Path, kind: object) -> None:
    path = written(tmp_path / "a.json", channel(message(1, "x", type=kind), message(2, "Hi")))
    got = read("discord", path)
    assert got.contents == ["Hi"]
    assert got.skipped == {"notice": 1}


def test_only_a_reply_refers_to_the_message_it_answers(tmp_path: Path) -> None:
    here = {"messageId": "1190000000000000001", "channelId": "1188"}
    path = written(
        tmp_path / "a.json",
        channel(
            message(1, "one"),
            message(2, "reply", type="Reply", reference=here),
            message(3, "crosspost", reference=here),
            message(4, "elsewhere", type="Reply", reference={**here, "channelId": "1199"}),
        ),
    )
    replies = [one.reply_to for one in read("discord", path).messages]
    assert replies == [None, "discord:1188:1190000000000000001", None, None]


def test_the_words_of_a_bot_in_embeds_are_said_and_previews_of_links_are_not(
    tmp_path: Path,
) -> None:
    card = {"title": "Weather", "description": "Dry.", "fields": [{"name": "Wind", "value": "0"}]}
    preview = {"title": "A page", "description": "About it", "url": "https://example.com/a"}
    path = written(
        tmp_path / "a.json",
        channel(
            message(1, "", author=OTTO, embeds=[card]),
            message(2, "Look:", author=OTTO, embeds=[card]),
            message(3, "See https://example.com/a", embeds=[preview]),
        ),
    )
    card_text = "Weather\nDry.\nWind\n0"
    assert read("discord", path).contents == [
        card_text,
        f"Look:\n{card_text}",
        "See https://example.com/a",
    ]


def test_forwards_are_anothers_words(tmp_path: Path) -> None:
    forward = {"content": "Another's words", "attachments": [{"fileName": "a.PNG"}]}
    path = written(tmp_path / "a.json", channel(message(1, "", forwardedMessage=forward)))
    got = read("discord", path)
    assert got.contents == [""]
    assert got.metadata[0]["forwarded"] is True
    assert got.metadata[0]["attachments"] == [{"kind": "image"}]


def test_reactions_stickers_edits_and_commands_are_kept(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.json",
        channel(
            message(
                1,
                "Hi",
                reactions=[{"emoji": {"id": "", "name": "👍"}, "count": 2}, {"emoji": 3}],
                stickers=[{"id": "1", "name": "wave"}],
                timestampEdited="2026-03-28T22:05:00+01:00",
                interaction={"id": "5", "name": "ask", "user": MIRA},
            )
        ),
    )
    got = read("discord", path)
    metadata = got.metadata[0]
    assert metadata["reactions"] == [{"emoji": "👍", "count": 2}]
    assert metadata["attachments"] == [{"kind": "sticker"}]
    assert metadata["edited_at"] == "2026-03-28T22:05:00+01:00"
    assert metadata["command"] == "ask"
    assert got.times == ["2026-03-28T21:01:00.500000Z"]


def test_a_folder_with_parts_and_a_thread(tmp_path: Path) -> None:
    folder = tmp_path / "Moon club"
    written(folder / "otto [1188] [part 2].json", channel(message(2, "two")))
    written(folder / "otto [1188] [part 10].json", channel(message(10, "ten")))
    written(folder / "otto [1188].json", channel(message(1, "one")))
    written(
        folder / "thread.json",
        channel(
            message(20, "in the thread"),
            id="1300",
            type="GuildPublicThread",
            name="A thread",
            categoryId="1188",
            category="otto",
        ),
    )
    written(folder / "otto [1188].json_Files" / "settings-12AB.json", {"an": "attachment"})
    got = read("discord", folder)
    assert got.contents == ["one", "two", "ten", "in the thread"]
    assert not got.rejected
    assert {one.conversation_id for one in got.messages} == {"discord:1188", "discord:1300"}
    assert {one.channel_id for one in got.messages} == {"discord:1188"}
    assert recognise(folder).name == "discord"
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for one in folder.rglob("*.json"):
            file.write(one, one.relative_to(tmp_path).as_posix())
    assert read("discord", archive).messages == got.messages


def test_ids_do_not_depend_on_the_name_of_the_file(tmp_path: Path) -> None:
    document = channel(message(1, "one"), message(2, "two"))
    first = read("discord", written(tmp_path / "a.json", document))
    second = read("discord", written(tmp_path / "b (1).json", document))
    assert first.messages == second.messages


def test_an_export_that_was_cut_off_keeps_what_it_has(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", channel(*(message(n, f"m{n}") for n in range(1, 6))))
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index('"content": "m5"')], encoding="utf-8")
    got = read("discord", path)
    assert got.contents == ["m1", "m2", "m3", "m4"]
    assert [one.where for one in got.rejected] == ["message 5 of a.json"]


def test_a_damaged_message_leaves_the_others(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", channel(*(message(n, f"m{n}") for n in range(1, 6))))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"m3"', '"m3'), encoding="utf-8")
    got = read("discord", path)
    assert got.contents == ["m1", "m2", "m4", "m5"]
    assert len(got.rejected) == 1


def test_a_damaged_file_of_a_folder_is_reported(tmp_path: Path) -> None:
    written(tmp_path / "a.json", channel(message(1, "one")))
    written(tmp_path / "b.json", channel(message(1, "other"), id="1199"))
    (tmp_path / "b.json").write_text('{"guild": {"id": "1', encoding="utf-8")
    got = read("discord", tmp_path)
    assert got.contents == ["one"]
    assert [one.where for one in got.rejected] == ["b.json"]


def test_bots_are_companions_unless_the_companion_is_named(tmp_path: Path) -> None:
    proxy = {"id": "833", "name": "PK", "nickname": "Mira's other side", "isBot": True}
    path = written(
        tmp_path / "a.json",
        channel(message(1, "a"), message(2, "b", author=OTTO), message(3, "c", author=proxy)),
    )
    assert read("discord", path).roles == ["user", "assistant", "assistant"]
    for name in ("otto", "OTTO THE BOT", OTTO["id"]):
        assert read("discord", path, companion=(name,)).roles == ["user", "assistant", "user"]
    with pytest.raises(WhoIsWho):
        read("discord", path, companion=("Nobody",))


def test_in_a_direct_chat_the_other_one_is_the_companion(tmp_path: Path) -> None:
    friend = {"id": "844", "name": "ada", "nickname": "Ada", "isBot": False}
    path = written(
        tmp_path / "a.json",
        channel(message(1, "a"), message(2, "b", author=friend), type="DirectTextChat"),
    )
    got = read("discord", path, me="mira.k")
    assert got.roles == ["user", "assistant"]
    assert [one.user_id for one in got.messages] == [MIRA["id"]] * 2


def test_values_of_any_type_are_no_error(tmp_path: Path) -> None:
    odd = [None, 3, True, "x", [], {}, [{}], {"id": []}, 1e400]
    names = list(message(1, "x"))
    messages = [{**message(1, "x"), name: value} for name in names for value in odd]
    got = read("discord", written(tmp_path / "a.json", channel(*messages, *odd)), trust_times=True)
    assert len(got.messages) + got.skipped["damaged message"] > len(messages) / 2
