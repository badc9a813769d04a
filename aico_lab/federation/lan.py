"""The exchange of bundles with a device in the local network, over TLS 1.3.

Every device signs a certificate for each run with the key of its bundles. The other one accepts it
by that public key, which a signed statement on trust gave it, so there is no certificate to store,
to renew or to revoke: who is no longer trusted is refused with the next connection.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import http.server
import json
import math
import queue
import ssl
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from aico_lab.errors import AicoLabError, DeviceUnreachable, InvalidValue
from aico_lab.federation import replaced
from aico_lab.federation.bundles import LARGEST_FILE, Refused, parse_name
from aico_lab.federation.nearby import BUNDLES, discover, read_address
from aico_lab.federation.spool import Exchanged, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.federation.receiving import TakenIn
    from aico_lab.federation.replica import Replica
    from aico_lab.federation.results import Synced
    from aico_lab.federation.spool import Spool
    from aico_lab.federation.syncing import Federation

_NAMES: Final = "/names"
_BUNDLES: Final = "/bundles/"
_SECONDS: Final = 30.0  # that a device may be silent, and before what failed is tried again
_TRIES: Final = 5  # to receive the rest of a file
_CONNECTIONS: Final = 16  # at a time, of trusted devices
_HANDSHAKES: Final = 64  # at a time, of anybody
_SECONDS_TO_SHAKE: Final = 5.0  # that somebody may be silent before it is known who it is
_LARGEST_LIST: Final = 256 << 20
_PIECE: Final = 1 << 20
_BEGIN: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)  # clocks may be wrong
_END: Final = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)


class BundleServer:
    """Serves the bundles of a home to its trusted devices, and takes theirs.

    Requests are served by threads, which use files only; `run` uses the database in its own thread.

    Attributes:
        port: The port.
    """

    def __init__(self, federation: Federation, port: int = 0, host: str = "") -> None:
        """Listen.

        Args:
            federation: The exchange with the other devices.
            port: The port; 0 for a free one.
            host: The address to listen at; by default all of the machine.

        Raises:
            InvalidValue: The port is taken.
            NotFederated: The home has no federation.
        """
        _ = federation.federation_id
        self._federation = federation
        self._asked: queue.SimpleQueue[threading.Event] = queue.SimpleQueue()
        self._stopped = threading.Event()
        try:
            self._http = _HttpServer((host, port), _Handler)
        except OSError as error:
            raise InvalidValue(f"Port {port} cannot be used ({error.strerror}).") from error
        self._http.spool = federation.replica.spool
        self._http.bring_up_to_date = self._wait
        self.port: int = self._http.server_address[1]
        self._read_trust()

    def run(
        self,
        taken_in: Callable[[TakenIn], None] = lambda _: None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Answer requests until `stop` is called, and take in what devices send.

        Args:
            taken_in: Called with what was taken in, each time.
            tell: Called with a sentence why nothing can be taken in, once until something is.

        Raises:
            DeviceRevoked: The other devices no longer trust this one.
        """
        told, again_at = "", math.inf
        while not self._stopped.is_set():
            waiting: list[threading.Event] = []
            with contextlib.suppress(queue.Empty):
                waiting.append(self._asked.get(timeout=0.5))
            is_due = self._http.has_received.is_set() or time.monotonic() >= again_at
            if not (waiting or is_due):
                continue
            self._http.has_received.clear()
            again_at = time.monotonic() + _SECONDS
            try:
                done, _ = self._federation.bring_up_to_date()
                taken_in(done)
                self._read_trust()
                told, again_at = "", math.inf
            except AicoLabError as error:
                # A program may have to end before an erasure can be finished.
                if not error.transient:
                    raise
                if str(error) != told:
                    tell(str(error))
                told = str(error)
            finally:
                for one in waiting:
                    one.set()

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._stopped.set()

    def _wait(self) -> None:
        """Have `run` seal what changed, and wait for it."""
        done = threading.Event()
        self._asked.put(done)
        done.wait(_SECONDS)

    def _read_trust(self) -> None:
        trusted = _trusted(self._federation.replica)
        if trusted != self._http.trusted:
            self._http.context = _context(self._federation.replica, trusted, is_server=True)
            self._http.trusted = trusted

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        self._http.shutdown()
        self._http.server_close()


def sync(federation: Federation, address: str | None = None) -> dict[str, Synced]:
    """Exchange changes with devices in the local network, and return the results by address.

    Args:
        federation: The exchange with the other devices.
        address: The HOST:PORT of a device; None looks for all that serve.

    Raises:
        DeviceUnreachable: No trusted device answers.
        DeviceRevoked: The other devices no longer trust this one.
    """
    done: dict[str, Synced] = {}
    failed = None
    for host, port in [read_address(address)] if address is not None else discover(BUNDLES):
        try:
            with _Client(federation.replica, host, port) as client:
                done[f"{host}:{port}"] = federation.sync_by(client.exchange)
        except DeviceUnreachable as error:  # one of several, perhaps of another person
            failed = error
    if not done:
        raise failed or DeviceUnreachable(
            "No device answers in the local network: run `federate serve` on another "
            "device, and give the address that it shows with --address."
        )
    return done


class _Client:
    """Copies missing bundles from a device that serves, and to it."""

    def __init__(self, replica: Replica, host: str, port: int) -> None:
        self._replica = replica
        self._where = f"{host}:{port}"
        context = _context(replica, _trusted(replica), is_server=False)
        self._connection = http.client.HTTPSConnection(
            host, port, context=context, timeout=_SECONDS
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def exchange(self) -> Exchanged:
        """Copy missing bundles both ways.

        Raises:
            DeviceUnreachable: The device does not answer, or one does not trust the other.
        """
        done, spool = Exchanged(), self._replica.spool
        try:
            there = self._names()
            here, gone = spool.names(), replaced.names(self._replica)
            junk = self._replica.junk()
            for name in sorted(there - here - gone - junk):
                try:
                    parse_name(name)
                    spool.take(name, self._fetch(name))
                    done.received += 1
                except Refused as refused:
                    done.refused.append((printable(name), str(refused)))
            for name in sorted(here - there - gone - junk):
                self._ask("PUT", _BUNDLES + name, spool.read(name))
                done.sent += 1
        except (ssl.SSLError, ConnectionResetError, BrokenPipeError) as error:
            raise DeviceUnreachable(
                f"The device at {self._where} broke off: see by `aico-lab device list` on both "
                "whether each trusts the other, and try again."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise DeviceUnreachable(
                f"The device at {self._where} does not answer: check that `aico-lab federate "
                "serve` is running on it, and try again."
            ) from error
        return done

    def _names(self) -> set[str]:
        answer = self._ask("GET", _NAMES, most=_LARGEST_LIST)
        try:
            return {str(name) for name in json.loads(answer)}
        except (ValueError, TypeError, RecursionError) as error:
            raise http.client.HTTPException("answered with no list") from error

    def _fetch(self, name: str) -> bytes:
        """Return a bundle; a broken connection is opened again, for the rest of it."""
        content = bytearray()
        for left in reversed(range(_TRIES)):
            try:
                self._ask("GET", _BUNDLES + name, into=content)
                return bytes(content)
            except (OSError, http.client.HTTPException):
                self._connection.close()
                if not left:
                    raise
        raise AssertionError

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        into: bytearray | None = None,
        most: int = LARGEST_FILE,
    ) -> bytes:
        """Return the body of an answer.

        Args:
            method: The method of the request.
            path: The path.
            body: The body of the request.
            into: What was received before, to which the rest is added.
            most: The most bytes of an answer.
        """
        content = bytearray() if into is None else into
        headers = {"Range": f"bytes={len(content)}-"} if content else {}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        if answer.status not in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
            answer.read(_PIECE)
            raise http.client.HTTPException(f"answered {answer.status}")
        if answer.status == http.HTTPStatus.OK:
            content.clear()
        while piece := answer.read(_PIECE):
            content += piece
            if len(content) > most:
                raise http.client.HTTPException("answered with too much")
        if answer.length:  # the connection ended before the answer did
            raise http.client.IncompleteRead(bytes(0), answer.length)
        return bytes(content)


class _HttpServer(http.server.ThreadingHTTPServer):
    """Accepts connections of trusted devices, some at a time."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = _HANDSHAKES
    spool: Spool
    context: ssl.SSLContext

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.trusted: dict[str, str] = {}
        self.has_received = threading.Event()
        self.bring_up_to_date: Callable[[], None] = lambda: None
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        self._may_shake = threading.BoundedSemaphore(_HANDSHAKES)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._may_shake.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake belongs into the thread, or one slow device would stop all others.
        try:
            request.settimeout(_SECONDS_TO_SHAKE)
            secured = self.context.wrap_socket(request, server_side=True)
        finally:
            self._may_shake.release()
        with secured:
            if self._free.acquire(blocking=False):
                try:
                    super().finish_request(secured, client_address)
                finally:
                    self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a device that broke off, and whoever is no device."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one device."""

    protocol_version = "HTTP/1.1"
    server_version = "aico-lab"
    sys_version = ""
    timeout = _SECONDS
    server: _HttpServer

    def setup(self) -> None:
        """Read who it is, after the handshake."""
        super().setup()
        self._device = _signer(cast("ssl.SSLSocket", self.connection))

    def do_GET(self) -> None:
        """Send the list of names, or a bundle from a given byte on."""
        if not self._is_trusted():
            return
        if self.path == _NAMES:
            self.server.bring_up_to_date()
            if self._is_trusted():  # it may have learned of a revocation
                self._send(json.dumps(sorted(self.server.spool.names())).encode())
            return
        try:
            content = self.server.spool.read(self._name())
        except (Refused, AicoLabError):
            self._refuse(http.HTTPStatus.NOT_FOUND)
            return
        self._send(content, self._first_byte())

    def do_PUT(self) -> None:
        """Store a bundle."""
        if not self._is_trusted():
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= LARGEST_FILE):
            self._refuse(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        content = self.rfile.read(int(length))
        try:
            self.server.spool.take(self._name(), content)
        except Refused:
            self._refuse(http.HTTPStatus.BAD_REQUEST)
            return
        except AicoLabError:  # as on a full disk
            self._refuse(http.HTTPStatus.INSUFFICIENT_STORAGE)
            return
        self.server.has_received.set()
        self._send(b"")

    def log_message(self, *_: Any) -> None:
        """Write nothing: who asked for what is nobody's business."""

    def _name(self) -> str:
        """Return the name of the bundle that is asked for.

        Raises:
            Refused: It is no name of a bundle, but another path.
        """
        name = self.path.removeprefix(_BUNDLES)
        parse_name(name)
        return name

    def _first_byte(self) -> int:
        first = self.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        return int(first) if first.isascii() and first.isdigit() else 0

    def _is_trusted(self) -> bool:
        if self._device in self.server.trusted:
            return True
        self._refuse(http.HTTPStatus.FORBIDDEN)
        return False

    def _send(self, content: bytes, first: int = 0) -> None:
        status = http.HTTPStatus.PARTIAL_CONTENT if first else http.HTTPStatus.OK
        self.send_response(status)
        self.send_header("Content-Length", str(max(0, len(content) - first)))
        self.end_headers()
        self.wfile.write(content[first:])

    def _refuse(self, status: http.HTTPStatus) -> None:
        self.close_connection = True  # the body was not read
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()


def _trusted(replica: Replica) -> dict[str, str]:
    """Return the public keys of the other trusted devices by their ids."""
    return dict(
        replica.connection.fetch_all(
            "SELECT device_id, public_key FROM devices WHERE trust_level > 0 AND device_id <> ?",
            [replica.device_id],
        )
    )


def _context(replica: Replica, trusted: dict[str, str], *, is_server: bool) -> ssl.SSLContext:
    """Return a context that proves this device, and accepts only trusted devices."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # addresses change; the key is what counts
    context.verify_mode = ssl.CERT_REQUIRED
    # A device's anchor is made here from its public key, and signed by a key that nobody keeps.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if trusted:
        anchors = [
            _certificate(
                device_id,
                Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)),
                "aico-lab",
                Ed25519PrivateKey.generate(),
                is_anchor=True,
            )
            for device_id, public_key in trusted.items()
        ]
        context.load_verify_locations(cadata="".join(map(_pem, anchors)))
    key = Ed25519PrivateKey.generate()
    mine = _certificate(
        "connection",
        key.public_key(),
        replica.device_id,
        Ed25519PrivateKey.from_private_bytes(replica.signing_key),
        is_anchor=False,
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # Python reads a key from a file only; this one is good for as long as the process lives.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "key.pem"
        file.write_bytes(secret + _pem(mine).encode())
        context.load_cert_chain(file)
    return context


def _certificate(
    subject: str,
    key: Ed25519PublicKey,
    issuer: str,
    signer: Ed25519PrivateKey,
    *,
    is_anchor: bool,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(_named(subject))
        .issuer_name(_named(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=is_anchor, path_length=None), critical=True)
        .sign(signer, None)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _signer(connection: ssl.SSLSocket) -> str:
    """Return the id of the device whose key signed the certificate of a connection."""
    certificate = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    (name,) = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)
