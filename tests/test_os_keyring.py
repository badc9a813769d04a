"""The passphrase of a home in a keyring: asked only on request, bounded, and written nowhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from aico_lab.config import Settings
from aico_lab.errors import KeyMissing, KeyringRefused
from aico_lab.home import os_keyring
from aico_lab.home.folder import Home
from aico_lab.lab import Lab
from aico_lab.pipeline.system_jobs import job_for
from tests.conftest import plain_text_files

keyring = pytest.importorskip("keyring")
backend = pytest.importorskip("keyring.backend")

PASSPHRASE = "correct horse battery"
SYSTEMS = ["systemd", "launchd", "cron", "windows"]


class FakeKeyring(backend.KeyringBackend):
    """A keyring in memory, which may be locked, be waiting for a person, or keep nothing."""

    priority = 1
    name = "fake"

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.calls = 0
        self.fault: Exception | None = None
        self.unlocked: threading.Event | None = None
        self.forgets = False

    def get_password(self, service, username):
        self.calls += 1
        if self.unlocked:
            self.unlocked.wait(60)
        if self.fault:
            raise self.fault
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        if not self.forgets:
            self.kept[service, username] = password

    def delete_password(self, service, username):
        del self.kept[service, username]


@pytest.fixture
def fake():
    before, ours = keyring.core._keyring_backend, FakeKeyring()
    keyring.set_keyring(ours)
    yield ours
    if ours.unlocked:
        ours.unlocked.set()
    keyring.core._keyring_backend = before


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The path of a home to copy, which the first test creates."""
    return tmp_path_factory.mktemp("model") / "home"


@pytest.fixture
def home_id(home, model):
    """The id of a home that is protected by a passphrase."""
    if not model.exists():
        Lab.create(model, protection="passphrase", passphrase=PASSPHRASE).close()
    shutil.copytree(model, home)
    return str(Home(home).read_marker()["home_id"])


@pytest.fixture
def added(fake, home_id):
    """The keyring with the passphrase of the home."""
    fake.kept["aico-lab", home_id] = PASSPHRASE
    return fake


def test_a_passphrase_is_stored_if_it_opens_the_home(cli, fake, home, home_id, monkeypatch):
    assert "AICO_LAB_PASSPHRASE" in cli("keyring", "add").stderr
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", "wrong horse battery")
    assert "does not open" in cli("keyring", "add").stderr
    assert fake.kept == {}
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", PASSPHRASE)
    done = cli("keyring", "add", "--json")
    assert json.loads(done.stdout) == {"home": str(home), "keyring": "fake"}
    assert fake.kept == {("aico-lab", home_id): PASSPHRASE}
    assert cli("keyring", "remove").stdout == "Removed the passphrase.\n"
    assert "no passphrase" in cli("keyring", "remove").stdout
    assert fake.kept == {}


def test_the_passphrase_is_written_nowhere(cli, added, home, tmp_path, monkeypatch):
    """Not even when the jobs of all systems are made, and a job looks at the schedules."""
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", PASSPHRASE)
    calls = [cli("keyring", "add")]
    monkeypatch.delenv("AICO_LAB_PASSPHRASE")
    for system in SYSTEMS:
        calls.append(cli("schedule", "install", "--system", system, "--print", "--keyring"))
        assert "--keyring" in calls[-1].stdout
    calls.append(cli("schedule", "tick", "--keyring", "--json"))
    assert added.calls == 2
    for call in calls:
        assert call.returncode == 0, call.stderr
        assert PASSPHRASE not in call.stdout + call.stderr
    assert plain_text_files(tmp_path, PASSPHRASE) == []
    assert home.is_relative_to(tmp_path)


@pytest.mark.parametrize("system", SYSTEMS)
def test_only_a_job_that_is_told_so_asks_the_keyring(system, home):
    assert "--keyring" in job_for(system, home, keyring=True).text()
    assert "--keyring" not in job_for(system, home).text()


def test_a_job_is_installed_only_if_the_keyring_opens_the_home(cli, fake, home_id, monkeypatch):
    monkeypatch.setattr("aico_lab.pipeline.system_jobs._call", lambda *_, **__: "")
    install = ("schedule", "install", "--system", "launchd", "--keyring")
    assert "`aico-lab keyring add --home" in cli(*install).stderr
    fake.kept["aico-lab", home_id] = "wrong horse battery"
    assert "does not open" in cli(*install).stderr
    fake.kept["aico-lab", home_id] = PASSPHRASE
    assert cli(*install).returncode == 0
    assert cli("schedule", "uninstall", "--system", "launchd").stdout.startswith("Removed")
    both = cli(*install, "--passphrase-file", "/f")
    assert (both.returncode, "only one of" in both.stderr) == (2, True)


def test_another_process_may_ask_the_keyring_as_this_one(home):
    given = Settings.resolve(home=home, keyring=True).environment()
    assert Settings.resolve(environment=given) == Settings(home, keyring=True)
    assert "AICO_LAB_KEYRING" not in Settings(home).environment()


def test_nobodys_keyring_is_asked_without_their_word(added, home, monkeypatch):
    with pytest.raises(KeyMissing):
        Lab.open(home)
    monkeypatch.setenv("AICO_LAB_KEYRING", "0")
    with pytest.raises(KeyMissing):
        Lab.open(home)
    monkeypatch.setenv("AICO_LAB_KEYRING", "1")
    Lab.open(home, passphrase=PASSPHRASE).close()  # it comes first
    assert added.calls == 0
    # A process that this one starts does not ask again.
    with Lab.open(home) as lab, lab.storage.for_child() as (environment, descriptors):
        assert PASSPHRASE not in environment.values()
        assert environment["AICO_LAB_KEY_DESCRIPTOR"] == str(descriptors[0])
    assert added.calls == 1


@pytest.mark.usefixtures("lab")
def test_a_home_with_a_key_file_needs_no_keyring(cli, fake, monkeypatch):
    for command in (("keyring", "add"), ("schedule", "install", "--keyring", "--print")):
        refused = cli(*command)
        assert (refused.returncode, "is not opened by" in refused.stderr) == (2, True)
    monkeypatch.setenv("AICO_LAB_KEYRING", "1")
    assert cli("schedule", "tick").returncode == 0
    assert fake.calls == 0


def test_a_keyring_that_cannot_be_used_is_one_sentence(cli, added, monkeypatch):
    added.fault = RuntimeError(f"locked, while asked for {PASSPHRASE}")
    refused = cli("schedule", "tick", "--keyring")
    assert refused.returncode == 1
    assert refused.stderr == (
        "aico-lab: The keyring of the operating system cannot be used (RuntimeError): set one "
        "up, unlock it, or pass the passphrase in AICO_LAB_PASSPHRASE.\n"
    )
    keyring.set_keyring(keyring.backends.fail.Keyring())
    assert "(NoKeyringError)" in cli("schedule", "tick", "--keyring").stderr
    keyring.set_keyring(added)
    added.fault, added.forgets, added.kept = None, True, {}
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", PASSPHRASE)
    assert "does not store" in cli("keyring", "add").stderr


def test_a_locked_keyring_holds_nothing_up(added, home, monkeypatch):
    monkeypatch.setattr(os_keyring, "SECONDS", 0.05)
    added.unlocked = threading.Event()
    with pytest.raises(KeyringRefused, match="did not answer within"):
        Lab.open(home, keyring=True)


@pytest.mark.usefixtures("home_id")
def test_a_missing_library_is_one_sentence(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    for command in (("keyring", "remove"), ("schedule", "tick", "--keyring")):
        assert "pip install 'aico-lab[keyring]'" in cli(*command).stderr


@pytest.mark.slow
@pytest.mark.usefixtures("home_id")
def test_a_process_ends_although_the_keyring_still_waits(home, tmp_path):
    """As of a job, while a dialog is open that nobody sees."""
    (tmp_path / "waiting.py").write_text(
        "import threading, keyring.backend\n"
        "class Waiting(keyring.backend.KeyringBackend):\n"
        "    priority = 1\n"
        "    def get_password(self, *_): threading.Event().wait(300)\n"
        "    set_password = delete_password = get_password\n"
    )
    start = (
        "from aico_lab.cli import main; from aico_lab.home import os_keyring\n"
        "os_keyring.SECONDS = 0.1; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", start, "schedule", "tick", "--keyring", "--home", str(home)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120,
        env=os.environ
        | {
            "PYTHON_KEYRING_BACKEND": "waiting.Waiting",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
        },
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith("aico-lab: The keyring of the operating system did not answer")
