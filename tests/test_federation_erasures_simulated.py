"""Three devices that write, erase, decide, compact and meet in random orders."""

from __future__ import annotations

import contextlib
import json
import os
import random

import pytest

from aico_lab.adapters.sql_text import quoted
from aico_lab.errors import InvalidValue, UnknownName
from aico_lab.federation import applying, conflicts, erasures

SEEDS = int(os.environ.get("SEEDS", "20")) // 4
"""The number of histories."""
SCOPES = [{"user": "ada-of-1987"}, {"channel": "the-garden"}, {"conversation": "group-1"}]
SAID = (
    "INSERT INTO messages (message_id, channel_id, conversation_id, user_id, role, content, "
    "timestamp) VALUES (?, ?, ?, ?, 'user', ?, '2026-11-10T12:30:00.000000Z')"
)
REMEMBERED = "INSERT INTO memories VALUES (?, ?, ?, 'fact', 1, '2024', NULL)"
TEXTS = (
    "SELECT content FROM messages UNION SELECT content FROM memories "
    "UNION SELECT content ->> 'content' FROM sync_conflicts WHERE state = 'open' "
    "AND content ->> 'content' IS NOT NULL"
)


class History:
    """What happened to every text, which only one row ever had."""

    def __init__(self, labs, folder, seed):
        self.labs, self.folder, self.rng = labs, folder, random.Random(seed)
        self.compacts = bool(seed % 2)
        self.scope_of = {}
        self.ended = set()
        self.erased = set()
        self.decided = set()

    def run(self, steps):
        kinds = {
            self.write: 8, self.change: 6, self.delete: 2, self.meet: 8, self.forget: 2,
            self.resolve: 1, self.compact: 1,
        }  # fmt: skip
        for _ in range(steps):
            (do,) = self.rng.choices(list(kinds), list(kinds.values()))
            do(self.rng.choice(self.labs))
        for _ in range(5):
            for lab in self.labs:
                lab.devices.sync(folder=self.folder)
        self.check()

    def text(self, **scope):
        made = f"a canary, number {len(self.scope_of)}."
        self.scope_of[made] = scope
        return made

    def write(self, lab):
        user = self.rng.choice(["ada-of-1987", "otto-of-1990"])
        channel = self.rng.choice(["the-garden", "the-group"])
        conversation = f"{channel[4:]}-{self.rng.randrange(2)}"
        key = f"row-{len(self.scope_of)}"
        with lab.primary.transaction():
            run = lab.primary.execute
            run("INSERT INTO users VALUES (?, NULL, '2024', NULL) ON CONFLICT DO NOTHING", [user])
            if self.rng.random() < 0.3:
                run(REMEMBERED, [key, user, self.text(user=user)])
                return
            run(
                "INSERT INTO channels (channel_id, created_at) VALUES (?, '2026') "
                "ON CONFLICT DO NOTHING",
                [channel],
            )
            text = self.text(user=user, channel=channel, conversation=conversation)
            run(SAID, [key, channel, conversation, user, text])

    def rows(self, lab):
        return lab.primary.fetch_all(
            "SELECT 'messages', 'message_id', message_id, content FROM messages "
            "UNION ALL SELECT 'memories', 'memory_id', memory_id, content FROM memories ORDER BY 3"
        )

    def change(self, lab):
        if rows := self.rows(lab):
            table, column, key, former = self.rng.choice(rows)
            self.ended.add(former)
            text = self.text(**self.scope_of[former])
            sql = f"UPDATE {table} SET content = ? WHERE {column} = ?"
            with lab.primary.transaction():
                lab.primary.execute(sql, [text, key])

    def delete(self, lab):
        if rows := self.rows(lab):
            table, column, key, former = self.rng.choice(rows)
            kept = "SELECT content ->> 'content' FROM sync_conflicts WHERE row_key = ?"
            # Who got a row only by a state does not list what the row had won over.
            for one in self.labs if self.compacts else [lab]:
                self.ended |= {text for (text,) in one.primary.fetch_all(kept, [key])}
            self.ended.add(former)
            with lab.primary.transaction():
                lab.primary.execute(f"DELETE FROM {table} WHERE {column} = ?", [key])

    def meet(self, lab):
        """Let a device exchange files, of which some are not there yet."""
        away = [path for path in self.folder.glob("*/*.age") if self.rng.random() < 0.2]
        for path in away:
            path.rename(self.folder.parent / path.name)
        lab.devices.sync(folder=self.folder)
        for path in away:
            (self.folder.parent / path.name).rename(path)

    def forget(self, lab):
        scope = self.rng.choice(SCOPES)
        ((kind, value),) = scope.items()
        self.erased |= {text for text in self.texts(lab) if self.scope_of[text].get(kind) == value}
        with contextlib.suppress(UnknownName):
            lab.privacy.forget(**scope)

    def resolve(self, lab):
        federation = lab.devices.federation
        if found := federation.conflicts():
            before = self.texts(lab)
            with contextlib.suppress(InvalidValue, UnknownName):  # it is not its to decide
                federation.resolve(
                    self.rng.choice(found).number, self.rng.choice(["mine", "theirs"])
                )
            self.ended |= before - self.texts(lab)
            # A decision is a new version, which a device that erases the text may not know.
            self.decided |= before

    def compact(self, lab):
        if self.compacts:
            lab.devices.federation.compact()

    def texts(self, lab):
        return {text for (text,) in lab.primary.fetch_all(TEXTS)}

    def is_erasable(self, text):
        return any(scope.items() <= self.scope_of[text].items() for scope in SCOPES)

    def check(self):
        first, *others = self.labs
        proof = first.devices.federation.verify().verified.proof
        for lab in others:
            assert lab.devices.federation.verify(with_=proof).buckets == {}
        for lab in self.labs:
            assert erasures.asked(lab.devices.federation.replica) == []
            assert lab.privacy.unfinished() == []
            everything = "\n".join(
                repr(row)
                for (table,) in lab.primary.fetch_all(
                    "SELECT name FROM sqlite_master WHERE type = 'table' "
                    "AND sql NOT LIKE 'CREATE VIRTUAL%'"
                )
                for row in lab.primary.fetch_all(f"SELECT * FROM {quoted(table)}")
            )
            left = [text for text in self.erased - self.decided if text in everything]
            assert not left, ("erased, and still there", left)
        kept = set().union(*map(self.texts, self.labs))
        lost = {
            text
            for text in self.scope_of.keys() - kept - self.ended - self.erased
            if not self.is_erasable(text)
        }
        assert not lost, ("lost", lost)


@pytest.fixture
def history(tmp_path, homes, monkeypatch):
    """Return a function that makes a history of three devices."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    opened = []

    def make(seed):
        root = tmp_path / str(seed)
        (root / "shared").mkdir(parents=True)
        labs = [homes.open(root / name) for name in ("laptop", "phone", "tablet")]
        opened.extend(labs)
        first = labs[0].devices.federation
        first.begin("laptop")
        for lab, name in zip(labs[1:], ("phone", "tablet"), strict=True):
            keys = lab.devices.federation.create_keys()
            lab.devices.federation.join(json.loads(json.dumps(first.invite(keys, name))))
        return History(labs, root / "shared", seed)

    yield make
    for lab in opened:
        lab.close()


def test_nothing_is_lost_and_nothing_that_was_erased_stays(history):
    history(0).run(30)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 1 + SEEDS))
def test_nothing_is_lost_and_nothing_that_was_erased_stays_in_longer_histories(history, seed):
    history(seed).run(100)


def _what_loses_is_not_kept(monkeypatch):
    monkeypatch.setattr(conflicts, "queue", lambda *_, **__: None)


def _who_changes_a_row_decides(monkeypatch):
    monkeypatch.setattr(conflicts, "knew", lambda *_: True)
    monkeypatch.setattr(conflicts, "_replaced_first", lambda _, later, loser, __: later != loser)


def _conflicts_of_erased_rows_stay(monkeypatch):
    monkeypatch.setattr(applying.erased_conflicts, "end_erased", lambda *_: None)


MUTANTS = (
    _what_loses_is_not_kept,
    _who_changes_a_row_decides,
    _conflicts_of_erased_rows_stay,
)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__.strip("_"))
def test_without_a_rule_a_text_is_lost_or_stays(history, monkeypatch, mutant):
    mutant(monkeypatch)
    with pytest.raises(AssertionError, match=r"lost|still there"):
        for seed in range(1000, 1040):
            history(seed).run(100)
