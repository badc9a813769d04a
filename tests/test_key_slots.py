"""Several slots of a home, each for another credential, and what happens to a wrong one."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aico_lab.config import Settings, usual_key_file
from aico_lab.errors import (
    AicoLabError,
    HomeMissing,
    HomeNotWritable,
    InvalidValue,
    KeyMissing,
    MarkerAltered,
    UnknownName,
    WrongKey,
)
from aico_lab.home import os_keyring, slots
from aico_lab.home.credentials import create_key_file, passphrases, read_key_file
from aico_lab.home.folder import Home
from aico_lab.home.keys import create_keys, open_keys, signed
from aico_lab.home.known import note_encrypted
from aico_lab.home.os_keyring import with_keyring
from aico_lab.key_rotation.adding import add_credential, remove_credential
from aico_lab.key_rotation.slots import status_of
from aico_lab.lab import Lab

PASSPHRASE = "correct horse battery"
OTHER = "another horse battery"
HOME_ID = "c0ffee" * 5 + "42"


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Home:
    """A home whose only slot is of a key file, and which has no databases."""
    (home / "tmp").mkdir(parents=True)
    folder = Home(home)
    _, marker = create_keys(HOME_ID, "key-file", Settings(home, key_file=tmp_path / "own.key"))
    folder.rewrite_marker(marker)
    return folder


@pytest.fixture
def settings(home: Path, tmp_path: Path) -> Settings:
    """The credential of that slot."""
    return Settings(home, key_file=tmp_path / "own.key")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The passwords in a keyring."""
    found: dict[str, str] = {}

    class Library:
        get_password = staticmethod(lambda _, name: found.get(name))
        set_password = staticmethod(lambda _, name, secret: found.update({name: secret}))
        delete_password = staticmethod(lambda _, name: found.pop(name))
        get_keyring = staticmethod(lambda: type("Backend", (), {"name": "fake"}))

    monkeypatch.setattr(os_keyring, "_asked", lambda question: question(Library))
    return found


def opened(folder: Home, **given: object) -> bytes:
    """Return the master key that a credential opens."""
    marker = folder.read_marker()
    keys = open_keys(marker, with_keyring(Settings(folder.path, **given), marker))
    return keys.master


def test_each_credential_opens_the_home_until_its_slot_is_removed(folder, settings, kept, tmp_path):
    """Whatever its kind; the others open it still."""
    master = opened(folder, key_file=settings.key_file)
    add_credential(folder, settings, "passphrase", passphrase=f" {OTHER}\n")
    recovery = add_credential(folder, settings, "recovery").recovery_key
    assert add_credential(folder, settings, "keyring").keyring == "fake"
    add_credential(folder, settings, "key-file", file=tmp_path / "second.key")
    add_credential(folder, settings, "credential", file=tmp_path / "credential")
    ways = {
        2: {"passphrase": OTHER},
        3: {"passphrase": recovery},
        4: {"keyring": True},
        5: {"key_file": tmp_path / "second.key"},
        6: {"key_file": tmp_path / "credential"},
    }
    assert status_of(folder, settings)["intact"] is True
    for way in ways.values():
        assert opened(folder, **way) == master
    for number, way in ways.items():
        remove_credential(folder, settings, number)
        with pytest.raises((WrongKey, KeyMissing, InvalidValue)):
            opened(folder, **way)
    assert opened(folder, key_file=settings.key_file) == master
    assert kept == {}
    assert (tmp_path / "second.key").exists()  # it may open another home


def test_a_recovery_key_is_taken_as_people_type_it_and_a_typing_error_is_said(folder, settings):
    """In capitals, with blanks; it is stored nowhere."""
    recovery = add_credential(folder, settings, "recovery").recovery_key
    master = opened(folder, passphrase=f" {recovery.upper().replace('-', ' ')} ")
    assert opened(folder, passphrase=recovery) == master
    wrong = recovery[:-1] + ("q" if recovery[-1] != "q" else "p")
    with pytest.raises(WrongKey, match="typing error"):
        opened(folder, passphrase=wrong)
    stored = folder.marker.read_text()
    assert recovery[:11] not in stored
    assert recovery.replace("-", "")[:10] not in stored
    assert recovery not in repr(slots.read_recovery_key(recovery))
    other = slots.new_recovery_key()
    with pytest.raises(WrongKey, match="does not open"):
        opened(folder, passphrase=other)


def test_the_last_slot_stays(folder, settings):
    """Without it nothing would open the home."""
    for _ in range(2):
        with pytest.raises(InvalidValue, match="last one"):
            remove_credential(folder, settings, 1)
        with pytest.raises(UnknownName, match="keys status"):
            remove_credential(folder, settings, 7)
    add_credential(folder, settings, "passphrase", passphrase=OTHER)
    remove_credential(folder, settings, 1)
    with pytest.raises(InvalidValue, match="last one"):
        remove_credential(folder, Settings(folder.path, passphrase=OTHER), 2)


def test_a_wrong_passphrase_is_as_slow_as_a_right_one_and_changes_nothing(
    folder, settings, monkeypatch
):
    """Each slot of a passphrase costs one Argon2id; the error does not tell them apart."""
    for passphrase in (PASSPHRASE, OTHER):
        add_credential(folder, settings, "passphrase", passphrase=passphrase)
    assert status_of(folder, Settings(folder.path, passphrase="wrong horse battery")) == {
        **status_of(folder, settings), "intact": None, "in_use": None,
    }  # fmt: skip
    before, calls, stretched = folder.marker.read_bytes(), [], slots._stretched
    monkeypatch.setattr(
        slots, "_stretched", lambda slot, secret: calls.append(slot) or stretched(slot, secret)
    )
    said = set()
    for wrong in ("wrong horse battery", PASSPHRASE.upper(), f"{OTHER}x"):
        with pytest.raises(WrongKey) as refused:
            opened(folder, passphrase=wrong)
        said.add(str(refused.value))
        assert wrong not in str(refused.value)
    assert (len(said), len(calls)) == (1, 6)
    assert folder.marker.read_bytes() == before


def test_slots_that_another_program_altered_are_noticed(folder, settings):
    """Whatever it changed, added or took away; no key of another home gets in."""
    add_credential(folder, settings, "passphrase", passphrase=OTHER)
    whole = json.loads(folder.marker.read_text())
    _, foreign = create_keys("other", "passphrase", Settings(folder.path, passphrase=PASSPHRASE))
    changes = [
        lambda marker: marker["slots"].pop(),
        lambda marker: marker["slots"].append({**foreign["slots"][0], "id": 3}),
        lambda marker: marker["slots"][1].update(public=foreign["slots"][0]["public"]),
        lambda marker: marker["slots"][1].update(created_at="2020-01-01"),
        lambda marker: marker["slots"].reverse(),
        lambda marker: marker.update(rotations=5),
        lambda marker: marker.update(digest="00" * 32),
        lambda marker: marker.pop("digest"),
        lambda marker: marker["slots"][0].update(wrapped=marker["slots"][1]["wrapped"]),
        lambda marker: marker.update(key=marker.pop("slots")[0]),
    ]
    for change in changes:
        marker = json.loads(json.dumps(whole))
        change(marker)
        folder.marker.write_text(json.dumps(marker))
        with pytest.raises((MarkerAltered, HomeMissing)):
            opened(folder, key_file=settings.key_file)
    folder.marker.write_text(json.dumps(whole))
    opened(folder, key_file=settings.key_file)


def former_marker(secret: bytes, kind: str, master: bytes) -> dict[str, object]:
    """Return the marker of a home as earlier versions wrote it."""
    slot = {"kind": kind}
    key = secret
    if kind == "passphrase":
        slot |= {"salt": "ab" * 16, "time_cost": 1, "memory_cost": 8, "parallelism": 1}
        key = slots._stretched(slot, secret)
    slot["nonce"] = "12" * 12
    nonce = bytes.fromhex(slot["nonce"])
    slot["wrapped"] = AESGCM(key).encrypt(nonce, master, HOME_ID.encode()).hex()
    return {"format": 1, "home_id": HOME_ID, "key": slot}


@pytest.mark.parametrize("kind", ["key-file", "passphrase"])
def test_a_home_of_an_earlier_version_opens_and_takes_more_slots(folder, tmp_path, kind):
    """It stays as it is until its keys change."""
    secret, master = os.urandom(32), os.urandom(32)
    file = tmp_path / "former.key"
    file.write_bytes(base64.urlsafe_b64encode(secret))
    file.chmod(0o600)
    given = {"key_file": file} if kind == "key-file" else {"passphrase": PASSPHRASE}
    settings = Settings(folder.path, **given)
    if kind == "passphrase":
        secret = passphrases(settings)[0]
    folder.marker.write_text(json.dumps(former_marker(secret, kind, master)))
    before = folder.marker.read_bytes()
    assert opened(folder, **given) == master
    assert status_of(folder, settings)["intact"] is None
    assert folder.marker.read_bytes() == before
    recovery = add_credential(folder, settings, "recovery").recovery_key
    assert opened(folder, **given) == opened(folder, passphrase=recovery) == master
    assert json.loads(folder.marker.read_text())["format"] == 2
    assert status_of(folder, settings)["intact"] is True


def test_an_unencrypted_home_has_no_slots_to_change(folder):
    """Its databases would stay as they are."""
    _, marker = create_keys(HOME_ID, "none", Settings(folder.path))
    folder.rewrite_marker(marker)
    with pytest.raises(InvalidValue, match="not encrypted"):
        add_credential(folder, Settings(folder.path), "recovery")


def test_a_refused_credential_leaves_nothing(folder, settings, tmp_path):
    """No file, no slot."""
    before = folder.marker.read_bytes()
    (tmp_path / "there").write_text("x")
    for kind, given in (
        ("key-file", {"file": folder.path / "inside.key"}),
        ("credential", {"file": tmp_path / "there"}),
        ("passphrase", {"passphrase": "short"}),
    ):
        with pytest.raises(InvalidValue):
            add_credential(folder, settings, kind, **given)
    with pytest.raises(AicoLabError):
        add_credential(
            folder, Settings(folder.path, passphrase=OTHER), "key-file", file=tmp_path / "new.key"
        )
    assert not (tmp_path / "new.key").exists()
    assert not (folder.path / "inside.key").exists()
    assert folder.marker.read_bytes() == before


@pytest.mark.slow
def test_the_commands_name_slots_and_print_a_recovery_key_once(cli, homes, home, monkeypatch):
    """`status` needs no key; nothing but `add` prints a secret."""
    homes.open(home).close()
    file = usual_key_file(json.loads((home / "lab.json").read_text())["home_id"])
    added = json.loads(cli("keys", "add", "recovery", "--json").stdout)
    assert (added["id"], added["kind"]) == (2, "recovery")
    assert slots.read_recovery_key(added["recovery_key"])
    assert "AICO_LAB_NEW_PASSPHRASE" in cli("keys", "add", "passphrase").stderr
    monkeypatch.setenv("AICO_LAB_NEW_PASSPHRASE", PASSPHRASE)
    assert cli("keys", "add", "passphrase").stdout == "Added slot 3: passphrase.\n"
    assert "Name the file" in cli("keys", "add", "key-file").stderr
    assert "writes no file" in cli("keys", "add", "recovery", "x").stderr
    file.rename(file.with_suffix(".away"))
    status = cli("keys", "status", "--json")
    assert [slot["kind"] for slot in json.loads(status.stdout)["slots"]] == [
        "key-file", "recovery", "passphrase",
    ]  # fmt: skip
    assert json.loads(status.stdout)["intact"] is None
    refused = cli("schema", "status")
    assert "set AICO_LAB_PASSPHRASE" in refused.stderr
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", added["recovery_key"])
    assert cli("schema", "status").returncode == 0
    done = cli("keys", "remove", "1")
    assert done.stdout.startswith("Removed slot 1: key file.\n")
    assert "keys rotate" in done.stdout
    assert json.loads(cli("keys", "status", "--json").stdout)["intact"] is True
    assert "slot 9" in cli("keys", "remove", "9").stderr


def test_a_secret_gets_one_slot(folder, settings, tmp_path):
    """Else it would open the home after its slot was removed."""
    second = tmp_path / "second.key"
    add_credential(folder, settings, "key-file", file=second)
    add_credential(folder, settings, "passphrase", passphrase=OTHER)
    with pytest.raises(InvalidValue, match="of the same secret"):
        add_credential(folder, settings, "key-file", file=second)
    with pytest.raises(InvalidValue, match="of the same secret"):
        add_credential(folder, settings, "passphrase", passphrase=OTHER)
    # A home of before has two slots of one file.
    marker = folder.read_marker()
    master = open_keys(marker, settings).master
    secret = read_key_file(second)
    twin = slots.new_slot(4, "key-file", secret, HOME_ID, master)
    folder.rewrite_marker(signed({**marker, "slots": [*marker["slots"], twin]}, master))
    removed = remove_credential(folder, settings, 4)
    assert (removed.twins, removed.in_use) == ([2], False)
    assert remove_credential(folder, settings, 2).twins == []
    assert remove_credential(folder, settings, 1).in_use


def test_slots_are_told_apart_and_the_one_in_use_is_named(folder, settings, tmp_path, in_process):
    """By a fingerprint of the secret; nobody removes the wrong key file."""
    add_credential(folder, settings, "key-file", file=tmp_path / "second.key")
    found = status_of(folder, settings)
    assert found["in_use"] == 1
    assert len({slot["fingerprint"] for slot in found["slots"]}) == 2
    said = in_process(
        "keys", "status", "--home", str(folder.path), "--key-file", str(tmp_path / "second.key")
    ).stdout.splitlines()
    assert [line.endswith("in use") for line in said] == [False, True]
    assert found["slots"][0]["fingerprint"] in said[0]


def test_every_way_to_open_a_home_is_named(folder, settings):
    """Once, and also if the usual key file opens the home no longer."""
    add_credential(folder, settings, "passphrase", passphrase=OTHER)
    add_credential(folder, settings, "recovery")
    ways = "set AICO_LAB_PASSPHRASE to the passphrase or the recovery key"
    with pytest.raises(KeyMissing) as missing:
        opened(folder)
    assert str(missing.value).count("AICO_LAB_PASSPHRASE") == 1
    assert ways in str(missing.value)
    usual = usual_key_file(HOME_ID)
    usual.parent.mkdir(parents=True)
    create_key_file(usual)
    with pytest.raises(WrongKey, match=ways):
        opened(folder)


def test_a_key_file_that_cannot_be_written_is_not_blamed_on_the_home(folder, settings):
    """The sentence names another file."""
    with pytest.raises(HomeNotWritable, match="name another file"):
        add_credential(folder, settings, "key-file", file=Path("/proc/none/of.key"))


def test_an_encrypted_home_does_not_silently_become_a_plain_one(folder, settings):
    """Though its marker was exchanged for that of a home without a key."""
    note_encrypted(folder.read_marker())
    folder.rewrite_marker({"home_id": HOME_ID, "slots": [{"id": 1, "kind": "none"}]})
    for given in ({}, {"key_file": settings.key_file}):
        with pytest.raises(MarkerAltered, match="says that it is not encrypted, but it was"):
            opened(folder, **given)
    (usual_key_file(HOME_ID).with_suffix(".encrypted")).unlink()
    assert opened(folder) is None
    create_key_file(usual_key_file(HOME_ID))
    with pytest.raises(MarkerAltered, match="says that it is not encrypted, but it was"):
        opened(folder)


def test_a_marker_that_is_older_than_the_last_change_of_the_key_is_named(home, tmp_path):
    """Instead of the database, whose key the marker does not have."""
    with Lab.create(home, key_file=tmp_path / "key") as lab:
        marker = lab.home.read_marker()
    with Lab.open(home, key_file=tmp_path / "key"):
        assert usual_key_file(marker["home_id"]).with_suffix(".encrypted").exists()
    note_encrypted({**marker, "rotations": 1})
    with Lab.create(tmp_path / "other", key_file=tmp_path / "key"):
        pass
    shutil.copy(tmp_path / "other" / "aico.db", home / "aico.db")
    with (
        Lab.open(home, key_file=tmp_path / "key") as lab,
        pytest.raises(MarkerAltered, match=r"lab\.json .* is older than the last change"),
    ):
        _ = lab.primary
