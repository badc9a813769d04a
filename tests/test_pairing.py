"""Two devices get to know each other by a code, in a folder and in the local network."""

from __future__ import annotations

import functools
import json
import os
import socket
import sys
import threading
import time

import pytest

from aico_lab.errors import (
    DeviceRevoked,
    DeviceUnreachable,
    InvalidValue,
    LibraryMissing,
    NameTaken,
    PairingFailed,
)
from aico_lab.federation import nearby, pairing
from aico_lab.federation.replica import DeviceKeys

KEYS = DeviceKeys("ab" * 32, "age1recipient")
CODE = "1234-5678"


class InThread:
    """An action in a thread, whose result or error is asked for later."""

    def __init__(self, action):
        self._action = action
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        self._found = self._error = None
        try:
            self._found = self._action()
        except Exception as error:  # noqa: BLE001 - raised again by `result`
            self._error = error

    def result(self):
        self._thread.join(60)
        if self._error is not None:
            raise self._error
        return self._found


def admit_by(post, confirm):
    with post:
        return pairing.admit(post, CODE, confirm, lambda _, name: {"for": name})


def admit(post, *, trust=True):
    return InThread(lambda: admit_by(post, lambda name, _: trust and name == "phone"))


def ask(post, code=CODE):
    with post:
        return pairing.ask(post, code, KEYS, "phone")


@pytest.fixture
def shared(tmp_path, monkeypatch):
    monkeypatch.setattr(pairing, "_POLL", 0.01)
    return tmp_path


@pytest.fixture(params=["folder", "network"])
def ways(request, shared):
    """Return the two ends of a way between two devices."""
    if request.param == "folder":
        return pairing.FolderPost.begin(shared, "d0"), lambda: pairing.FolderPost.find(shared)
    post = nearby.ListeningPost()
    return post, lambda: nearby.ConnectedPost(f"127.0.0.1:{post.port}")


def test_two_devices_with_a_code_meet(ways, shared):
    admitted = admit(ways[0])
    assert ask(ways[1](), "12345678") == {"for": "phone"}
    assert admitted.result() == KEYS
    assert list(shared.iterdir()) == []


def test_a_wrong_code_shows_nothing_and_ends_the_attempt(ways, shared):
    admitted = admit(ways[0])
    with pytest.raises(PairingFailed, match="code is wrong"):
        ask(ways[1](), "1234-5679")
    with pytest.raises(PairingFailed, match="code is wrong"):
        admitted.result()
    if isinstance(ways[0], pairing.FolderPost):
        with pytest.raises(PairingFailed, match="No device waits"):
            pairing.FolderPost.find(shared, 0)
    else:
        with pytest.raises(DeviceUnreachable, match="No device answers"):
            ways[1]()


def test_a_device_that_the_person_does_not_trust_is_told_so(ways):
    admitted = admit(ways[0], trust=False)
    with pytest.raises(PairingFailed, match="did not add"):
        ask(ways[1]())
    with pytest.raises(PairingFailed, match="not added"):
        admitted.result()


def test_a_device_whose_name_is_taken_is_told_so(ways):
    def refuse(*_):
        raise NameTaken("phone is taken.")

    admitted = InThread(lambda: admit_by(ways[0], refuse))
    with pytest.raises(NameTaken, match="choose another --name"):
        ask(ways[1]())
    with pytest.raises(NameTaken):
        admitted.result()


def test_the_messages_show_neither_keys_nor_names(shared):
    """Somebody who has the folder sees random bytes only."""
    kept = []
    with pairing.FolderPost.begin(shared, "d0") as post:
        write = post.write
        post.write = lambda number, message: (kept.append(message), write(number, message))
        admitted = admit(post)
        other = pairing.FolderPost.find(shared)
        write_other = other.write
        other.write = lambda number, message: (kept.append(message), write_other(number, message))
        ask(other)
        admitted.result()
    assert len(kept) == 3
    for canary in (b"phone", KEYS.public_key.encode(), b"recipient", b"12345678"):
        assert not any(canary in message or canary.hex().encode() in message for message in kept)


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{", b"[" * 100_000, b'{"part": 1}', b'{"part": "zz"}', b"\xff",
               b'{"part": "53' + b"00" * 32 + b'"}', b'{"part": "42"}']
)  # fmt: skip
def test_an_answer_that_is_no_device_s_is_refused(shared, answer):
    with pairing.FolderPost.begin(shared, "d0") as post:
        admitted = admit(post)
        other = pairing.FolderPost.find(shared)
        other.write(2, answer)
        with pytest.raises(PairingFailed):
            admitted.result()


def test_a_changed_invitation_is_refused(ways):
    """Whoever has the folder cannot put an invitation of its own in the place of one."""
    post, find = ways
    write = post.write

    def changed(number, message):
        if number == 3:
            fields = json.loads(message)
            fields["box"] = fields["box"][:-2] + ("00" if fields["box"][-2:] != "00" else "01")
            message = json.dumps(fields).encode()
        write(number, message)

    post.write = changed
    admitted = admit(post)
    with pytest.raises(PairingFailed, match="code is wrong"):
        ask(find())
    admitted.result()


def test_a_code_that_nobody_answers_leaves_nothing_in_the_folder(shared, monkeypatch):
    monkeypatch.setattr(pairing, "PATIENCE", 0.05)
    with pytest.raises(PairingFailed, match="in time"):
        admit(pairing.FolderPost.begin(shared, "d0")).result()
    assert list(shared.iterdir()) == []


def test_a_code_that_is_too_old_by_the_clock_is_named_so_at_once(shared):
    pairing.FolderPost.begin(shared, "d0").write(1, b"{}")
    (old,) = shared.iterdir()
    os.utime(old, (time.time() - 1200,) * 2)
    with pytest.raises(PairingFailed, match="20 minutes old by the clock"):
        pairing.FolderPost.find(shared, 60)
    pairing.FolderPost.begin(shared, "d1")
    assert old.exists()  # this clock may be the wrong one
    pairing.FolderPost.begin(shared, "d0")
    assert not old.exists()


def test_a_folder_that_is_named_like_a_message_is_none(shared):
    (shared / "pairing-old").mkdir()
    admitted = admit(pairing.FolderPost.begin(shared, "d0"))
    assert ask(pairing.FolderPost.find(shared)) == {"for": "phone"}
    admitted.result()


def test_of_two_waiting_devices_none_is_chosen(shared):
    for device in ("d0", "d1"):
        pairing.FolderPost.begin(shared, device).write(1, b"{}")
    with pytest.raises(PairingFailed, match="Several devices wait"):
        pairing.FolderPost.find(shared, 0)


def test_what_a_killed_device_left_does_not_stand_in_its_way(shared):
    for _ in range(2):
        pairing.FolderPost.begin(shared, "d0").write(1, b"{}")
    assert len(list(shared.iterdir())) == 1
    pairing.FolderPost.find(shared, 0)


@pytest.mark.parametrize("code", ["", "1234567", "123456789", "1234-567x", "１２３４５６７８"])  # noqa: RUF001
def test_a_code_has_eight_digits(shared, code):
    with pytest.raises(InvalidValue, match="8 digits"):
        pairing.ask(pairing.FolderPost.begin(shared, "d0"), code, KEYS, "phone")


@pytest.mark.parametrize("name", ["", "x" * 65, "a\x1b[2Jb", "a\u202eb"])
def test_a_name_can_be_shown_in_a_terminal(shared, name):
    with pytest.raises(InvalidValue, match="visible"):
        pairing.ask(pairing.FolderPost.begin(shared, "d0"), CODE, KEYS, name)


def test_a_person_who_breaks_off_at_the_question_leaves_nobody_waiting(shared):
    def broken_off(name, _):
        raise OSError(name)  # as Control-C would

    post = pairing.FolderPost.begin(shared, "d0")
    admitted = InThread(lambda: pairing.admit(post, CODE, broken_off, None))
    with pytest.raises(PairingFailed, match="did not add"):
        ask(pairing.FolderPost.find(shared))
    with pytest.raises(OSError, match="phone"):
        admitted.result()


@pytest.mark.parametrize(
    ("error", "answer"), [(DeviceRevoked("x"), DeviceRevoked), (InvalidValue("x"), PairingFailed)]
)
def test_a_device_that_cannot_be_invited_does_not_wait(shared, error, answer):
    def refuse(*_):
        raise error

    post = pairing.FolderPost.begin(shared, "d0")
    admitted = InThread(lambda: pairing.admit(post, CODE, lambda *_: True, refuse))
    with pytest.raises(answer):
        ask(pairing.FolderPost.find(shared))
    with pytest.raises(type(error)):
        admitted.result()


def test_somebody_who_connects_and_is_silent_does_not_use_up_the_code(monkeypatch):
    monkeypatch.setattr(nearby, "_SECONDS_TO_ANSWER", 0.2)
    post = nearby.ListeningPost()
    admitted = admit(post)
    with socket.create_connection(("127.0.0.1", post.port)):
        assert ask(nearby.ConnectedPost(f"127.0.0.1:{post.port}")) == {"for": "phone"}
    admitted.result()


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x"])
def test_an_address_is_a_host_and_a_port(address):
    with pytest.raises(InvalidValue, match="HOST:PORT"):
        nearby.read_address(address)


@pytest.mark.slow
def test_a_device_is_found_in_the_network(monkeypatch):
    """On loopback, since the machine of the test may have no other network."""
    zeroconf = pytest.importorskip("zeroconf")
    on_loopback = functools.partial(zeroconf.Zeroconf, interfaces=["127.0.0.1"])
    monkeypatch.setattr(zeroconf, "Zeroconf", on_loopback)
    monkeypatch.setattr(nearby, "own_address", lambda: "127.0.0.1")
    with nearby.announced(nearby.PAIRING, 4321) as is_announced:
        assert is_announced
        assert ("127.0.0.1", 4321) in nearby.discover(nearby.PAIRING)
        assert nearby.discover(nearby.BUNDLES, 0.3) == []


def test_without_the_library_a_device_is_named_by_its_address(monkeypatch):
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with nearby.announced(nearby.PAIRING, 4321) as is_announced:
        assert not is_announced
    with pytest.raises(LibraryMissing, match="--address"):
        nearby.discover(nearby.PAIRING)
