"""Damaged JSON whose objects have their keys in any order: only the damaged part is lost."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aico_lab.sources import SOURCES
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.sources.exports.engine.json_items import items
from aico_lab.sources.exports.engine.opened import opened
from tests.exported import telegram_chat
from tests.test_exports import FORMATS, SAMPLES

if TYPE_CHECKING:
    import random
    from pathlib import Path

SAMPLES_OF_LISTS = (
    "chatgpt_conversations.json",
    "claude_conversations.json",
    "sharegpt.json",
    "openai_messages.jsonl",
)
DAMAGE = '"damaged": tru, '


def shuffled(value: Any, chance: random.Random) -> Any:
    """Return a JSON value with the keys of each object in another order."""
    if isinstance(value, list):
        return [shuffled(one, chance) for one in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    chance.shuffle(keys)
    return {key: shuffled(value[key], chance) for key in keys}


def damaged(text: str) -> str:
    """Return an object that no parser takes, damaged somewhere at its beginning."""
    return text.replace("{", "{" + DAMAGE, 1)


def read(name: str, path: Path, **options: Any) -> tuple[set[tuple[str, str]], int]:
    """Return the roles and texts of all messages, and the number of faults.

    Half of a surrogate pair becomes one of two marks, by the parser that reads it.
    """
    batches = list(SOURCES[name].read(path, options=Options(**options)))
    messages = (message for batch in batches for message in batch.messages)
    said = {(one.role, one.content.replace("\ufffd", "?")) for one in messages}
    return said, sum(len(batch.rejected) for batch in batches)


def conversations_of(sample: str) -> list[Any]:
    text = (SAMPLES / sample).read_text(encoding="utf-8")
    if sample.endswith(".jsonl"):
        found = []
        for line in text.split("\n"):
            with contextlib.suppress(ValueError):  # a line that is damaged already
                found.append(json.loads(line))
        return found
    return [one for one in json.loads(text) if isinstance(one, dict)]


@pytest.mark.parametrize("sample", SAMPLES_OF_LISTS)
@settings(max_examples=6, deadline=None)
@given(chance=st.randoms(use_true_random=False), data=st.data())
def test_all_conversations_but_the_damaged_one_come_out(
    sample: str, chance: random.Random, data: st.DataObject, tmp_path_factory: Any
) -> None:
    name, options = FORMATS[sample]
    path = tmp_path_factory.mktemp("order") / "conversations.json"
    listed = [shuffled(one, chance) for one in conversations_of(sample)]
    at = data.draw(st.integers(0, len(listed) - 1))
    path.write_text(json.dumps(listed[:at] + listed[at + 1 :]), encoding="utf-8")
    wanted, _ = read(name, path, **options)
    texts = [json.dumps(one) for one in listed]
    texts[at] = damaged(texts[at])
    path.write_text(f"[{', '.join(texts)}]", encoding="utf-8")
    found, faults = read(name, path, **options)
    assert wanted <= found
    assert faults


@settings(max_examples=10, deadline=None)
@given(chance=st.randoms(use_true_random=False), at=st.integers(0, 7))
def test_all_messages_but_the_damaged_one_come_out(
    chance: random.Random, at: int, tmp_path_factory: Any
) -> None:
    """Telegram's chat is a list of messages after its name, which no program writes last."""
    path = tmp_path_factory.mktemp("order") / "result.json"
    chat = telegram_chat(7, *range(8))
    texts = [json.dumps(shuffled(one, chance)) for one in chat.pop("messages")]
    texts[at] = damaged(texts[at])
    begin = json.dumps(shuffled(chat, chance)).removesuffix("}")
    path.write_text(f'{begin}, "messages": [{", ".join(texts)}]}}', encoding="utf-8")
    found, faults = read("telegram", path, companion=("Otto",))
    assert {f"words {number}" for number in range(8) if number != at} == {one[1] for one in found}
    assert faults == 1


def seconds_without_an_end(path: Path, megabytes: int) -> float:
    """Return the CPU seconds for a list in which an object lacks its end."""
    row = json.dumps({"mapping": {}, "text": "x" * 1_000})
    path.write_text(f'[{{"mapping": [{", ".join([row] * (megabytes * 1_000))}', encoding="utf-8")
    with opened(path) as export:
        started = time.process_time()
        found = list(items(export.members[0], "item", needs={"mapping"}))
        seconds = time.process_time() - started
    assert len(found) == megabytes * 1_000 + 1
    return seconds


def test_an_object_without_an_end_takes_time_in_proportion_to_its_size(tmp_path: Path) -> None:
    """Read twice, not once for every MiB, which would take 64 times as long."""
    small, large = (seconds_without_an_end(tmp_path / "a.json", size) for size in (2, 16))
    assert large < 40 * small
