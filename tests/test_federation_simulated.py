"""Simulated devices converge, whatever happens to them; without any of the rules they do not."""

from __future__ import annotations

import json
import os
import re

import pytest

from aico_lab.federation import (
    applying,
    conflicts,
    epochs,
    receiving,
    replica,
    rows,
    sealing,
    spool,
    tables,
)
from aico_lab.federation.sealing import collect
from aico_lab.schema.core import people
from tests.federated import World

SEEDS = int(os.environ.get("SEEDS", "20"))
"""The number of longer runs: 20, or 200 for a change of the rules."""


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.parametrize("seed", [1, 2])
def test_devices_converge(tmp_path, seed):
    World(tmp_path / "w", seed, steps=25, schemas=False).run()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 100 + SEEDS))
def test_devices_converge_in_longer_runs(tmp_path, seed):
    World(tmp_path / "w", seed, steps=100).run()


@pytest.mark.slow
def test_encrypted_devices_converge(tmp_path):
    World(tmp_path / "w", 1, steps=40, key="k" * 32).run()


def _lww(monkeypatch):
    monkeypatch.setattr(applying, "order", lambda v: (v.stamp, v.cl, v.digest))


def _wall_clock_only(monkeypatch):
    monkeypatch.setattr(sealing, "next_stamp", lambda at, _: at * 1000)


def _what_came_and_went_leaves_tombstones(monkeypatch):
    monkeypatch.setattr(replica.Replica, "has_forgotten", lambda _: True)


def _what_others_deleted_is_lost(monkeypatch):
    queue = conflicts.queue

    def others(*row, kind="row", is_parent=False):
        if kind != "deleted":
            queue(*row, kind=kind, is_parent=is_parent)

    monkeypatch.setattr(conflicts, "queue", others)


def _own_changes_that_are_not_sent_are_lost(monkeypatch):
    monkeypatch.setattr(applying._Applying, "_unsent", lambda *_: {})


def _texts_that_no_bundle_can_have_are_lost(monkeypatch):
    monkeypatch.setattr(applying, "with_raw_text", lambda *found: rows.physical(*found)[0])


def _decisions_stay_local(monkeypatch):
    monkeypatch.setattr(conflicts, "receive", lambda *_: None)


def _orphans_stay_local(monkeypatch):
    monkeypatch.setattr(applying, "collect", lambda replica, without: (
        collect(replica, without=without),
        replica.connection.execute("DELETE FROM sync_dirty"),
    ))  # fmt: skip


def _replaces_rows(monkeypatch):
    def write(self, table, written):
        columns = ", ".join((*table.keys, *table.columns))
        places = ", ".join("?" * len((*table.keys, *table.columns)))
        self._connection.execute_many(
            f"INSERT OR REPLACE INTO {table.name} ({columns}) VALUES ({places})", written.values()
        )
        return {}

    monkeypatch.setattr(applying._Applying, "_write", write)


def _own_forgotten_files_are_skipped(monkeypatch):
    pending = receiving.Receiver._pending

    def without_own(self):
        own = self._replica.device_id
        return {name for name in pending(self) if name.device != own}

    monkeypatch.setattr(receiving.Receiver, "_pending", without_own)


def _revoked_devices_are_heard(monkeypatch):
    monkeypatch.setattr(receiving.Receiver, "_was_seen", lambda *_: True)


def _revoked_devices_can_read(monkeypatch):
    newest = epochs.recipient
    monkeypatch.setattr(
        epochs, "recipient", lambda replica, class_, _: newest(replica, class_, _All())
    )


class _All(set):
    def __rsub__(self, other):
        return set()

    def __ge__(self, other):
        return True


def _counters_are_content(monkeypatch):
    monkeypatch.setattr(tables.feed, "computed_columns", lambda *_: ())


def _partial_files_are_taken(monkeypatch):
    def take(self, name, content):
        spool.parse_name(name)
        self._write(self.folder / name, content)

    monkeypatch.setattr(spool.Spool, "take", take)


def _newer_bundles_are_cut(monkeypatch):
    """Columns that this device does not have yet are left out, instead of waiting."""

    def read_changes(opened, known, schema, *, read=receiving.read_changes):
        body = {}
        for name, part in json.loads(opened.body).items():
            if name in known:
                here = [at for at, one in enumerate(part["columns"]) if one in known[name].columns]
                body[name] = {
                    "columns": [part["columns"][at] for at in here],
                    "rows": [
                        [head, content and [content[at] for at in here]]
                        for head, content in part["rows"]
                    ],
                }
        return read(opened._replace(body=json.dumps(body).encode()), known, schema)

    monkeypatch.setattr(receiving, "read_changes", read_changes)


def _history_is_written_again(connection):
    for trigger in (*people._HISTORY_TRIGGERS_DROPPED, *people._history_triggers()):
        connection.execute(re.sub("DROP TRIGGER", "DROP TRIGGER IF EXISTS", trigger))


MUTANTS = {
    _lww: 0,
    _wall_clock_only: 1,
    _what_came_and_went_leaves_tombstones: 0,
    _what_others_deleted_is_lost: 0,
    _own_changes_that_are_not_sent_are_lost: 1,
    _texts_that_no_bundle_can_have_are_lost: 0,
    _decisions_stay_local: 0,
    _orphans_stay_local: 3,
    _replaces_rows: 0,
    _own_forgotten_files_are_skipped: 4,
    _revoked_devices_are_heard: 2,
    _revoked_devices_can_read: 2,
    _counters_are_content: 0,
    _partial_files_are_taken: 0,
    _newer_bundles_are_cut: 0,
}
"""Changes that remove one rule each, with the seed to begin with; keys are random in each run."""


def _fails(tmp_path, first, prepare=lambda _: None):
    for seed in range(first, first + 20):
        try:
            World(tmp_path / str(seed), seed, steps=60, prepare=prepare).run()
        except (TypeError, AttributeError, NameError):  # the mutant itself is out of date
            raise
        except Exception:  # noqa: BLE001 - a missing rule may break anything
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__.strip("_"))
def test_without_a_rule_devices_do_not_converge(tmp_path, monkeypatch, mutant):
    mutant(monkeypatch)
    assert _fails(tmp_path, MUTANTS[mutant])


@pytest.mark.slow
def test_without_the_guard_the_history_of_preferences_is_doubled(tmp_path):
    assert _fails(tmp_path, 0, _history_is_written_again)
