"""Devices in the local network: their addresses by multicast DNS, and pairing over TCP."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from typing import TYPE_CHECKING, Final, Self

from aico_lab.errors import DeviceUnreachable, InvalidValue, LibraryMissing, PairingFailed
from aico_lab.federation.pairing import LARGEST_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

BUNDLES: Final = "_aico-lab._tcp.local."
PAIRING: Final = "_aico-lab-pair._tcp.local."

_SECONDS_TO_FIND: Final = 3.0
_SECONDS_TO_ANSWER: Final = 10.0
_LENGTH: Final = 4  # bytes before a message


def read_address(address: str) -> tuple[str, int]:
    """Return the parts of HOST:PORT.

    Raises:
        InvalidValue: It is no address.
    """
    host, _, port = address.rpartition(":")
    try:
        host.encode("idna")
    except UnicodeError:  # such as one that is longer than names can be
        host = ""
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise InvalidValue(f"{address!r} is no address: write HOST:PORT, as the device shows it.")
    return host.strip("[]"), int(port)


def own_address() -> str:
    """Return the address of this machine in the local network; the loopback if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; the system only chooses a route
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


@contextlib.contextmanager
def announced(service: str, port: int) -> Iterator[bool]:
    """Announce a service in the local network, under a name that says nothing of the person.

    Yields:
        Whether it is announced: the library may not be installed, or the network refuse it.
    """
    try:
        from zeroconf import ServiceInfo, Zeroconf
    except ImportError:
        yield False
        return
    name = f"{secrets.token_hex(6)}.{service}"
    address = socket.inet_aton(own_address())
    info = ServiceInfo(service, name, addresses=[address], port=port, properties={"v": "1"})
    with contextlib.ExitStack() as stack:
        is_announced = False
        with contextlib.suppress(OSError):
            zeroconf = Zeroconf()
            stack.callback(zeroconf.close)
            zeroconf.register_service(info)
            is_announced = True
        yield is_announced


def discover(service: str, seconds: float = _SECONDS_TO_FIND) -> list[tuple[str, int]]:
    """Return the addresses of all devices in the local network that announce a service.

    Raises:
        LibraryMissing: The library is not installed.
        DeviceUnreachable: The network cannot be used.
    """
    try:
        from zeroconf import ServiceBrowser, Zeroconf
    except ImportError as error:
        raise LibraryMissing(
            "Devices are found by zeroconf: run `pip install 'aico-lab[lan]'`, or name the device "
            "by --address."
        ) from error

    names: set[str] = set()

    def note(*, name: str, **_: object) -> None:
        names.add(name)

    try:
        with contextlib.closing(Zeroconf()) as zeroconf:
            ServiceBrowser(zeroconf, service, [note])
            time.sleep(seconds)
            infos = [zeroconf.get_service_info(service, name) for name in sorted(names)]
    except OSError as error:
        raise DeviceUnreachable(f"The network cannot be used ({error.strerror}).") from error
    return [
        (address, info.port)
        for info in infos
        if info is not None and info.port
        for address in info.parsed_addresses()
    ]


class ListeningPost:
    """Messages of a pairing with the first device that connects and answers."""

    def __init__(self, port: int = 0) -> None:
        """Listen.

        Args:
            port: The port; 0 for a free one.

        Raises:
            InvalidValue: The port is taken.
        """
        try:
            self._listener = socket.create_server(("", port))
        except OSError as error:
            raise InvalidValue(f"Port {port} cannot be used ({error.strerror}).") from error
        self.port: int = self._listener.getsockname()[1]
        self._question = b""
        self._connection: socket.socket | None = None

    def write(self, number: int, message: bytes) -> None:
        """Send a message; the first one is for whoever connects."""
        if number == 1:
            self._question = message
        elif self._connection is not None:
            with _answering():
                _send(self._connection, message)

    def read(self, number: int, seconds: float) -> bytes:
        """Wait for a device that answers the first message, and return the answer."""
        del number  # only the second message comes here
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._listener.settimeout(left)
            with contextlib.suppress(OSError):  # nobody, or somebody else
                connection, _ = self._listener.accept()
                try:
                    connection.settimeout(_SECONDS_TO_ANSWER)
                    _send(connection, self._question)
                    answer = _receive(connection)
                except OSError:
                    connection.close()
                    raise
                self._connection = connection
                return answer
        raise PairingFailed("No device joined in time: begin again.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.close()
        if self._connection is not None:
            self._connection.close()


class ConnectedPost:
    """Messages of a pairing with a device that listens."""

    def __init__(self, address: str | None = None) -> None:
        """Connect.

        Args:
            address: The HOST:PORT of the device; None looks for it in the local network.

        Raises:
            DeviceUnreachable: No device answers.
        """
        found = [read_address(address)] if address is not None else discover(PAIRING)
        for one in found:
            with contextlib.suppress(OSError):
                self._connection = socket.create_connection(one, _SECONDS_TO_ANSWER)
                return
        where = address or "the local network"
        raise DeviceUnreachable(
            f"No device answers at {where}: run `device add` on the other device, and "
            "give the address that it shows with --address."
        )

    def write(self, number: int, message: bytes) -> None:
        """Send a message."""
        del number  # they go in order
        with _answering():
            _send(self._connection, message)

    def read(self, number: int, seconds: float) -> bytes:
        """Wait for a message, and return it."""
        del number
        self._connection.settimeout(seconds)
        with _answering():
            return _receive(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PairingFailed("The other device did not answer: begin again on both.") from error


def _send(connection: socket.socket, message: bytes) -> None:
    connection.sendall(len(message).to_bytes(_LENGTH, "big") + message)


def _receive(connection: socket.socket) -> bytes:
    """Return the next message.

    Raises:
        OSError: The connection ended, or the message is too long.
    """
    length = int.from_bytes(_exactly(connection, _LENGTH), "big")
    if length > LARGEST_MESSAGE:
        raise ConnectionError("too long")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes:
    """Return that many bytes."""
    parts, until = bytearray(), time.monotonic() + (connection.gettimeout() or 0)
    while len(parts) < length:
        if time.monotonic() > until:  # else somebody could send a byte now and then for ever
            raise TimeoutError
        if not (part := connection.recv(min(length - len(parts), 1 << 16))):
            raise ConnectionError("the other side closed")
        parts += part
    return bytes(parts)
