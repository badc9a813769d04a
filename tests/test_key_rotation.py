"""A new master key for every store: killed, refused, out of space, and the old key is dead."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from aico_lab.adapters.duckdb import DuckDBAdapter
from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.adapters.sealed import peek
from aico_lab.config import Settings
from aico_lab.errors import DiskFull, HomeBusy, InvalidValue, MarkerAltered, StorageError, WrongKey
from aico_lab.etl.snapshots import published
from aico_lab.home.credentials import create_key_file
from aico_lab.home.folder import Home
from aico_lab.home.keys import Keys, create_keys
from aico_lab.home.staged import seal_of, staged
from aico_lab.key_rotation import stores
from aico_lab.key_rotation.adding import add_credential, remove_credential
from aico_lab.key_rotation.rotation import _Rotation, rotate
from aico_lab.key_rotation.slots import changing
from aico_lab.lab import Lab
from aico_lab.schema.backup import back_up, backups_of
from tests.messages import add, message

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with something in every store, to copy; its key file is beside it."""
    folder = tmp_path_factory.mktemp("model")
    with Lab.create(folder / "home", key_file=folder / "own.key") as lab:
        add(lab.primary, *map(message, range(12)))
        with lab.primary.transaction():
            back_up(lab.primary, "test")
        lab.embeddings.update()
        lab.sync()
        lab.cache.store.put("session:ada", {"turns": ["hello"]})
    return folder


@pytest.fixture
def folder(model: Path, home: Path) -> Home:
    """A copy of that home."""
    shutil.copytree(model / "home", home)
    return Home(home)


@pytest.fixture
def settings(model: Path, home: Path) -> Settings:
    """What opens it."""
    return Settings(home, key_file=model / "own.key")


def content(settings: Settings) -> dict[str, Any]:
    """Return what the stores of a home have."""
    with Lab.open(settings.home, key_file=settings.key_file) as lab:
        return {
            "rows": lab.primary.fetch_all("SELECT message_id, content FROM messages ORDER BY 1"),
            "snapshot": lab.sql("SELECT count(*) FROM conversations").fetchall(),
            "kept": lab.cache.store.get("session:ada"),
            "found": [one.text for one in lab.search("message", k=3, mode="semantic")],
        }


def keys_of(settings: Settings) -> Keys:
    with Lab.open(settings.home, key_file=settings.key_file) as lab:
        return lab.storage.keys


def opens(home: Home, keys: Keys) -> list[str]:
    """Return the stores of a home that keys open."""
    (backup,) = backups_of(home.primary)
    tries: dict[str, Callable[[], object]] = {
        "primary": lambda: LibSQLAdapter(home.primary, keys.libsql()).connect().close(),
        "backup": lambda: LibSQLAdapter(backup, keys.libsql()).connect().close(),
        "vectors": lambda: peek(home.path / "vectors.age", keys.chroma() or ""),
    }
    files = {
        "writer": home.writer,
        **{path.name: path for path in published(home.snapshots).values()},
    }
    for name, path in files.items():
        adapter = DuckDBAdapter(path, keys.duckdb(), read_only=True, temporary=home.temporary)
        tries[name] = lambda adapter=adapter: adapter.connect().close()
    found = []
    for name, attempt in tries.items():
        try:
            attempt()
        except StorageError:
            continue
        found.append(name)
    return found


def left_over(home: Home) -> list[Path]:
    return [path for path in home.path.rglob("*") if "rekeyed" in path.name]


@pytest.mark.slow
def test_every_store_has_the_new_key_and_the_old_one_opens_none(folder, settings, tmp_path):
    """Backups and snapshots, too; each credential opens the home as before, but a removed one."""
    add_credential(folder, settings, "passphrase", passphrase="another horse battery")
    recovery = add_credential(folder, settings, "recovery").recovery_key
    former = tmp_path / "former.json"
    former.write_bytes(folder.marker.read_bytes())
    remove_credential(folder, settings, 2)
    before, old = content(settings), keys_of(settings)
    result = rotate(folder, settings)
    new = keys_of(settings)
    assert (result.slots, result.rotations, result.resumed, result.backups) == (2, 1, False, 1)
    assert new.receipts() == old.receipts() != Keys(new.master).receipts()
    assert (new.backup(), new.integrity()) != (old.backup(), old.integrity())
    stores_ = ["primary", "backup", "vectors", "writer", "00000001.duckdb"]
    assert opens(folder, new) == stores_
    assert opens(folder, old) == []
    assert not {old.master.hex(), new.master.hex()} & {folder.marker.read_text()}
    assert content(settings) == before
    with Lab.open(folder.path, passphrase=recovery) as lab:
        assert lab.storage.keys.master == new.master
        assert lab.sync().mode == "nothing"
        assert lab.verify().ok
    shutil.copy(former, folder.marker)  # of which somebody kept a copy
    with (
        Lab.open(folder.path, passphrase="another horse battery") as lab,
        pytest.raises(MarkerAltered, match="older than the last change of its key"),
    ):
        _ = lab.primary
    assert left_over(folder) == []


def killed(home: Path, file: Path, number: int) -> None:
    """Rotate the key, and be killed at the n-th change of a file."""
    counted = [0]

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        writes = name == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if writes or name in {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}:
            counted[0] += 1
            if counted[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    rotate(Home(home), Settings(home, key_file=file))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there are no such signals")
def test_a_rotation_that_is_killed_leaves_a_home_that_opens_and_is_finished_later(
    folder, settings, cli
):
    """With all that was written meanwhile, at each stage; commands say that it is unfinished."""
    before, phases = content(settings), []
    receipts = keys_of(settings).receipts()
    spawn = multiprocessing.get_context("spawn")
    for number in (40, 92):
        process = spawn.Process(target=killed, args=(folder.path, settings.key_file, number))
        process.start()
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL)
        phases.append((folder.read_marker().get("rotation") or {}).get("phase"))
        with Lab.open(settings.home, key_file=settings.key_file) as lab:
            add(lab.primary, message(100 + number))
            assert lab.storage.keys.receipts() == receipts
            assert (lab.storage.keys.former is not None) == (phases[-1] is not None)
            assert not lab.sync().rebuilt
            assert lab.verify().ok
            assert lab.cache.store.get("session:ada") == before["kept"]
    assert {"preparing", "switching"} <= set(phases)
    if phases[-1]:
        said = cli("schema", "status", "--key-file", str(settings.key_file))
        assert "aico-lab keys rotate" in said.stderr
    rotate(folder, settings)
    after = content(settings)
    assert len(after["rows"]) == len(before["rows"]) + 2
    assert after["snapshot"] == [(14,)]
    assert keys_of(settings).former is None
    assert keys_of(settings).receipts() == receipts
    assert left_over(folder) == []


@pytest.mark.slow
def test_a_full_disk_or_a_damaged_store_leaves_the_old_key(folder, settings, monkeypatch):
    """And no copy; the next rotation begins again."""
    before, old = content(settings), keys_of(settings)

    def full(*_: object) -> None:
        raise DiskFull("The disk is full: free some space.") from OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(stores, "reseal", full)
        with pytest.raises(DiskFull):
            rotate(folder, settings)
    assert left_over(folder) == []
    assert "rotation" not in folder.read_marker()
    sealed = folder.path / "vectors.age"
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:-9])
    with pytest.raises(StorageError, match="--full"):
        rotate(folder, settings)
    sealed.write_bytes(whole)
    assert keys_of(settings).master == old.master
    assert content(settings) == before
    assert left_over(folder) == []


def test_a_home_that_is_open_keeps_its_key(folder, settings):
    """In this process or another one, and by whatever means."""
    before = folder.marker.read_bytes()
    with Lab.open(folder.path, key_file=settings.key_file) as lab:
        with pytest.raises(HomeBusy, match=r"has .* open"):
            rotate(folder, settings)
        key = lab.storage.keys.libsql()
    with LibSQLAdapter(folder.primary, key).connect() as connection:
        connection.fetch_all("SELECT 1 FROM sqlite_master")
        with pytest.raises(HomeBusy, match=r"aico\.db is open"):
            rotate(folder, settings)
    assert json.loads(before)["slots"] == folder.read_marker()["slots"]
    assert "rotation" not in folder.read_marker()
    assert left_over(folder) == []


def test_nobody_opens_a_home_whose_key_is_being_changed(folder, settings, monkeypatch):
    """But a rotation that was killed keeps nobody out."""
    seen: list[str] = []

    def look(*_: object) -> None:
        with pytest.raises(HomeBusy, match="is being changed by process") as refused:
            Lab.open(folder.path, key_file=settings.key_file)
        seen.append(str(refused.value))
        raise DiskFull("enough")

    monkeypatch.setattr(stores, "stage_primary", look)
    with pytest.raises(DiskFull):
        rotate(folder, settings)
    assert len(seen) == 1
    (folder.temporary / "rotation").write_text("process 1")
    Lab.open(folder.path, key_file=settings.key_file).close()
    assert not (folder.temporary / "rotation").exists()


def test_an_unencrypted_home_or_a_wrong_key_changes_nothing(folder, tmp_path):
    plain = Home(tmp_path / "plain")
    plain.temporary.mkdir(parents=True)
    plain.rewrite_marker(create_keys("id", "none", Settings(plain.path))[1])
    with pytest.raises(InvalidValue, match="not encrypted"):
        rotate(plain, Settings(plain.path))
    create_key_file(tmp_path / "wrong.key")
    before = folder.marker.read_bytes()
    with pytest.raises(WrongKey):
        rotate(folder, Settings(folder.path, key_file=tmp_path / "wrong.key"))
    assert folder.marker.read_bytes() == before


@pytest.mark.slow
def test_the_new_file_is_sealed_and_damage_keeps_the_old_key(folder, settings):
    """A new seal would vouch for a page that nobody with the key wrote."""
    content(settings)  # opening it seals it
    rotate(folder, settings)
    with Lab.open(settings.home, key_file=settings.key_file) as lab:
        assert lab.primary.seal.examine(lab.primary) == {}
        why = lab.primary.fetch_all("SELECT reason FROM integrity_log ORDER BY rowid DESC LIMIT 1")
        assert why == [("a new key of the home",)]
        ((page,),) = lab.primary.fetch_all(
            "SELECT pageno FROM dbstat WHERE name = 'messages' AND pagetype = 'leaf' LIMIT 1"
        )
    key = keys_of(settings).master
    damaged = bytearray(folder.primary.read_bytes())
    damaged[page * 4096 - 50] ^= 1
    folder.primary.write_bytes(damaged)
    with pytest.raises(StorageError, match="not as they were sealed"):
        rotate(folder, settings)
    assert "rotation" not in folder.read_marker()
    assert keys_of(settings).master == key
    assert left_over(folder) == []


def test_a_seal_is_put_in_place_only_after_its_database(folder, settings):
    """A rotation that was killed before leaves the seal of the former key as it is."""
    with changing(folder, settings) as (marker, keys):
        _Rotation(folder, marker, keys, lambda _: None)._write("preparing")
    seal_of(staged(folder.path, "libsql")).write_bytes(b"of a copy that was left half")
    with Lab.open(settings.home, key_file=settings.key_file) as lab:
        assert lab.primary.fetch_one("SELECT count(*) FROM messages") == (12,)


@pytest.mark.slow
def test_a_rotation_that_was_killed_before_its_seal_is_put_in_place_is_finished(
    folder, settings, monkeypatch
):
    """Though nobody has opened the home meanwhile."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    before = content(settings)
    with monkeypatch.context() as patched:
        patched.setattr(stores, "put_seal_in_place", die)
        with pytest.raises(KeyboardInterrupt):
            rotate(folder, settings)
    assert rotate(folder, settings).resumed
    assert content(settings) == before
    assert left_over(folder) == []
