"""Two homes become devices of a person and hold the same conversations, by commands only."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext

import pytest

from aico_lab import health
from aico_lab.cli import device, federate
from aico_lab.errors import (
    DatabaseLocked,
    DeviceRevoked,
    ErasureIncomplete,
    FolderUnusable,
    InvalidValue,
    LibraryMissing,
    NotFederated,
    UnknownName,
)
from aico_lab.federation import pairing
from aico_lab.federation.replica import DeviceKeys, Replica
from aico_lab.federation.results import MissingBundles
from aico_lab.federation.syncing import Federation
from aico_lab.lab import Lab
from aico_lab.pipeline import load_pipeline, run_pipeline
from tests import effort


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """Return two homes and an empty shared folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "shared").mkdir()
    for name in ("a", "b"):
        Lab.create(tmp_path / name, key_file=tmp_path / f"{name}.key").close()
    return tmp_path


def command(homes, home, *words):
    files = ("--home", str(homes / home), "--key-file", str(homes / f"{home}.key"))
    return [sys.executable, "-m", "aico_lab", *words, *files]


def run(homes, home, *words, code=0):
    done = subprocess.run(
        command(homes, home, *words), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == code, done.stderr
    return done


def told(homes, home, *words):
    return json.loads(run(homes, home, *words, "--json").stdout)


@contextmanager
def started(homes, home, *words):
    """Run a command, and yield it with the first line that it writes to stderr."""
    with subprocess.Popen(
        command(homes, home, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, process.stderr.readline()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def open_home(homes, home):
    return Lab.open(homes / home, key_file=homes / f"{home}.key")


def write(homes, home, sql, *values):
    with open_home(homes, home) as lab, lab.primary.transaction():
        lab.primary.execute(sql, values)


def name_of(homes, home):
    with open_home(homes, home) as lab:
        row = lab.primary.fetch_one("SELECT name FROM users WHERE user_id = 'ada'")
        return row and row[0]


@pytest.mark.slow
def test_two_devices_meet_in_a_folder_and_a_conflict_is_resolved(homes):
    folder = ("--folder", str(homes / "shared"))
    assert told(homes, "a", "device", "init", "--name", "laptop")["is_this"]
    write(homes, "a", "INSERT INTO users VALUES ('ada', 'Ada', '2024', NULL)")
    with started(homes, "a", "device", "add", *folder, "--yes") as (adding, line):
        code = re.search(r"join (\d{4}-\d{4})", line)[1]
        joining = run(homes, "b", "device", "join", code, *folder, "--name", "phone", "--json")
        joined = json.loads(joining.stdout)
        assert adding.wait(60) == 0
    (fingerprint,) = re.findall(
        "fingerprint of this device is ((?:[0-9a-f]{4} ?){4});", joining.stderr
    )
    assert fingerprint.replace(" ", "") in {one["device_id"] for one in joined}
    assert {one["name"] for one in joined} == {"laptop", "phone"}
    assert not list((homes / "shared").glob("pairing-*"))

    run(homes, "a", "federate", "sync")
    run(homes, "b", "federate", "sync")  # both remember the folder
    assert name_of(homes, "b") == "Ada"
    write(homes, "a", "UPDATE users SET name = 'Ada L.'")
    write(homes, "b", "UPDATE users SET name = 'Ada K.'")
    for home in ("a", "b", "a"):
        run(homes, home, "federate", "sync")
    (conflict,) = told(homes, "a", "federate", "conflicts")
    assert {conflict["lost"]["name"], conflict["kept"]["name"]} == {"Ada L.", "Ada K."}
    assert "Ada L." in run(homes, "a", "federate", "conflicts").stdout
    (homes / "chosen.json").write_text('{"name": "Ada King"}')
    chosen = ("resolve", str(conflict["number"]), "--keep", str(homes / "chosen.json"))
    assert "Several" in run(homes, "a", "federate", *chosen, "7", code=2).stderr
    assert "--all" in run(homes, "a", "federate", "resolve", "--keep", "mine", code=2).stderr
    assert told(homes, "a", "federate", *chosen)["left"] == 0
    run(homes, "a", "federate", "sync")
    run(homes, "b", "federate", "sync")
    assert name_of(homes, "b") == name_of(homes, "a") == "Ada King"
    assert "no conflict" in run(homes, "b", "federate", "conflicts").stdout

    (homes / "proof.json").write_text(run(homes, "a", "federate", "verify", "--json").stdout)
    proof = ("--with", str(homes / "proof.json"))
    assert "equal rows" in run(homes, "b", "federate", "verify", *proof).stdout
    assert "device.paired" in run(homes, "a", "federate", "log").stdout
    assert "All changes" in run(homes, "a", "federate", "status").stdout

    assert told(homes, "a", "device", "revoke", "phone")["trust_level"] == 0
    run(homes, "a", "federate", "sync")
    assert "no longer trust" in run(homes, "b", "federate", "sync", code=1).stderr


def missing_at_b(homes):
    """Return the files of bundles that the first home has, and the second one has not."""
    there, here = (
        {str(path.relative_to(spool)) for path in spool.glob("*/*.age")}
        for spool in (homes / home / "federation" / "spool" for home in ("a", "b"))
    )
    return there - here


INTERRUPTED = """
import os
import signal
import sys
from pathlib import Path
from aico_lab.federation.spool import Spool
from aico_lab.lab import Lab

def take(spool, name, content, real=Spool.take, taken=[]):
    real(spool, name, content)
    taken.append(name)
    if len(taken) == 5:
        os.kill(os.getpid(), signal.SIGKILL)

Spool.take = take
with Lab.open(Path(sys.argv[1]), key_file=Path(sys.argv[2])) as lab:
    lab.devices.sync(address=sys.argv[3])
"""


@pytest.mark.slow
def test_two_devices_meet_in_the_local_network(homes):
    run(homes, "a", "device", "init")  # with the name of the machine
    with started(homes, "a", "device", "add", "--yes") as (adding, line):
        code, port = re.search(r"join (\d{4}-\d{4}) .*:(\d+)", line).groups()
        joining = ("device", "join", code, "--address", f"127.0.0.1:{port}")
        assert "choose another --name" in run(homes, "b", *joining, code=2).stderr
        assert adding.wait(60) == 2
    write(homes, "a", "INSERT INTO users VALUES ('ada', 'Ada', '2024', NULL)")
    with started(homes, "a", "device", "add", "--yes") as (adding, line):
        code, port = re.search(r"join (\d{4}-\d{4}) .*:(\d+)", line).groups()
        joining = ("device", "join", code, "--address", f"127.0.0.1:{port}")
        run(homes, "b", *joining, "--name", "phone")
        assert adding.wait(60) == 0
    write(homes, "b", "INSERT INTO users VALUES ('ben', 'Ben', '2024', NULL)")
    with open_home(homes, "a") as lab:
        for number in range(20):
            with lab.primary.transaction():
                name = random.Random(number).randbytes(50_000).hex()
                row = (f"u{number}", name)
                lab.primary.execute("INSERT INTO users VALUES (?, ?, '2024', NULL)", row)
            lab.devices.federation.seal()
    with started(homes, "a", "federate", "serve") as (_, line):
        address = f"127.0.0.1:{re.search(r':([0-9]+) ', line)[1]}"
        before = missing_at_b(homes)
        files = [str(homes / "b"), str(homes / "b.key")]
        words = [sys.executable, "-c", INTERRUPTED, *files, address]
        assert subprocess.run(words, check=False, timeout=60).returncode == -signal.SIGKILL
        missing = missing_at_b(homes)
        (done,) = told(homes, "b", "federate", "sync", "--address", address).values()
        told(homes, "b", "federate", "sync", "--address", address)
    assert len(missing) == len(before) - 5 > 10
    assert done["exchanged"]["received"] == len(missing)
    assert name_of(homes, "b") == "Ada"
    assert rows_of(homes, "a") == rows_of(homes, "b")
    assert ("ben", "Ben") in rows_of(homes, "a")


KILLS = effort.examples(20)

KILLED = """
import sys
from pathlib import Path
from aico_lab.federation import receiving
from aico_lab.lab import Lab

def apply(*bundle, real=receiving.apply):
    print("applying", flush=True)
    real(*bundle)

receiving.apply = apply
with Lab.open(Path(sys.argv[1]), key_file=Path(sys.argv[2])) as lab:
    lab.devices.sync()
"""


def kill_while_applying(homes, home, pause):
    """Begin an exchange, and kill the process while it takes in a bundle."""
    files = [str(homes / home), str(homes / f"{home}.key")]
    words = [sys.executable, "-c", KILLED, *files]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "applying\n"
        time.sleep(pause)
        process.kill()
    return process.returncode == -signal.SIGKILL


def rows_of(homes, home):
    with open_home(homes, home) as lab:
        users = lab.primary.fetch_all("SELECT user_id, name FROM users ORDER BY 1")
        assert lab.primary.fetch_all("PRAGMA foreign_key_check") == []
        assert lab.primary.fetch_all("SELECT * FROM sync_applying") == []
        return users


@pytest.mark.slow
def test_three_devices_hold_equal_rows_although_one_is_killed_again_and_again(homes):
    folder = ("--folder", str(homes / "shared"))
    Lab.create(homes / "c", key_file=homes / "c.key").close()
    run(homes, "a", "device", "init", "--name", "laptop")
    for home, name in (("b", "phone"), ("c", "desktop")):
        with started(homes, "a", "device", "add", *folder, "--yes") as (adding, line):
            code = re.search(r"join (\d{4}-\d{4})", line)[1]
            run(homes, home, "device", "join", code, *folder, "--name", name)
            assert adding.wait(60) == 0
    r = random.Random(0)
    killed = turn = 0
    while killed < KILLS:
        turn += 1
        with open_home(homes, "a") as lab, lab.primary.transaction():
            for number in range(50):
                lab.primary.execute(
                    "INSERT INTO users VALUES (?, 'x', '2024', NULL)", [f"{turn}-{number}"]
                )
            lab.primary.execute("UPDATE users SET name = ?", [f"turn {turn}"])
        with open_home(homes, "a") as lab:
            lab.devices.sync()
        killed += kill_while_applying(homes, "b", r.uniform(0, 0.05))
    write(homes, "a", "UPDATE users SET name = 'Ada L.' WHERE user_id = '1-0'")
    write(homes, "c", "INSERT INTO users VALUES ('c', 'of c', '2024', NULL)")
    for home in ("c", "b", "a", "c", "b"):
        run(homes, home, "federate", "sync")
    write(homes, "b", "UPDATE users SET name = 'from b' WHERE user_id = '1-0'")
    write(homes, "c", "UPDATE users SET name = 'from c' WHERE user_id = '1-0'")
    for home in ("b", "c", "b", "a"):
        run(homes, home, "federate", "sync")
    (conflict,) = told(homes, "b", "federate", "conflicts")
    resolved = ("federate", "resolve", "--all", "--keep", "mine")
    assert told(homes, "b", *resolved) == {"resolved": [conflict["number"]], "left": 0}
    run(homes, "b", "federate", "compact")
    for home in ("a", "c", "b"):
        run(homes, home, "federate", "sync")
        assert told(homes, home, "federate", "conflicts") == []
    rows = rows_of(homes, "a")
    assert (len(rows), dict(rows)["1-0"]) == (50 * turn + 1, "from b")
    assert rows_of(homes, "b") == rows_of(homes, "c") == rows
    (homes / "proof.json").write_text(run(homes, "a", "federate", "verify", "--json").stdout)
    for home in ("b", "c"):
        run(homes, home, "federate", "verify", "--with", str(homes / "proof.json"))
    run(homes, "a", "device", "revoke", "desktop")
    run(homes, "a", "federate", "sync")
    run(homes, "b", "federate", "sync")
    assert "no longer trust" in run(homes, "c", "federate", "sync", code=1).stderr


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    with Lab.create(folder / "a", key_file=folder / "key") as lab:
        with pytest.raises(NotFederated, match="device init"):
            lab.devices.list()
        lab.devices.federation.begin("laptop")
        yield lab


@pytest.fixture
def devices(lab):
    return lab.devices


def test_a_device_is_found_by_name_and_by_the_beginning_of_its_id(devices):
    (this,) = devices.list()
    assert ".sync()" in repr(devices)
    assert ".status()" in repr(devices.federation)
    assert devices.find("laptop") == devices.find(this.device_id[:4]) == this
    with pytest.raises(UnknownName, match="'labtop': did you mean laptop"):
        devices.find("labtop")
    with pytest.raises(UnknownName):
        devices.find("")


def test_a_device_that_was_added_again_is_found_by_the_name_of_the_revoked_one(
    devices, monkeypatch
):
    (this,) = devices.list()
    former = dataclasses.replace(this, device_id="f" * 16, trust_level=0)
    monkeypatch.setattr(devices, "list", lambda: [former, this])
    assert devices.find("laptop") == this
    monkeypatch.setattr(devices, "list", lambda: [this, this])
    with pytest.raises(InvalidValue, match="longer beginning of the id"):
        devices.find("laptop")


def test_a_device_has_a_name_that_can_be_shown(devices):
    (this,) = devices.list()
    for bad in ("a\x1b[2Jb", ""):
        with pytest.raises(InvalidValue, match="visible"):
            devices.federation.rename(this.device_id, bad)


def test_a_sync_needs_a_way(devices, tmp_path):
    with pytest.raises(InvalidValue, match="No shared folder is known"):
        devices.sync()
    with pytest.raises(FolderUnusable, match="There is no folder"):
        devices.sync(folder=tmp_path / "nowhere")
    (way,) = devices.sync(folder=tmp_path)
    assert list(devices.sync()) == [way]


def test_a_home_is_no_shared_folder(lab):
    with pytest.raises(FolderUnusable, match="is a home"):
        lab.devices.sync(folder=lab.home.path)


def test_of_many_refused_files_some_are_named_and_all_counted(lab, tmp_path):
    (tmp_path / "Photos").mkdir()
    for number in range(25):
        (tmp_path / "Photos" / f"img{number}.jpg").touch()
    lines = federate._notices(lab.devices.sync(folder=tmp_path))
    assert (len(lines), sum("img" in line for line in lines)) == (11, 10)
    assert "So were 15 more" in lines[-1]
    assert health._devices(lab)["files refused"] == 0


def test_watching_goes_on_while_the_folder_is_away(lab, tmp_path, monkeypatch, capsys):
    """A stick is taken out and put in again; then somebody presses Control-C."""
    shared = tmp_path / "stick"
    shared.mkdir()
    rounds = iter(["away", "away", "back", "end"])

    def pause(_):
        match next(rounds):
            case "away":
                shutil.rmtree(shared, ignore_errors=True)
            case "back":
                shared.mkdir()
            case _:
                raise KeyboardInterrupt

    monkeypatch.setattr(federate.time, "sleep", pause)
    monkeypatch.setattr(federate, "open_lab", lambda *_: nullcontext(lab))
    with pytest.raises(KeyboardInterrupt):
        federate.federate_sync(folder=shared, watch=True)
    said = capsys.readouterr()
    assert said.err.count("cannot be used") == 1
    assert said.out.count(" received, ") == 2


def test_watching_names_a_refused_file_when_it_comes_and_not_each_time(
    lab, tmp_path, monkeypatch, capsys
):
    stranger = tmp_path / "Photos" / "img.jpg"
    stranger.parent.mkdir()
    rounds = iter(["comes", "stays", "goes", "comes", "end"])

    def pause(_):
        match next(rounds):
            case "comes":
                stranger.touch()
            case "goes":
                stranger.unlink()
            case "end":
                raise KeyboardInterrupt

    monkeypatch.setattr(federate.time, "sleep", pause)
    monkeypatch.setattr(federate, "open_lab", lambda *_: nullcontext(lab))
    with pytest.raises(KeyboardInterrupt):
        federate.federate_sync(folder=tmp_path, watch=True)
    said = capsys.readouterr()
    assert said.err.count("img.jpg was refused") == 2
    assert said.out.count(" received, ") == 5


def test_watching_goes_on_while_an_erasure_cannot_be_finished(lab, tmp_path, monkeypatch, capsys):
    (tmp_path / "shared").mkdir()
    rounds = iter(["fails", "fails", "works"])
    works = Federation.bring_up_to_date

    def fails(_):
        raise ErasureIncomplete("It is still in the warehouse: end that program.")

    def pause(_):
        found = next(rounds, None)
        if found is None:
            raise KeyboardInterrupt
        monkeypatch.setattr(Federation, "bring_up_to_date", fails if found == "fails" else works)

    monkeypatch.setattr(federate.time, "sleep", pause)
    monkeypatch.setattr(federate, "open_lab", lambda *_: nullcontext(lab))
    with pytest.raises(KeyboardInterrupt):
        federate.federate_sync(folder=tmp_path / "shared", watch=True)
    said = capsys.readouterr()
    assert said.err.count("still in the warehouse") == 1
    assert said.out.count(" received, ") == 2


def test_watching_begins_while_another_program_reads_an_older_state(
    lab, tmp_path, monkeypatch, capsys
):
    """It says so once, and each later exchange is in a pipe as soon as it is done."""
    works, rounds, shown = Federation.bring_up_to_date, iter([1, 2, 3, 4]), []
    stdout = io.TextIOWrapper(io.BytesIO())

    def fails(_):
        raise DatabaseLocked("Another program reads an older state.")

    def pause(_):
        shown.append(stdout.buffer.getvalue().count(b" received, "))
        if next(rounds) == 4:
            raise KeyboardInterrupt
        if len(shown) == 2:
            monkeypatch.setattr(Federation, "bring_up_to_date", works)

    monkeypatch.setattr(Federation, "bring_up_to_date", fails)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(federate.time, "sleep", pause)
    monkeypatch.setattr(federate, "open_lab", lambda *_: nullcontext(lab))
    with pytest.raises(KeyboardInterrupt):
        federate.federate_sync(folder=tmp_path, watch=True)
    assert (shown, capsys.readouterr().err.count("an older state")) == ([0, 0, 1, 2], 1)


def test_a_folder_that_was_refused_is_not_remembered(devices, tmp_path):
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "theirs" / f"federation-{'0' * 32}").touch()
    (way,) = devices.sync(folder=str(tmp_path / "ours"))
    with pytest.raises(FolderUnusable, match="other devices"):
        devices.sync(folder=tmp_path / "theirs")
    assert list(devices.sync()) == [way]


def test_a_folder_is_the_other_way_where_no_device_answers(devices, tmp_path, monkeypatch):
    said = []
    (way,) = devices.sync(folder=tmp_path, address="127.0.0.1:9", tell=said.append)
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    assert list(devices.sync(lan=True, tell=said.append)) == [way]
    assert all(one.startswith(f"Only the folder {tmp_path} was used. ") for one in said)
    assert [re.search("at 127.0.0.1:9|by zeroconf", one)[0] for one in said] == [
        "at 127.0.0.1:9", "by zeroconf"
    ]  # fmt: skip


def test_without_a_folder_it_is_said_why_no_device_was_looked_for(devices, monkeypatch):
    monkeypatch.setattr(type(devices), "folder", None)
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with pytest.raises(LibraryMissing, match="by zeroconf"):
        devices.sync(lan=True)


def test_a_device_with_a_name_that_is_taken_is_refused_before_anybody_is_asked(
    devices, monkeypatch
):
    def admit(_post, _code, confirm, _invite):
        confirm("laptop", DeviceKeys("00", "age1"))

    monkeypatch.setattr(pairing, "admit", admit)
    with pytest.raises(InvalidValue, match="laptop is taken"):
        devices.add(None, "1234-5678", lambda *_: pytest.fail("was asked"))


def test_a_step_of_a_pipeline_exchanges_changes(lab, tmp_path):
    (tmp_path / "shared").mkdir()
    for name, path in (("good", "shared"), ("bad", "nowhere")):
        step = f"[[steps]]\nrun = 'federate'\npath = '{path}'\n"
        (tmp_path / f"{name}.toml").write_text(step)
    run_pipeline(lab, load_pipeline(str(tmp_path / "good.toml")))
    assert list((tmp_path / "shared").glob("*/*.age"))
    with pytest.raises(FolderUnusable, match=r"Step 1 .* no folder"):
        run_pipeline(lab, load_pipeline(str(tmp_path / "bad.toml")))


def test_who_cannot_join_is_told_before_the_other_device_is_looked_for(devices):
    with pytest.raises(InvalidValue, match="has devices already"):
        devices.check_join("1234-5678", "phone")


def test_the_health_of_a_home_knows_of_its_devices(lab, monkeypatch):
    assert health._check_devices(lab) == "1 trusted; nothing waits"
    assert health.describe(lab)["devices"]["trusted"] == 1
    with monkeypatch.context() as revoked, pytest.raises(DeviceRevoked, match="go nowhere"):
        revoked.setattr(Replica, "is_outside", True)
        health._check_devices(lab)
    left = lab.devices.federation.replica.spool.folder / "stream" / "..pending-1.age.2261706d"
    left.parent.mkdir(parents=True)
    left.touch()
    assert health._check_temporary(lab).startswith("1 file in federation/spool")
    lab.devices.federation.seal()
    assert health._check_temporary(lab).startswith("none left")
    assert health._counted(1, "files waiting") == "1 file waiting"
    assert health._counted(2, "files waiting") == "2 files waiting"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"verified": {"proof": {"rows": []}}}'])
def test_a_file_without_a_proof_is_refused(tmp_path, text):
    from aico_lab.federation.lab_devices import read_proof

    (tmp_path / "proof.json").write_text(text)
    with pytest.raises(InvalidValue):
        read_proof(tmp_path / "proof.json")


MESSAGE = """
    INSERT INTO messages (message_id, conversation_id, channel_id, role, content, timestamp)
    VALUES ('m', 'c', 'c', 'user', 'hello', '2024-01-01T00:00:00.000000Z')
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return two homes in a folder; the second one only receives, and no conversations."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "shared").mkdir()
    for name in ("a", "b"):
        Lab.create(folder / name, key_file=folder / f"{name}.key").close()
    with open_home(folder, "a") as a, open_home(folder, "b") as b:
        first, second = a.devices.federation, b.devices.federation
        first.begin("laptop")
        policy = {"conversations": "none"}
        second.join(first.invite(second.create_keys(), "phone", level=1, policy=policy))
        with a.primary.transaction():
            a.primary.execute("INSERT INTO users VALUES ('ada', 'Ada', '2024', NULL)")
            a.primary.execute("INSERT INTO channels (channel_id, created_at) VALUES ('c', '2024')")
            a.primary.execute(MESSAGE)
        for lab in (a, b):
            lab.devices.sync(folder=folder / "shared")
    return folder


def test_all_conflicts_are_decided_but_those_of_rows_that_this_device_does_not_send(
    tmp_path, in_process
):
    """One of them kept a person from deciding any."""
    memory = "INSERT INTO memories VALUES ('m', 'ada', 'tea', 'fact', 1, '2024', NULL)"
    homes = []
    for name in ("a", "b", "c"):
        lab = Lab.create(tmp_path / name, key_file=tmp_path / f"{name}.key")
        homes.append(lab)
        lab.primary.execute("INSERT INTO users VALUES ('ada', 'Ada', '2024', NULL)")
        lab.primary.execute(memory)
        lab.primary.execute("UPDATE users SET name = ?", [name])
        lab.primary.execute("UPDATE memories SET content = ?", [name])
    first = homes[0].devices.federation
    first.begin("a")
    for lab in homes[1:]:
        federation = lab.devices.federation
        federation.join(first.invite(federation.create_keys(), lab.home.path.name))
    (tmp_path / "shared").mkdir()
    for lab in (*homes, *homes, homes[0]):
        lab.devices.sync(folder=tmp_path / "shared")
    found = first.conflicts()
    assert {one.table for one in found} == {"users", "memories"}
    first.set_policy(first.replica.device_id, memories="none")
    for lab in homes:
        lab.close()
    at_a = ("--home", str(tmp_path / "a"), "--key-file", str(tmp_path / "a.key"))
    decided = in_process("federate", "resolve", "--all", "--keep", "mine", *at_a)
    users = sum(one.table == "users" for one in found)
    left = len(found) - users
    assert decided.stdout.startswith(f"{users} conflict")
    assert f" resolved; {left} conflict" in decided.stdout
    assert "does not send: decide them on another device" in decided.stdout


@pytest.fixture
def at(in_process, pair):
    """Run a command in one of the two homes, in this process."""
    return lambda home, *words: in_process(
        *words, "--home", str(pair / home), "--key-file", str(pair / f"{home}.key")
    )


def test_a_proof_names_the_tables_that_differ_and_those_that_are_not_compared(at, pair):
    (pair / "proof.json").write_text(at("a", "federate", "verify", "--json").stdout)
    compared = at("b", "federate", "verify", "--with", str(pair / "proof.json"))
    assert compared.returncode == 0
    assert "ok   users                    1 row\n" in compared.stdout
    assert re.search("messages +0 rows, NOT compared: only one of the devices", compared.stdout)
    assert "Both devices have equal rows of memories, people, summaries.\n" in compared.stdout
    with open_home(pair, "b") as lab:
        lab.primary.execute("INSERT INTO sync_applying VALUES (1)")
        lab.primary.execute("UPDATE users SET name = 'unseen'")
        lab.primary.execute("DELETE FROM sync_applying")
    found = at("b", "federate", "verify")
    assert found.returncode == 1
    assert "FAIL users" in found.stdout
    assert "only receives" in at("b", "federate", "verify", "--repair").stderr
    write(pair, "b", "UPDATE users SET name = 'Ada'")


def test_what_a_limited_device_says_of_itself_is_true(at):
    exchanged = at("a", "federate", "sync")
    assert re.search(
        r"0 files received, 0 sent; 0 rows taken in, \d changed here", exchanged.stdout
    )
    assert at("b", "federate", "sync").stderr == ""  # it only passes on what it cannot read
    status = at("b", "federate", "status").stdout
    assert re.search(
        r"laptop  \d bundles taken in, the last 20\S+Z\n\w{16}  phone   0 bundles written\n", status
    )
    assert "Not up to date: warehouse; `" in status
    assert json.loads(at("b", "federate", "status", "--json").stdout)["behind"] == ["warehouse"]
    assert "its own changes stay here" in status
    assert "waiting" not in status
    log = at("b", "federate", "log").stdout
    assert re.search(
        r"20\S+Z  device.paired +phone   by laptop\n.*device.joined +phone ", log, re.DOTALL
    )
    listed = at("b", "device", "list").stdout
    assert re.search(
        "phone   receives only, this device, without conversations, personality", listed
    )
    assert max(map(len, (log + status.partition("This device")[0]).splitlines())) <= 80
    choice = at("a", "device", "policy", "phone", "personality=full")
    assert "rows of personality refer to a class that it does not hold" in choice.stderr


def test_missing_bundles_are_named_by_their_device(at, monkeypatch):
    status = Federation.status

    def with_gap(self):
        found = status(self)
        id_ = found.devices[0].device_id
        return dataclasses.replace(found, missing=(MissingBundles(id_, f"{id_}.01234567", 3, 5),))

    monkeypatch.setattr(Federation, "status", with_gap)
    shown = at("b", "federate", "status").stdout
    assert re.search(r"\nmissing: 3 to 5 of laptop \(stream \w{16}\.01234567\)\n", shown)
    assert json.loads(at("b", "federate", "status", "--json").stdout)["missing"][0]["last"] == 5


def test_a_device_that_does_not_hold_a_class_says_that_its_changes_stay_there(at):
    said = []
    for held in ("none", "full"):
        at("a", "device", "policy", "laptop", f"memories={held}")
        at("a", "federate", "sync")
        said.append(at("a", "federate", "status").stdout)
    assert "in bundles, but for those of classes that it does not hold, which stay here" in said[0]
    assert "All changes of this device are in bundles.\n" in said[1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("federate", "sync", "--address", ""), "write HOST:PORT"),
        (("federate", "resolve", "1", "--keep", "mien"), "there is no file 'mien'"),
        (
            ("federate", "sync", "--address", "127.0.0.1:9"),
            "The device at 127.0.0.1:9 does not answer",
        ),
        (("device", "policy", "phone", "memories"), "The policy takes NAME=VALUE"),
        (("device", "join", "1234-5678"), "let it add the other one"),
        (("device", "leave"), "none of them can revoke this one"),
    ],
)
def test_who_writes_something_else_is_told_what_to_write(at, words, reason):
    assert reason in at("a", *words).stderr


@pytest.mark.parametrize(
    ("left_out", "receive_only", "question"),
    [
        ([], False, "Trust phone with everything?"),
        (["memories"], False, "Trust phone with everything but memories?"),
        (["memories"], True, "Let phone only receive everything but memories?"),
    ],
)
def test_a_person_is_asked_for_the_trust_that_is_given(
    monkeypatch, left_out, receive_only, question
):
    asked = []
    monkeypatch.setattr("typer.confirm", lambda text, **_: asked.append(text))
    device._ask("phone", DeviceKeys("00", "age1"), left_out, receive_only=receive_only)
    assert asked[0].startswith(f"{question} Its fingerprint is ")
