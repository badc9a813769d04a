"""Notices about runs of pipelines, received by servers on this machine."""

from __future__ import annotations

import http.server
import json
import socket
import socketserver
import threading
from pathlib import Path

import pytest

from aico_lab.errors import AicoLabError, StepFailed
from aico_lab.pipeline import notices

SYNC = "[[steps]]\nrun = 'sync'\n"
BROKEN = "[[steps]]\nrun = 'shell'\ncommand = 'exit 1'\n"


class Webhook(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class Dripping(socketserver.StreamRequestHandler):
    """Begins an answer, and goes on with it until the test is over."""

    def handle(self):
        self.server.ended = threading.Event()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.server.ended.wait(0.1):
            self.wfile.write(b"a")


class Mailbox(socketserver.StreamRequestHandler):
    """Understands as much SMTP as it takes to receive a message."""

    def handle(self):
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            word = line[:4].upper().strip()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.received.append(b"".join(lines).decode())
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


@pytest.fixture
def serve():
    """Start servers, which end with the test."""
    started = []

    def start(handler):
        server = socketserver.TCPServer(("127.0.0.1", 0), handler)
        server.received = []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def run(lab, tmp_path):
    """Run a pipeline with some addresses, and return its record."""

    def run(steps, *urls, on="['failure', 'recovery']"):
        file = tmp_path / "job.toml"
        file.write_text(f"{steps}[notify]\nurls = {json.dumps(urls)}\non = {on}\n")
        try:
            return lab.pipelines.run(file, allow_shell=True)
        except AicoLabError:
            return lab.pipelines.show("job")

    return run


def hook_of(server) -> str:
    return f"json://ada:SECRET@127.0.0.1:{server.server_address[1]}/hook"


def test_a_failure_and_the_success_after_it_are_told(serve, run, lab, tmp_path):
    """By a webhook, with no path and no text of the home."""
    pytest.importorskip("apprise")
    server = serve(Webhook)
    url = hook_of(server)
    assert run(SYNC, url).warnings == []
    assert server.received == []
    failed = run(BROKEN, url)
    run(BROKEN, url)
    run(SYNC, url)
    run(SYNC, url)
    assert [one["title"] for one in server.received] == [
        "aico-lab: job failed", "aico-lab: job failed", "aico-lab: job works again",
    ]  # fmt: skip
    assert [one["type"] for one in server.received] == ["failure", "failure", "success"]
    body = server.received[0]["message"]
    assert failed.run_id in body
    assert f"Failed: shell-1 (tries: 1); {StepFailed.__doc__}" in body
    everything = json.dumps(server.received)
    assert str(tmp_path) not in everything
    assert "SECRET" not in everything
    run(SYNC, url, on="['success']")
    assert server.received[-1]["title"] == "aico-lab: job is done"
    assert "SECRET" not in json.dumps(lab.primary.fetch_all("SELECT * FROM pipeline_runs"))


def test_what_is_wrong_before_the_first_step_is_told_too(serve, run):
    """Also a fault of the pipeline's file."""
    pytest.importorskip("apprise")
    server = serve(Webhook)
    run(f"{SYNC}fulll = true\n", hook_of(server))
    assert "Failed: before the first step" in server.received[0]["message"]


def test_a_mail_is_sent(serve, run):
    pytest.importorskip("apprise")
    server = serve(Mailbox)
    port = server.server_address[1]
    url = f"mailto://127.0.0.1:{port}/?from=lab@example.org&to=ada@example.org&mode=insecure"
    assert run(BROKEN, url).warnings == []
    assert "Subject: aico-lab: job failed" in server.received[0]


def test_a_notifier_that_is_down_is_a_warning(run, serve, lab, capfd):
    """The run stays as it ended, the other addresses are told, and no address is shown."""
    pytest.importorskip("apprise")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        down = f"json://ada:SECRET@127.0.0.1:{free.getsockname()[1]}/"
    server = serve(Webhook)
    done = run(SYNC, down, "nonsense://SECRET", hook_of(server), on="['success']")
    assert (done.status, len(server.received)) == ("ok", 1)
    assert done.warnings == [
        f"Notice {number} of 3 was not sent: check its address and its service."
        for number in (1, 2)
    ]
    assert lab.pipelines.show("job") == done
    assert "SECRET" not in "".join(capfd.readouterr())


def test_a_notifier_that_never_ends_its_answer_holds_no_run(run, serve, monkeypatch):
    """A service that sends a byte now and then, which no timeout of a single read ends."""
    pytest.importorskip("apprise")
    monkeypatch.setattr(notices, "_SECONDS", 0.5)
    server, held = serve(Webhook), serve(Dripping)
    done = run(SYNC, hook_of(held), hook_of(server), on="['success']")
    held.ended.set()
    assert (done.status, len(server.received)) == ("ok", 1)
    assert done.warnings == [
        "Notice 1 of 2 was not sent within 0.5 s: check its address and its service."
    ]


def test_without_apprise_a_sentence_says_what_to_install(run, lab, monkeypatch):
    """A warning of the run, and a fault for the check."""
    monkeypatch.setattr(notices, "find_spec", lambda _: None)
    assert run(SYNC, "json://x", on="['success']").warnings == [notices.MISSING]
    assert lab.pipelines.check(lab.home.path.parent / "job.toml")[0].faults == [notices.MISSING]


def test_addresses_may_be_in_a_file(lab, serve, tmp_path):
    """One a line; a check finds a file that is missing and an address that is none."""
    pytest.importorskip("apprise")
    server, file, addresses = serve(Webhook), tmp_path / "job.toml", tmp_path / "notify.txt"
    file.write_text(f"{SYNC}[notify]\nurls_file = 'notify.txt'\non = ['success']")

    def faults():
        return lab.pipelines.check(Path(file))[0].faults

    assert "check its name" in faults()[0]
    assert "check its name" in lab.pipelines.run(file).warnings[0]
    addresses.write_text("# nobody yet\n")
    assert "has no address" in faults()[0]
    addresses.write_text(f"# the hook\n{hook_of(server)}\nSECRET\n")
    assert faults() == ["Address 2 of 2 of [notify] is not one that Apprise knows."]
    lab.pipelines.run(file)
    assert len(server.received) == 1
