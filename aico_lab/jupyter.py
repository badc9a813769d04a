"""JupyterLab on a home: its notebooks, a kernel that finds the lab, and nothing asked of a network.

Whatever Jupyter and IPython keep lies in the home too: settings, history, what is open. What a
person's other notebooks use is neither read nor written, since it might start another kernel, load
an extension that calls out, or leave what was typed here outside the home.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Final

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.services.sessions.sessionmanager import SessionManager
from traitlets import default

from aico_lab.config import PASSPHRASE_VARIABLE
from aico_lab.errors import AicoLabError
from aico_lab.home import os_errors, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from jupyter_server.services.sessions.sessionmanager import ModelName

    from aico_lab.config import Settings

ADDRESS: Final = "127.0.0.1"

# As arguments they win over every configuration file, the machine's included. The token is left to
# Jupyter, which makes a random one.
_OPTIONS: Final = {
    "ServerApp.ip": ADDRESS,
    "LabApp.news_url": "None",
    "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    "LabApp.extension_manager": "readonly",
    "LanguageServerManager.autodetect": "False",  # it asks npm, which looks for news of itself
    "KernelSpecManager.ensure_native_kernel": "True",
    "KernelManager.transport_encryption": "auto",
    "FileContentsManager.delete_to_trash": "False",  # which lies outside the home
    "Application.log_level": "WARN",  # the address is told at any level
}

# Where there are no news, JupyterLab still asks whether they are wanted.
_SETTINGS: Final = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}

_KERNEL: Final = {
    "IPKernelApp": {"extensions": ["aico_lab.kernel"]},
    # It takes longer for its first answer than JupyterLab waits, and keeps what it has read of
    # anybody's code outside the home. IPython itself completes what there is.
    "IPCompleter": {"use_jedi": False},
}


def check_port(port: int) -> None:
    """Say early, and in a sentence, what Jupyter would say late.

    Raises:
        AicoLabError: The port cannot be used.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as refused:
            raise AicoLabError(
                f"Port {port} cannot be used ({refused.strerror}): "
                "name another, or leave --port out to get one that is free."
            ) from refused


def serve(settings: Settings, notebooks: Path, *, port: int | None, browser: bool) -> None:
    """Run JupyterLab until it is told to stop, by a signal or in its menu.

    It becomes this process, whose environment is Jupyter's afterwards.

    Args:
        settings: The home, and what opens it in a kernel.
        notebooks: The folder that is shown.
        port: Where to listen; None for the first that is free.
        browser: Open one.

    Raises:
        HomeNotWritable: Jupyter's folder in the home cannot be made.
    """
    options = _OPTIONS | {
        "ServerApp.root_dir": str(notebooks),
        "ServerApp.open_browser": str(browser),
        "ServerApp.allow_root": str(os.geteuid() == 0),
    }
    if port is not None:
        options |= {"ServerApp.port": str(port), "ServerApp.port_retries": "0"}
    environment = settings.environment()
    secret = {name: environment.pop(name) for name in {PASSPHRASE_VARIABLE} & set(environment)}
    os.umask(0o077)  # also for kernels, whose history holds what was typed
    _move_into(settings.home / "jupyter", environment)

    class Sessions(SessionManager):
        """Gives the passphrase to kernels, rather than to the browser and terminals as well."""

        def get_kernel_env(self, path: str | None, name: ModelName | None = None) -> dict[str, str]:
            return super().get_kernel_env(path, name) | secret

    try:
        from jupyterlab.labapp import LabApp  # runs yarn, with the telemetry that is off by now

        server = LabApp.initialize_server(
            [f"--{name}={value}" for name, value in options.items()],
            kernel_spec_manager_class=OnlyOurs,
            session_manager_class=Sessions,
        )

        def stop(*_: object) -> None:
            # A second one does not wait for the kernels, which end when they miss the server.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            server.stop(from_signal=True)

        signal.signal(signal.SIGINT, stop)  # Jupyter's own asks whether that was meant
        server.start()
    except KeyboardInterrupt:
        pass


class OnlyOurs(KernelSpecManager):
    """Knows the kernel of this very Python; another "python3" may be without this package."""

    @default("kernel_dirs")
    def _none(self) -> list[str]:
        return []


def _move_into(own: Path, environment: dict[str, str]) -> None:
    """Make a folder the only one that Jupyter and IPython keep things in, or take settings from.

    What lies there is for its owner alone, also what an earlier version left.
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
    os.environ.clear()
    os.environ.update(
        {name: text for name, text in environment.items() if not name.startswith("JUPYTER")},
        JUPYTER_CONFIG_DIR=str(own / "config"),
        JUPYTER_DATA_DIR=str(own / "data"),
        IPYTHONDIR=str(own / "ipython"),
        XDG_CACHE_HOME=str(own / "cache"),  # of whatever a notebook imports
        YARN_ENABLE_TELEMETRY="0",  # JupyterLab runs its own yarn where there is a Node.js
    )
