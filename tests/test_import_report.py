"""One command from a downloaded file to a report on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SAMPLES = Path(__file__).with_name("exports")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sample", "options", "about"),
    [
        ("whatsapp_android_de.txt", ["--companion", "Otto Bot"], "Channel 1"),
        ("telegram_result.json", ["--companion", "Otto"], "Channel 1"),
        ("chatgpt_conversations.json", [], "these are all messages"),
    ],
)
@pytest.mark.usefixtures("lab")
def test_one_command_after_init_gives_a_report(cli, sample, options, about):
    path = str(SAMPLES / sample)
    told = cli("import", path, *options, "--timezone", "Europe/Berlin", "--report", "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["added"] > 0
    page = Path(found["report"]).read_text(encoding="utf-8")
    assert about in page
    assert "Europe/Berlin" in page


@pytest.mark.usefixtures("lab")
def test_a_dry_run_has_no_report(cli):
    told = cli("import", str(SAMPLES / "telegram_result.json"), "--report", "--dry-run")
    assert (told.returncode, "leave out --report or --dry-run" in told.stderr) == (2, True)


def test_replies_to_messages_that_are_not_stored_are_told(cli, tmp_path):
    cli("init", "--no-encryption")
    said = {"content": "hi", "timestamp": "2024-05-01T10:00:00Z", "reply_to": "gone"}
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(said) + "\n")
    told = cli("import", "jsonl", str(path)).stderr
    assert "1 reply is to a message that is not stored" in told
