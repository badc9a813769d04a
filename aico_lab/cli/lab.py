"""`aico-lab lab`: open the notebooks in JupyterLab."""

from __future__ import annotations

from typing import Annotated

import typer

from aico_lab.cli.common import HomeOption, KeyFileOption, ask_passphrase
from aico_lab.cli.output import note


def open_jupyterlab(
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="The port to listen on; by default a free one."),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, and open no browser.")
    ] = False,
) -> None:
    """Open the notebooks in JupyterLab.

    They are your own copies, in the home; the outputs in them are plain text.
    """
    from aico_lab.home.working_copies import renew
    from aico_lab.lab import Lab
    from aico_lab.shipped import shipped

    passphrase = ask_passphrase(home, key_file=key_file)
    # Fail here if the home does not open, not only in a notebook.
    lab = Lab.open(home, key_file=key_file, passphrase=passphrase)
    # The import takes a second, so it comes after the quick checks.
    from aico_lab.jupyter.server import check_port, serve

    if port is not None:
        check_port(port)
    notebooks = lab.home.path / "notebooks"
    for copy in renew(notebooks, shipped("notebooks", ".ipynb").values()):
        note(
            f"{copy.name} was not updated, since you changed it: rename your copy to get the "
            "newer version too."
        )
    note(f"Notebooks: {notebooks} (Control-C stops JupyterLab)")
    serve(lab, notebooks, port=port, browser=not no_browser)
