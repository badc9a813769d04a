"""What opens a home, what does not, and that no key stands where it should not."""

from __future__ import annotations

import base64
import hmac
import json
import os
import stat
import unicodedata
from typing import TYPE_CHECKING

import pytest

from aico_lab.config import Settings, usual_key_file
from aico_lab.errors import (
    HomeExists,
    HomeMissing,
    HomeNotWritable,
    InvalidValue,
    KeyFileExposed,
    KeyMissing,
    NotADatabase,
    WrongKey,
)
from aico_lab.home import keys as keys_module
from aico_lab.home import slots as slots_module
from aico_lab.home.keys import Keys
from aico_lab.home.slots import ARGON2
from aico_lab.lab import Lab

if TYPE_CHECKING:
    from pathlib import Path

PASSPHRASE = "correct horse battery"


def test_each_store_has_a_key_of_its_own_of_the_size_that_it_can_use():
    """LibSQL reads 32 bytes of a key; DuckDB takes base64 of 32."""
    keys, others = Keys(b"a" * 32), Keys(b"b" * 32)
    assert len(keys.libsql()) == 32
    assert len(set(keys.libsql())) > 12
    assert len(keys.duckdb()) == 44
    assert len({keys.libsql(), keys.duckdb(), others.libsql(), others.duckdb()}) == 4
    assert Keys(None).libsql() is None
    assert Keys(None).duckdb() is None


@pytest.mark.slow
def test_every_spelling_of_a_secret_is_known_to_who_has_to_hide_it(home):
    """As text, as the bytes are printed, in hexadecimal digits and in base64."""
    with Lab.create(home, protection="passphrase", passphrase=PASSPHRASE) as lab:
        keys = lab.storage.keys
    assert {PASSPHRASE, keys.libsql(), keys.duckdb(), keys.chroma()} <= keys.texts()
    for secret in (keys.master, keys.rocksdb()):
        texts = {secret.hex(), repr(secret)[2:-1], base64.b64encode(secret).decode()}
        assert texts <= keys.texts()
    with Lab.create(home.with_name("b"), key_file=home.with_name("own.key")) as lab:
        assert home.with_name("own.key").read_text().strip() in lab.storage.keys.texts()
    assert Keys(None).texts() == set()


def test_derived_keys_never_change():
    """HKDF-SHA256, computed here from RFC 5869: another value would lock every home."""

    def derive(info: bytes) -> bytes:
        extracted = hmac.digest(bytes(32), bytes(range(32)), "sha256")
        return hmac.digest(extracted, info + b"\x01", "sha256")

    keys = Keys(bytes(range(32)))
    assert keys.libsql() == "V4jr-b2cwUNfyv3Gb7AzT-2LGYF3WXOg"
    assert base64.urlsafe_b64decode(keys.libsql()) == derive(b"aico-lab/libsql/v1")[:24]
    assert base64.b64decode(keys.duckdb()) == derive(b"aico-lab/duckdb/v1")
    for purpose in ("integrity", "receipts", "backup"):
        derived = getattr(keys, purpose)()
        assert derived == derive(f"aico-lab/{purpose}/v1".encode())
        assert derived in keys.secrets()
        assert derived.hex() in keys.texts()


@pytest.mark.slow
def test_a_key_file_opens_its_home_and_no_other(home, tmp_path):
    """The key lies outside the home, for its owner alone."""
    with Lab.create(home) as lab:
        file = usual_key_file(lab.home_id)
    assert not file.is_relative_to(home)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    Lab.open(home).close()
    with Lab.create(tmp_path / "other") as other:
        wrong = usual_key_file(other.home_id)
    with pytest.raises(WrongKey, match="to the right one"):
        Lab.open(home, key_file=wrong)


@pytest.mark.slow
def test_a_named_key_file_is_made_once_and_used_again(home, tmp_path, monkeypatch):
    """Also through the environment."""
    file = tmp_path / "keys" / "my.key"
    Lab.create(home, key_file=file).close()
    content = file.read_bytes()
    Lab.create(tmp_path / "second", key_file=file).close()
    assert file.read_bytes() == content
    with pytest.raises(KeyMissing, match="AICO_LAB_KEY_FILE"):
        Lab.open(home)
    monkeypatch.setenv("AICO_LAB_KEY_FILE", str(file))
    Lab.open(home).close()


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_a_key_file_that_others_can_read_is_refused(home, lab):
    """As ssh does."""
    file = usual_key_file(lab.home_id)
    file.chmod(0o644)
    with pytest.raises(KeyFileExposed, match="chmod 600"):
        Lab.open(home)


@pytest.mark.parametrize("content", [b"", b"not base64 \xff", b"c2hvcnQ="])
def test_a_file_that_is_no_key_file_is_refused(home, lab, content):
    """Empty, garbage, too short."""
    file = usual_key_file(lab.home_id)
    file.write_bytes(content)
    with pytest.raises(WrongKey, match="is not a key file"):
        Lab.open(home)


def test_a_passphrase_opens_its_home(home, monkeypatch):
    """Given, or by the environment; a wrong one or none is refused."""
    Lab.create(home, protection="passphrase", passphrase=PASSPHRASE).close()
    Lab.open(home, passphrase=PASSPHRASE).close()
    with pytest.raises(KeyMissing, match="AICO_LAB_PASSPHRASE"):
        Lab.open(home)
    with pytest.raises(WrongKey):
        Lab.open(home, passphrase=PASSPHRASE.upper())
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", PASSPHRASE)
    Lab.open(home).close()


@pytest.mark.slow
def test_a_passphrase_is_stretched_as_rfc_9106_recommends(home, monkeypatch):
    """Its second option: 64 MiB, three passes, four lanes."""
    monkeypatch.setattr(slots_module, "ARGON2", ARGON2)  # which other tests make cheap
    Lab.create(home, protection="passphrase", passphrase=PASSPHRASE).close()
    marker = json.loads((home / "lab.json").read_text())
    (slot,) = marker["slots"]
    assert (slot["memory_cost"], slot["time_cost"], slot["parallelism"]) == (64 * 1024, 3, 4)
    assert len(bytes.fromhex(slot["salt"])) == 16
    Lab.open(home, passphrase=PASSPHRASE).close()
    slot["memory_cost"] //= 2  # it is what the key depends on, and no mere note
    (home / "lab.json").write_text(json.dumps(marker))
    with pytest.raises(WrongKey):
        Lab.open(home, passphrase=PASSPHRASE)


def test_a_short_passphrase_is_refused_and_leaves_no_home(home):
    """Nothing half made."""
    with pytest.raises(InvalidValue, match="8 characters"):
        Lab.create(home, protection="passphrase", passphrase="short")
    with pytest.raises(HomeMissing):
        Lab.open(home)
    Lab.create(home, protection="passphrase", passphrase=PASSPHRASE).close()


LETTERS = "Grüße für Zoë"


@pytest.mark.slow
@pytest.mark.parametrize("made", ["NFC", "NFD"])
def test_a_passphrase_is_the_same_however_a_keyboard_spells_its_letters(home, made):
    """One system sends `ü` as one code point, another as two."""
    Lab.create(
        home, protection="passphrase", passphrase=unicodedata.normalize(made, LETTERS)
    ).close()
    for typed in ("NFC", "NFD"):
        Lab.open(home, passphrase=unicodedata.normalize(typed, LETTERS)).close()
    with pytest.raises(WrongKey):
        Lab.open(home, passphrase="Grusse fur Zoe")


@pytest.mark.slow
def test_a_home_of_before_that_is_opened_by_the_spelling_that_made_it(home, monkeypatch):
    """Nobody is locked out."""
    spelled = unicodedata.normalize("NFD", LETTERS)
    with monkeypatch.context() as patched:
        patched.setattr(keys_module, "passphrases", lambda settings: [settings.passphrase.encode()])
        Lab.create(home, protection="passphrase", passphrase=spelled).close()
    with Lab.open(home, passphrase=spelled) as lab:
        assert lab.encrypted
        assert lab.primary.fetch_one("SELECT count(*) FROM messages") == (0,)


def test_blanks_alone_are_no_passphrase(home):
    """Nor is what nobody sees; a blank between words counts."""
    for blank in (" " * 8, "\t\u2003" * 8, "a" + " " * 20, "\u200b" * 12):
        with pytest.raises(InvalidValue, match="8 characters"):
            Lab.create(home, protection="passphrase", passphrase=blank)
    Lab.create(home, protection="passphrase", passphrase="two word").close()


@pytest.mark.slow
@pytest.mark.parametrize("short", ["äöüß", "äöüßäöü", unicodedata.normalize("NFD", "äöüßäöü")])
def test_characters_of_a_passphrase_are_counted_not_bytes(home, short):
    """Seven letters stay seven where each takes two bytes, or two code points."""
    with pytest.raises(InvalidValue, match="8 characters"):
        Lab.create(home, protection="passphrase", passphrase=short)
    Lab.create(home, protection="passphrase", passphrase=f"{short}zwei").close()


@pytest.mark.slow
def test_blanks_at_the_ends_of_a_passphrase_do_not_belong_to_it(home, monkeypatch):
    """A variable that is read from a file ends in a newline; what is not counted is not used."""
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", f"{PASSPHRASE}\n")
    which = "SELECT value FROM system_state WHERE key = 'database_id'"
    with Lab.create(home, protection="passphrase") as lab:
        made = lab.primary.fetch_one(which)
    for passphrase in (None, PASSPHRASE, f" {PASSPHRASE}\r\n"):
        with Lab.open(home, passphrase=passphrase) as lab:
            assert lab.primary.fetch_one(which) == made


@pytest.mark.slow
def test_a_home_that_was_made_with_blanks_is_still_opened_by_them(home, monkeypatch):
    """They belonged to its passphrase."""
    with monkeypatch.context() as patch:
        patch.setattr(keys_module, "passphrases", lambda settings: [settings.passphrase.encode()])
        Lab.create(home, protection="passphrase", passphrase=f"{PASSPHRASE}\n").close()
    Lab.open(home, passphrase=f"{PASSPHRASE}\n").close()
    with pytest.raises(WrongKey):
        Lab.open(home, passphrase=PASSPHRASE)


def test_a_key_does_not_lie_in_its_home(home, cli):
    """Whoever took the home could open it; nor does the refusal leave anything."""
    for file in (home / "k", home / "deep" / "k"):
        refused = cli("init", "--key-file", str(file))
        assert refused.returncode == 2
        assert "inside the home" in refused.stderr
    assert not home.exists()


@pytest.mark.skipif(os.name != "posix", reason="there is no such file")
def test_what_never_ends_is_no_key_file(home, tmp_path, cli):
    """Neither a device nor a pipe is read; nothing of the home is left."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for file in ("/dev/zero", tmp_path / "pipe", tmp_path):
        refused = cli("init", "--key-file", str(file))
        assert refused.returncode == 1
        assert "is not a key file" in refused.stderr
    assert not home.exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_refused_folder_of_the_key_leaves_no_folder_of_the_home(home, tmp_path):
    """The key file is created after them."""
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(HomeNotWritable):
        Lab.create(home, key_file=tmp_path / "locked" / "k")
    assert not home.exists()


def test_a_key_file_that_cannot_be_made_leaves_nothing(home, tmp_path):
    """A folder that was there stays, with what is in it."""
    (tmp_path / "file").touch()
    with pytest.raises(HomeNotWritable):
        Lab.create(home, key_file=tmp_path / "file" / "k")
    assert not home.exists()
    home.mkdir()
    with pytest.raises(HomeNotWritable):
        Lab.create(home, key_file=tmp_path / "file" / "k")
    assert list(home.iterdir()) == []


@pytest.mark.slow
def test_a_key_file_that_opens_nothing_is_an_error(home, tmp_path, cli, monkeypatch):
    """As a passphrase is."""
    Lab.create(home, protection="passphrase", passphrase=PASSPHRASE).close()
    Lab.create(tmp_path / "open", protection="none").close()
    for kind in ("passphrase", "none"):
        with pytest.raises(InvalidValue, match="key file was given"):
            Lab.create(tmp_path / "other", protection=kind, key_file=tmp_path / "k",
                       passphrase=PASSPHRASE if kind == "passphrase" else None)  # fmt: skip
    with pytest.raises(InvalidValue, match=r"leave the .* out"):
        Lab.open(tmp_path / "open", key_file=tmp_path / "k")
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", PASSPHRASE)
    refused = cli("info", "--key-file", str(tmp_path / "k"))
    assert refused.returncode == 2
    assert "not opened by a key file" in refused.stderr
    assert "AICO_LAB_KEY_FILE" in refused.stderr


@pytest.mark.slow
def test_without_a_terminal_no_passphrase_is_asked_for(home, cli):
    """The variable is named, in one sentence; and a home that is there is noticed first."""
    refused = cli("init", "--passphrase")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "set AICO_LAB_PASSPHRASE" in refused.stderr
    assert not home.exists()
    Lab.create(home).close()
    refused = cli("init", "--passphrase")
    assert "There is a lab in" in refused.stderr


@pytest.mark.slow
def test_bytes_that_are_no_text_are_said_to_be_that(aico_lab):
    """A variable of the environment may hold any."""
    environment = {**os.environb, b"AICO_LAB_PASSPHRASE": b"correct \xff horse"}
    refused = aico_lab("init", "--passphrase", env=environment)
    assert refused.returncode == 2
    assert "AICO_LAB_PASSPHRASE" in refused.stderr
    assert "UTF-8" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_a_passphrase_that_protects_nothing_is_an_error(home, cli, monkeypatch):
    """Whoever gives one believes that it is needed."""
    with pytest.raises(InvalidValue, match="'passphrase'"):
        Lab.create(home, passphrase=PASSPHRASE)
    with pytest.raises(InvalidValue, match="'passphrase'"):
        Lab.create(home, protection="none", passphrase=PASSPHRASE)
    Lab.create(home).close()
    with pytest.raises(InvalidValue, match=r"leave the .* out"):
        Lab.open(home, passphrase=PASSPHRASE)
    Lab.create(home.with_name("open"), protection="none").close()
    with pytest.raises(InvalidValue, match=r"leave the .* out"):
        Lab.open(home.with_name("open"), passphrase=PASSPHRASE)
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", PASSPHRASE)
    for command in ("info", "init"):
        refused = cli(command)
        assert "AICO_LAB_PASSPHRASE" in refused.stderr or command == "init"
        assert refused.returncode


@pytest.mark.slow
def test_the_demo_needs_no_passphrase_of_the_environment(in_process, monkeypatch):
    """That is meant for another home."""
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", PASSPHRASE)
    opened = []
    monkeypatch.setattr("aico_lab.cli.demo.run_demo", lambda lab, **_: opened.append(lab.encrypted))
    for _ in range(2):
        assert in_process("demo").returncode == 0
    assert opened == [True, True]


@pytest.mark.slow
def test_no_secret_stands_in_the_home_or_in_a_repr(home):
    """Neither passphrase nor any derived key."""
    with Lab.create(home, protection="passphrase", passphrase=PASSPHRASE) as lab:
        secrets = [PASSPHRASE, lab.storage.keys.libsql(), lab.storage.keys.duckdb()]
        assert not any(secret in repr(vars(lab)) for secret in secrets)
        lab.sync()
    for file in home.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert not any(secret.encode() in content for secret in secrets)
    assert PASSPHRASE not in repr(Settings.resolve(passphrase=PASSPHRASE))


def test_without_encryption_is_only_for_those_who_say_so(home):
    """Then the file is plain SQLite, and needs no key."""
    Lab.create(home, protection="none").close()
    assert (home / "aico.db").read_bytes().startswith(b"SQLite format 3\0")
    with Lab.open(home) as lab:
        assert not lab.encrypted


def test_a_damaged_marker_is_named(home):
    """One sentence, no traceback, and no attempt to spend a terabyte on Argon2."""
    Lab.create(home, protection="passphrase", passphrase=PASSPHRASE).close()
    file = home / "lab.json"
    whole = file.read_text()
    for damage in (
        lambda marker: marker.pop("slots"),
        lambda marker: marker["slots"].clear(),
        lambda marker: marker["slots"][0].pop("public"),
        lambda marker: marker["slots"][0].update(wrapped="zz"),
        lambda marker: marker["slots"][0].update(wrapped="00" * 80),
        lambda marker: marker.update(format=99),
        lambda marker: marker["slots"][0].update(memory_cost=1 << 40),
    ):
        marker = json.loads(whole)
        damage(marker)
        file.write_text(json.dumps(marker))
        with pytest.raises(HomeMissing, match="damaged"):
            Lab.open(home, passphrase=PASSPHRASE)


def test_a_home_is_made_once(home):
    """And the remains of one are not overwritten."""
    Lab.create(home).close()
    with pytest.raises(HomeExists):
        Lab.create(home)
    (home / "lab.json").unlink()
    with pytest.raises(HomeExists, match="exists without"):
        Lab.create(home)


@pytest.mark.slow
def test_a_home_whose_database_was_taken_away_is_not_made_anew_in_silence(home):
    """An empty lab in place of a lost one would look like success."""
    Lab.create(home).close()
    (home / "aico.db").unlink()
    with Lab.open(home) as lab, pytest.raises(HomeMissing, match="restore it from a backup"):
        lab.sync()
    assert not (home / "aico.db").exists()


@pytest.mark.slow
def test_a_database_of_another_home_is_not_opened(home, tmp_path):
    """The key belongs to the home."""
    Lab.create(home).close()
    Lab.create(tmp_path / "other").close()
    for suffix in ("", "-wal", "-shm"):
        (home / f"aico.db{suffix}").unlink(missing_ok=True)
    (tmp_path / "other" / "aico.db").rename(home / "aico.db")
    with Lab.open(home) as lab, pytest.raises(NotADatabase):
        lab.sync()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """A file in the way, for one."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(HomeNotWritable, match="another folder"):
        Lab.create(tmp_path / "file" / "home")
    with pytest.raises(HomeMissing, match="aico-lab init"):
        Lab.open(tmp_path / "file")


def test_settings_take_what_was_given_then_the_environment_then_the_usual_place(tmp_path: Path):
    """In this order."""
    environment = {"AICO_LAB_HOME": "/from/environment"}
    given = Settings.resolve(home=tmp_path, environment=environment).home
    assert given == tmp_path
    assert str(Settings.resolve(environment=environment).home).endswith("environment")
    assert Settings.resolve(environment={}).home.name == "aico-lab"


def test_another_process_resolves_the_same_settings(tmp_path: Path, monkeypatch):
    """And nothing that this one's environment names besides; which itself stays as it is."""
    monkeypatch.setenv("AICO_LAB_KEY_FILE", "elsewhere.key")
    monkeypatch.setenv("KEPT", "x")
    settings = Settings(tmp_path, passphrase=PASSPHRASE)
    given = settings.environment()
    assert Settings.resolve(environment=given) == Settings(tmp_path)
    assert given["KEPT"] == "x"
    assert PASSPHRASE not in given.values()
    assert "AICO_LAB_PASSPHRASE" not in os.environ
