"""Messages of a branch that their conversation left are marked, and come back with the branch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.lab import Lab

Tree = dict[str, tuple[str | None, str]]
"""The parent and the role of each message, whose text is its id; the last one is the current."""

FIRST: Tree = {"q": (None, "user"), "a": ("q", "assistant")}
GREW: Tree = {**FIRST, "q3": ("a", "user"), "a3": ("q3", "assistant")}
REGENERATED: Tree = {**GREW, "a4": ("q3", "assistant")}
BACK: Tree = {**REGENERATED, "q5": ("a3", "user")}
SENT_AGAIN: Tree = {**BACK, "q6": (None, "user"), "a6": ("q6", "assistant")}


def _time(tree: Tree, name: str) -> int:
    return 1_750_000_000 + 60 * list(tree).index(name)


def _iso(tree: Tree, name: str) -> str:
    return f"2025-05-13T21:{list(tree).index(name):02}:00.000Z"


def chatgpt(tree: Tree, current: str) -> object:
    nodes: dict[str, Any] = {
        "root": {"id": "root", "parent": None, "children": [], "message": None}
    }
    for name, (parent, role) in tree.items():
        nodes[name] = {
            "id": name, "parent": parent or "root", "children": [],
            "message": {
                "id": name, "author": {"role": role}, "create_time": _time(tree, name),
                "content": {"content_type": "text", "parts": [name]}, "metadata": {},
            },
        }  # fmt: skip
    return [{"conversation_id": "c", "title": "t", "mapping": nodes, "current_node": current}]


def claude(tree: Tree, current: str) -> object:
    return [{
        "uuid": "c", "name": "t", "created_at": "2025-05-13T21:00:00Z",
        "current_leaf_message_uuid": current,
        "chat_messages": [
            {
                "uuid": name, "sender": {"user": "human"}.get(role, role), "text": name,
                "created_at": _iso(tree, name),
                "parent_message_uuid": parent or "00000000-0000-4000-8000-000000000000",
            }
            for name, (parent, role) in tree.items()
        ],
    }]  # fmt: skip


def librechat(tree: Tree, current: str) -> object:
    """Its path ends with the message that was written last."""
    assert current == [*tree][-1]
    return {
        "conversationId": "c", "endpoint": "openAI", "title": "t", "branches": True,
        "recursive": False, "options": {},
        "messages": [
            {
                "messageId": name, "text": name, "isCreatedByUser": tree[name][1] == "user",
                "parentMessageId": tree[name][0] or "00000000-0000-0000-0000-000000000000",
                "createdAt": _iso(tree, name), "sender": "x",
            }
            for name in tree
        ],
    }  # fmt: skip


def openwebui(tree: Tree, current: str) -> object:
    messages = {
        name: {
            "id": name, "parentId": parent, "role": role, "content": name,
            "childrenIds": [child for child, (above, _) in tree.items() if above == name],
            "timestamp": _time(tree, name),
        }
        for name, (parent, role) in tree.items()
    }  # fmt: skip
    history = {"currentId": current, "messages": messages}
    return [{"id": "c", "user_id": "u", "title": "t", "chat": {"history": history}}]


def counted(lab: Lab) -> set[str]:
    return {
        text
        for (text,) in lab.primary.fetch_all(
            "SELECT content FROM messages WHERE instr(coalesce(metadata, ''), 'missing_since') = 0"
        )
    }


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("chatgpt", chatgpt), ("claude", claude), ("librechat", librechat),
        ("openwebui", openwebui),
    ],
)  # fmt: skip
def test_a_branch_that_the_conversation_left_counts_no_longer(name, written, lab, tmp_path: Path):
    def take(tree: Tree, current: str, **options: Any) -> tuple[int, int, int, int]:
        path = tmp_path / "export.json"
        path.write_text(json.dumps(written(tree, current)), encoding="utf-8")
        result = lab.import_from(name, path, **options)
        assert not result.rejected
        return result.added, result.known, result.missing, result.returned

    assert take(FIRST, "a") == (2, 0, 0, 0)
    assert take(GREW, "a3") == (2, 2, 0, 0)
    for deletions in (False, True):
        assert take(REGENERATED, "a4", dry_run=True, deletions=deletions) == (1, 3, 1, 0)
    assert counted(lab) == {"q", "a", "q3", "a3"}
    assert take(REGENERATED, "a4") == (1, 3, 1, 0)
    assert take(REGENERATED, "a4", deletions=True) == (0, 4, 0, 0)
    assert counted(lab) == {"q", "a", "q3", "a4"}
    assert take(BACK, "q5") == (1, 4, 1, 1)
    assert counted(lab) == {"q", "a", "q3", "a3", "q5"}
    assert take(SENT_AGAIN, "a6") == (2, 0, 5, 0)
    assert counted(lab) == {"q6", "a6"}
    lab.sync()
    assert lab.metrics.overview().pl()["n"].sum() == 2


def test_a_damaged_conversation_may_have_gone_another_way(lab, tmp_path: Path):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(chatgpt(GREW, "a3")))
    lab.import_from("chatgpt", path)
    broken: Any = chatgpt(REGENERATED, "a4")
    broken[0]["mapping"]["a"]["message"]["author"] = None
    path.write_text(json.dumps(broken))
    assert lab.import_from("chatgpt", path).missing == 0
    assert counted(lab) == {"q", "a", "q3", "a3", "a4"}
