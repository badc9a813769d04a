"""Devices exchange bundles over TLS on loopback, and nobody else does."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import secrets
import signal
import socket
import ssl
import threading
import time
from contextlib import contextmanager

import pytest

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.errors import (
    DatabaseLocked,
    DeviceRevoked,
    DeviceUnreachable,
    ErasureIncomplete,
    InvalidValue,
)
from aico_lab.federation import lan, nearby
from aico_lab.federation.receiving import TakenIn
from aico_lab.federation.results import Sealed
from aico_lab.federation.syncing import Federation
from tests import effort
from tests.databases import with_core_schemas

KILLS = effort.examples(20)
USER = "INSERT INTO users VALUES (?, ?, '2024', NULL)"


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def made(name):
        (tmp_path / name).mkdir()
        connection = with_core_schemas(tmp_path / name / "lab.db").connect()
        return Federation(connection, tmp_path / name / "federation")

    return made


@pytest.fixture
def two(make):
    a, b = make("a"), make("b")
    a.begin("laptop")
    b.join(json.loads(json.dumps(a.invite(b.create_keys(), "phone"))))
    return a, b


def add(device, name):
    with device.replica.connection.transaction():
        device.replica.connection.execute(USER, [name, name])


def people(device):
    rows = device.replica.connection.fetch_all("SELECT user_id FROM users ORDER BY 1")
    return [name for (name,) in rows]


def open_again(folder):
    """Open a device of this module again."""
    return Federation(LibSQLAdapter(folder / "lab.db").connect(), folder / "federation")


@contextmanager
def serving(device):
    """Serve in another thread, and yield the address and the server."""
    server = lan.BundleServer(device, host="127.0.0.1")
    thread = threading.Thread(target=server.run)
    with server:
        thread.start()
        try:
            yield f"127.0.0.1:{server.port}", server
        finally:
            server.stop()
            thread.join()


def test_rows_go_both_ways_between_two_devices(two):
    a, b = two
    add(a, "ada")
    add(b, "ben")
    with serving(a) as (address, _):
        lan.sync(b, address)
        lan.sync(b, address)
    assert people(a) == people(b) == ["ada", "ben"]
    assert a.verify(with_=b.verify().verified.proof).buckets == {}


def test_what_changes_while_a_device_serves_is_sent(two):
    a, b = two
    with serving(a) as (address, _):
        lan.sync(b, address)
        add(a, "ada")
        lan.sync(b, address)
    assert people(b) == ["ada"]


def test_a_device_that_is_not_trusted_learns_nothing(two, make):
    a, _ = two
    stranger = make("c")
    stranger.begin("stranger")
    invented = stranger.invite(a.create_keys(), "laptop")  # it knows the keys of the first device
    assert invented
    with serving(a) as (address, _), pytest.raises(DeviceUnreachable, match="trusts the other"):
        lan.sync(stranger, address)


def test_a_device_does_not_send_to_somebody_in_the_place_of_another(two, make):
    _, b = two
    stranger = make("c")
    stranger.begin("stranger")
    stranger.invite(b.create_keys(), "phone")
    with (
        serving(stranger) as (address, _),
        pytest.raises(DeviceUnreachable, match="trusts the other"),
    ):
        lan.sync(b, address)


def test_a_revoked_device_is_refused_also_on_an_open_connection(two):
    a, b = two
    host = "127.0.0.1"
    with serving(a) as (address, _):
        lan.sync(b, address)
        context = lan._context(b.replica, lan._trusted(b.replica), is_server=False)
        port = int(address.rpartition(":")[2])
        open_before = http.client.HTTPSConnection(host, port, context=context, timeout=20)
        open_before.request("GET", "/names")
        assert open_before.getresponse().read() != b""
        a.revoke(b.replica.device_id)
        open_before.request("GET", "/names")
        assert open_before.getresponse().status == 403
        open_before.close()
        with pytest.raises((DeviceUnreachable, DeviceRevoked)):
            lan.sync(b, address)


def test_an_interrupted_file_is_resumed(two, monkeypatch):
    """The server breaks off after some bytes of each answer; the rest is asked for."""
    a, b = two
    add(a, "ada")
    asked, send = [], lan._Handler._send

    def broken(handler, content, first=0):
        if handler.path == "/names" or first:
            asked.append(first)
            send(handler, content, first)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:100])
        handler.close_connection = True

    monkeypatch.setattr(lan._Handler, "_send", broken)
    with (
        serving(a) as (address, _),
        lan._Client(b.replica, *lan.read_address(address)) as client,
    ):
        client.exchange()
    assert asked.count(100) == len(a.replica.spool.names()) > 0
    assert b.replica.spool.names() == a.replica.spool.names()


@pytest.mark.parametrize("answer", [b"", b"{", b"1", b"[" * 100_000])
def test_an_answer_that_is_no_list_of_names_is_refused(two, monkeypatch, answer):
    a, b = two
    send = lan._Handler._send
    monkeypatch.setattr(lan._Handler, "_send", lambda handler, _: send(handler, answer))
    with serving(a) as (address, _), pytest.raises(DeviceUnreachable, match="does not answer"):
        lan.sync(b, address)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("GET", "/bundles/../../lab.db", None, 404),
        ("GET", "/bundles/..%2f..%2flab.db", None, 404),
        ("GET", f"/bundles/{'a' * 16}.{'b' * 8}/00000001-{'c' * 32}.age", None, 404),
        ("PUT", "/bundles/../../x", b"x", 400),
        ("PUT", f"/bundles/{'a' * 16}.{'b' * 8}/00000001-{'c' * 32}.age", b"x", 400),
        ("DELETE", "/names", None, 501),
    ],
)
def test_other_paths_are_refused(two, method, path, body, status):
    a, b = two
    with (
        serving(a) as (address, _),
        lan._Client(b.replica, *lan.read_address(address)) as client,
    ):
        client._connection.request(method, path, body)
        assert client._connection.getresponse().status == status
    assert not (a.folder.parent / "x").exists()


def test_somebody_who_speaks_no_tls_stops_nobody(two):
    a, b = two
    add(a, "ada")
    with (
        serving(a) as (address, server),
        socket.create_connection(("127.0.0.1", server.port)) as silent,
        socket.create_connection(("127.0.0.1", server.port)) as other,
    ):
        other.sendall(b"GET / HTTP/1.1\r\n\r\n")
        lan.sync(b, address)
        silent.close()
    assert people(b) == ["ada"]


def test_somebody_who_sends_nothing_stops_nobody(two, monkeypatch):
    monkeypatch.setattr(lan, "_HANDSHAKES", 20)
    monkeypatch.setattr(lan, "_SECONDS_TO_SHAKE", 0.5)
    a, b = two
    with serving(a) as (address, server), contextlib.ExitStack() as silent:
        for many in (19, 20):
            for _ in range(many):
                silent.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            if many == 20:
                time.sleep(0.6)  # until all of them are known to be nobody
            assert list(lan.sync(b, address)) == [address]
            silent.close()


@pytest.mark.parametrize("address", ["", "7811", "host:0", "x" * 300 + ":5", "a..b:5"])
def test_an_address_that_is_none_is_refused_by_name(two, address):
    with pytest.raises(InvalidValue, match="write HOST:PORT"):
        lan.sync(two[1], address)
    with pytest.raises(InvalidValue, match="write HOST:PORT"):
        nearby.ConnectedPost(address)


def test_a_device_without_a_certificate_is_refused(two):
    a, b = two
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with serving(a) as (_, server):
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)
        with pytest.raises((OSError, http.client.HTTPException)):
            connection.request("GET", "/names")
            connection.getresponse()
        connection.close()
    assert people(b) == []


def test_nobody_answers_at_a_closed_port(two):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DeviceUnreachable, match="does not answer"):
        lan.sync(two[1], f"127.0.0.1:{port}")


def test_a_device_that_serves_ends_when_it_learns_of_its_revocation(two, tmp_path):
    a, b = two
    (tmp_path / "shared").mkdir()
    server = lan.BundleServer(b, host="127.0.0.1")
    a.revoke(b.replica.device_id)
    a.sync(tmp_path / "shared")
    b.exchange(tmp_path / "shared")
    with server, pytest.raises(DeviceRevoked):
        server._http.has_received.set()
        server.run()


@pytest.mark.parametrize("error", [ErasureIncomplete, DatabaseLocked])
def test_a_device_that_serves_goes_on_while_an_erasure_cannot_be_finished(two, monkeypatch, error):
    """It says so once, tries again after a while, and then tells what it has taken in."""
    device = two[0]
    server = lan.BundleServer(device, host="127.0.0.1")
    tries, said, done = [], [], []

    def bring_up_to_date():
        tries.append(1)
        if len(tries) < 3:
            raise error("It is still in the warehouse: end that program.")
        return TakenIn(rows=7), Sealed(0)

    def taken_in(result):
        done.append(result.rows)
        server.stop()

    monkeypatch.setattr(device, "bring_up_to_date", bring_up_to_date)
    monkeypatch.setattr(lan, "_SECONDS", 0.01)
    with server:
        server._http.has_received.set()
        server.run(taken_in, said.append)
    assert (len(tries), len(said), done) == (3, 1, [7])


def test_the_traffic_shows_no_names_ids_or_keys(two):
    """All bytes that go between two devices, as somebody in the network sees them."""
    a, b = two
    add(a, "canary-of-a")
    add(b, "canary-of-b")
    seen = bytearray()
    with serving(a) as (_, server), socket.create_server(("127.0.0.1", 0)) as listener:

        def pass_on(source, target):
            with contextlib.suppress(OSError):
                while piece := source.recv(1 << 16):
                    seen.extend(piece)
                    target.sendall(piece)
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)

        def listen():
            with (
                listener.accept()[0] as one,
                socket.create_connection(("127.0.0.1", server.port)) as other,
            ):
                back = threading.Thread(target=pass_on, args=(other, one))
                back.start()
                pass_on(one, other)
                back.join()

        between = threading.Thread(target=listen)
        between.start()
        lan.sync(b, f"127.0.0.1:{listener.getsockname()[1]}")
        between.join()
    assert people(b) == ["canary-of-a", "canary-of-b"]
    assert len(seen) > 2_000
    canaries = [b"canary", b"aico", b"bundles", a.federation_id.encode()]
    for device in two:
        keys = device.replica.keys
        canaries += [keys.device_id.encode(), keys.recipient.encode(), keys.public_key.encode()]
        canaries += [bytes.fromhex(keys.public_key), device.replica.signing_key]
    assert [canary for canary in canaries if canary in seen] == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_device_that_is_killed_while_it_exchanges_has_all_rows_afterwards(two, tmp_path):
    """Each try is a process of its own, killed at any moment."""
    a, b = two
    shared = tmp_path / "shared"
    shared.mkdir()
    b.replica.connection.close()
    rng, killed = random.Random(20), 0
    while killed < KILLS:
        add(a, secrets.token_hex(8))
        a.sync(shared)
        child = os.fork()
        if child == 0:
            try:
                device = open_again(tmp_path / "b")
                add(device, secrets.token_hex(8))
                device.sync(shared)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0, 0.12))
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    b = open_again(tmp_path / "b")
    for device in (b, a, b):
        device.sync(shared)
    assert people(b) == people(a)
    assert a.verify(with_=b.verify().verified.proof).buckets == {}
    assert b.status().parked == b.status().waiting == b.status().refused == ()
