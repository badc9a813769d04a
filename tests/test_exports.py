"""Importers of exports, on invented samples with the messages that each must yield."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aico_lab.errors import SourceUnreadable
from aico_lab.sources import SOURCES, recognise
from aico_lab.sources.exports import FORMATS as EXPORTS
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.zones import get_zone

SAMPLES = Path(__file__).parent / "exports"

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "characterai_histories.json": ("characterai", {}),
    "characterai_turns.json": ("characterai", {}),
    "chatgpt_conversations.json": ("chatgpt", {}),
    "openwebui_export.json": ("openwebui", {}),
    "librechat_export.json": ("librechat", {}),
    "lmstudio_1767261600000.conversation.json": ("lmstudio", {}),
    "gemini_myactivity.json": ("gemini", {}),
    "pigpig_memory.db": ("pigpig", {}),
    "openai_messages.jsonl": ("openai", {"start": datetime(2026, 1, 1, tzinfo=UTC)}),
    "sharegpt.json": ("sharegpt", {"start": datetime(2026, 1, 1, tzinfo=UTC)}),
    "claude_conversations.json": ("claude", {}),
    "discord_dce.json": ("discord", {}),
    "replika_backup.no.csv": ("replika", {}),
    "replika_messages.json": ("replika", {}),
    "sillytavern_chat.jsonl": ("sillytavern", {"zone": get_zone("Europe/Berlin")}),
    "telegram_result.json": ("telegram", {}),
    "whatsapp_android_de.txt": (
        "whatsapp",
        {"zone": get_zone("Europe/Berlin"), "companion": ("Otto Bot",)},
    ),
    "whatsapp_ios_us_chat.txt": (
        "whatsapp",
        {"zone": get_zone("America/New_York"), "companion": ("Pelle 🦊",)},
    ),
}


def read(sample: str, **options: Any) -> tuple[list[Any], list[Any]]:
    """Return the messages of a sample and what was rejected."""
    name, given = FORMATS[sample]
    batches = list(SOURCES[name].read(SAMPLES / sample, options=Options(**{**given, **options})))
    return (
        [message for batch in batches for message in batch.messages],
        [rejected for batch in batches for rejected in batch.rejected],
    )


def expected(sample: str) -> list[dict[str, Any]]:
    """Return the lines of the sample's expected file."""
    text = (SAMPLES / sample).with_suffix(".expected.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def at(text: str) -> datetime:
    """Return the instant of a timestamp."""
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize("sample", FORMATS)
def test_a_sample_gives_the_expected_messages(sample: str) -> None:
    messages, _ = read(sample)
    wanted = [line for line in expected(sample) if not line.get("optional")]
    allowed = expected(sample)
    got = iter(messages)
    message = next(got, None)
    for line in allowed:
        if message is None or not _same_text(message, line):
            assert line.get("optional"), (line, message)
            continue
        _compare(message, line)
        message = next(got, None)
    assert message is None, message
    assert len(messages) >= len(wanted)


@pytest.mark.parametrize("sample", FORMATS)
def test_a_sample_is_recognised_as_one_format_only(sample: str) -> None:
    """Whatever its name: no format takes another one's file, and none leaves its own."""
    assert recognise(SAMPLES / sample).name == FORMATS[sample][0]


@pytest.mark.parametrize("sample", FORMATS)
def test_a_sample_is_recognised_under_any_name(sample: str, tmp_path: Path) -> None:
    path = tmp_path / f"download{Path(sample).suffix}"
    path.write_bytes((SAMPLES / sample).read_bytes())
    assert recognise(path).name == FORMATS[sample][0]


def _same_text(message: Any, line: dict[str, Any]) -> bool:
    if line.get("compare") == "words":
        return _words(message.content) == _words(line["content"])
    return bool(message.content == line["content"])


def _words(text: str) -> list[str]:
    return "".join(one if one.isalnum() else " " for one in text).split()


def _compare(message: Any, line: dict[str, Any]) -> None:
    metadata = json.loads(message.metadata or "{}")
    assert message.role == line["role"], line
    for name in ("conversation_id", "message_id", "reply_to"):
        if line[name] is not None:
            assert str(getattr(message, name)).endswith(line[name]), (line, message)
    if line["reply_to"] is None:
        assert message.reply_to is None, (line, message)
    if line["author"] is not None:
        assert metadata["author"] == line["author"], line
    if line["timestamp"] is None:
        assert metadata["timestamp_estimated"] is True
    elif line.get("timestamp_estimated"):
        assert metadata["timestamp_estimated"] is True, line
    else:
        gap = abs(at(message.timestamp) - at(line["timestamp"]))
        assert gap < timedelta(milliseconds=1), (line, message)
        assert "timestamp_estimated" not in metadata, line


def test_get_zone_is_used() -> None:
    assert get_zone("europe/berlin").key == "Europe/Berlin"


FOREIGN = {
    "x.json": b'{"a":1}',
    "messages.jsonl": b'{"content": "hello", "timestamp": "2024-05-01T10:00:00Z"}\n' * 3,
    "table.csv": b"a,b\n1,2\n",
    "picture.png": bytes(range(256)),
    "nothing.txt": b"",
}


@pytest.mark.parametrize("name", EXPORTS)
def test_a_file_of_another_format_is_refused_by_the_name_of_a_format(name, tmp_path):
    """Rather than imported with no message: every sample, and files of no format."""
    files = [SAMPLES / sample for sample, (own, _) in FORMATS.items() if own != name]
    for file, content in FOREIGN.items():
        (tmp_path / file).write_bytes(content)
        files.append(tmp_path / file)
    for file in files:
        with pytest.raises(SourceUnreadable, match=f" is not in the format {name}: it ") as told:
            list(SOURCES[name].read(file, options=Options(start=datetime(2026, 1, 1, tzinfo=UTC))))
        if file.name in FORMATS:
            assert f"it looks like {FORMATS[file.name][0]} (" in str(told.value)


@pytest.mark.parametrize("name", ["chatgpt", "claude", "openwebui", "gemini"])
def test_an_export_without_any_conversation_is_no_error(name, tmp_path):
    for content in ("[ ]\n", '{"title": "x", "messages": []}'):
        (tmp_path / "conversations.json").write_text(content)
        (batch,) = SOURCES[name].read(tmp_path / "conversations.json")
        assert (batch.messages, batch.rejected) == ([], [])


def test_the_command_says_that_a_file_has_another_format(cli, lab, tmp_path):
    (tmp_path / "x.json").write_bytes(FOREIGN["x.json"])
    (tmp_path / "m.jsonl").write_bytes(FOREIGN["messages.jsonl"])
    for arguments in (["chatgpt", "x.json"], ["m.jsonl", "--as", "chatgpt"]):
        paths = [str(tmp_path / one) if "." in one else one for one in arguments]
        told = cli("import", *paths)
        assert (told.returncode, told.stdout) == (1, "")
        assert "is not in the format chatgpt: it looks like " in told.stderr
    assert lab.primary.fetch_all("SELECT count(*) FROM messages") == [(0,)]
