"""Run JupyterLab on a home: its notebooks, a kernel that finds the lab, and no network access.

All files of Jupyter and IPython are in the home: settings, history, workspaces. A user's other
Jupyter settings are neither read nor written, since they might start another kernel, load an
extension that uses the network, or store what is typed here outside the home.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, ClassVar, Final

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.services.kernels.kernelmanager import ServerKernelManager
from jupyter_server.services.sessions.sessionmanager import SessionManager
from traitlets import default

from aico_lab.config import KEY_DESCRIPTOR_VARIABLE, PASSPHRASE_VARIABLE
from aico_lab.errors import AicoLabError
from aico_lab.home.files import os_errors, remove_whole, write_atomically
from aico_lab.home.handover import inheritable
from aico_lab.jupyter.report_magic import PAGES

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from jupyter_server.serverapp import ServerApp
    from jupyter_server.services.sessions.sessionmanager import ModelName

    from aico_lab.lab import Lab

ADDRESS: Final = "127.0.0.1"

# Arguments take precedence over every configuration file, including the machine's. The token is
# left to Jupyter, which generates a random one.
_OPTIONS: Final = {
    "ServerApp.ip": ADDRESS,
    "LabApp.news_url": "None",
    "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    "LabApp.extension_manager": "readonly",
    "LanguageServerManager.autodetect": "False",  # it runs npm, which checks for its own updates
    "KernelSpecManager.ensure_native_kernel": "True",
    "MappingKernelManager.kernel_manager_class": "aico_lab.jupyter.server.Kernel",
    "KernelManager.transport_encryption": "auto",
    "FileContentsManager.delete_to_trash": "False",  # the trash is outside the home
    "ContentsManager.checkpoints_class": "aico_lab.jupyter.checkpoints.PrivateCheckpoints",
    "Application.log_level": "WARN",  # the address is printed at any level
}

# Without a news address, JupyterLab still asks whether news are wanted.
_SETTINGS: Final = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}

_OF_THE_KEY: Final = {KEY_DESCRIPTOR_VARIABLE, PASSPHRASE_VARIABLE}

_PAGES: Final = "aico-lab/reports"
"""The path of the server at which the pages of reports are."""

_KERNEL: Final = {
    "IPKernelApp": {"extensions": ["aico_lab.jupyter.ipython_extension"]},
    # Jedi's first answer takes longer than JupyterLab waits, and its cache of parsed code lies
    # outside the home. IPython completes existing objects itself.
    "IPCompleter": {"use_jedi": False},
    # What was typed may quote messages; in a file it would be plain text.
    "HistoryManager": {"hist_file": ":memory:"},
}


def check_port(port: int) -> None:
    """Raise AicoLabError if a port cannot be used, before Jupyter is started."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as refused:
            raise AicoLabError(
                f"Port {port} cannot be used ({refused.strerror}): "
                "name another, or leave --port out to use a free one."
            ) from refused


def serve(lab: Lab, notebooks: Path, *, port: int | None, browser: bool) -> None:
    """Run JupyterLab in this process until a signal or its menu stops it.

    The environment of this process is replaced by Jupyter's.

    Args:
        lab: The opened home, whose key each kernel inherits; it is closed here.
        notebooks: The folder to show.
        port: The port to listen on; None for the first free one.
        browser: Whether to open a browser.

    Raises:
        HomeNotWritable: Jupyter's folder in the home cannot be created.
    """
    options = _OPTIONS | {
        "ServerApp.root_dir": str(notebooks),
        "ServerApp.open_browser": str(browser),
        "ServerApp.allow_root": str(os.geteuid() == 0),
    }
    if port is not None:
        options |= {"ServerApp.port": str(port), "ServerApp.port_retries": "0"}
    home_id, keys, settings = lab.home_id, lab.storage.keys, lab.storage.settings
    lab.close()
    Kernel.for_child = lambda: inheritable(home_id, keys, settings)
    os.umask(0o077)  # also for kernels
    _remove_plain_copies(settings.home)
    _move_into(settings.home / "jupyter", settings.environment())

    class Sessions(SessionManager):
        """A session manager that tells kernels where the pages of reports are."""

        def get_kernel_env(self, path: str | None, name: ModelName | None = None) -> dict[str, str]:
            pages = {PAGES: f"{server.connection_url}{_PAGES}/"}
            return super().get_kernel_env(path, name) | pages

    try:
        from jupyterlab.labapp import LabApp  # runs yarn, whose telemetry is disabled by now

        server = LabApp.initialize_server(
            [f"--{name}={value}" for name, value in options.items()],
            kernel_spec_manager_class=OnlyOurs,
            session_manager_class=Sessions,
        )
        _serve_pages(server, settings.home / "reports")

        def stop(*_: object) -> None:
            # A second signal does not wait for the kernels, which end when the server is gone.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            server.stop(from_signal=True)

        signal.signal(signal.SIGINT, stop)  # Jupyter's own handler asks for confirmation
        server.start()
    except KeyboardInterrupt:
        pass


def _remove_plain_copies(home: Path) -> None:
    """Remove the history of cells and the copies of notebooks that earlier versions stored."""
    with os_errors(home):
        for copies in list((home / "notebooks").rglob(".ipynb_checkpoints")):
            remove_whole(copies)
        for history in (home / "jupyter" / "ipython").glob("profile_*/history.sqlite*"):
            remove_whole(history)


def _serve_pages(server: ServerApp, reports: Path) -> None:
    """Show the pages of reports, which are outside the folder of notebooks, to the person."""
    from jupyter_server.base.handlers import AuthenticatedFileHandler

    class Pages(AuthenticatedFileHandler):
        """Files of reports; a page can use scripts, save files and print, but not call Jupyter."""

        @property
        def content_security_policy(self) -> str:
            return f"{super().content_security_policy} allow-downloads allow-modals allow-popups"

    place = f"{server.base_url}{_PAGES}/(.*)"
    handler = (place, Pages, {"path": str(reports)})
    server.web_app.add_handlers(".*$", [handler])  # type: ignore[no-untyped-call]


class Kernel(ServerKernelManager):
    """Starts a kernel that inherits the key of the home; no other process of the server does."""

    for_child: ClassVar[
        Callable[[], AbstractContextManager[tuple[dict[str, str], tuple[int, ...]]]]
    ]

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        with type(self).for_child() as (environment, descriptors):
            variables = {name: text for name, text in environment.items() if name in _OF_THE_KEY}
            options["env"] = {**options["env"], **variables}
            if descriptors:
                options["pass_fds"] = descriptors
            await super()._async_launch_kernel(kernel_cmd, **options)


class OnlyOurs(KernelSpecManager):
    """Finds only the kernel of this Python; another "python3" may lack this package."""

    @default("kernel_dirs")
    def _none(self) -> list[str]:
        return []


def _move_into(own: Path, environment: dict[str, str]) -> None:
    """Make a folder the only place where Jupyter and IPython store files and read settings.

    Files in the folder become private to the owner, also those of earlier versions.
    """
    with os_errors(own):
        own.mkdir(mode=0o700, exist_ok=True)
        for path in own.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)
        (own / "config" / "labconfig").mkdir(parents=True, exist_ok=True)
        defaults = own / "config" / "labconfig" / "default_setting_overrides.json"
        write_atomically(defaults, json.dumps(_SETTINGS).encode())
        profile = own / "ipython" / "profile_default"
        profile.mkdir(parents=True, exist_ok=True)
        write_atomically(profile / "ipython_kernel_config.json", json.dumps(_KERNEL).encode())
        (profile / "startup").mkdir(exist_ok=True)
        # IPython would copy its own, with the mode of the installed file.
        write_atomically(profile / "startup" / "README", b"Python files here run in every kernel.")
    os.environ.clear()
    os.environ.update(
        {name: text for name, text in environment.items() if not name.startswith("JUPYTER")},
        JUPYTER_CONFIG_DIR=str(own / "config"),
        JUPYTER_DATA_DIR=str(own / "data"),
        IPYTHONDIR=str(own / "ipython"),
        XDG_CACHE_HOME=str(own / "cache"),  # for libraries that a notebook imports
        YARN_ENABLE_TELEMETRY="0",  # JupyterLab runs its own yarn if Node.js is installed
    )
