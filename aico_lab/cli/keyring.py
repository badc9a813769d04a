"""`aico-lab keyring`: keep the passphrase of a home in the operating system's keyring."""

from __future__ import annotations

import typer

from aico_lab.cli.common import HomeOption, JsonOption, ask_passphrase, home_of
from aico_lab.cli.output import emit, say

keyring = typer.Typer(
    help="Keep the passphrase of a home in the system's keyring.", no_args_is_help=True
)


@keyring.command("add")
def keyring_add(*, home: HomeOption = None, json: JsonOption = False) -> None:
    """Store the passphrase in the keyring, if it opens the home."""
    from aico_lab.config import Settings
    from aico_lab.errors import InvalidValue
    from aico_lab.home.keys import kinds_of, open_keys
    from aico_lab.home.os_keyring import add_passphrase

    folder = home_of(home)
    marker = folder.read_marker()
    if "passphrase" not in kinds_of(marker):
        raise InvalidValue(f"{folder.path} is not opened by a passphrase: there is none to store.")
    passphrase = ask_passphrase(home, keyring_may_know=False)
    open_keys(marker, Settings(folder.path, passphrase=passphrase))
    name = add_passphrase(str(marker.get("home_id")), passphrase or "")
    if json:
        emit({"home": str(folder.path), "keyring": name})
    else:
        say(f"The passphrase is in the keyring ({name}).")


@keyring.command("remove")
def keyring_remove(*, home: HomeOption = None, json: JsonOption = False) -> None:
    """Remove the passphrase from the keyring."""
    from aico_lab.home.os_keyring import remove_passphrase

    folder = home_of(home)
    found = remove_passphrase(str(folder.read_marker().get("home_id")))
    if json:
        emit({"home": str(folder.path), "removed": found})
    else:
        say("Removed the passphrase." if found else "The keyring had no passphrase of this home.")
