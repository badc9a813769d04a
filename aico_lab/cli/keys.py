"""`aico-lab keys`: what opens a home, and the change of its key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aico_lab.cli.common import (
    HomeOption,
    JsonOption,
    KeyFileOption,
    ask_passphrase,
    home_of,
    new_passphrase,
)
from aico_lab.cli.output import Bar, emit, note, say

if TYPE_CHECKING:
    from aico_lab.config import Settings

keys = typer.Typer(
    help="Show, add and remove what opens a home, and change its key.", no_args_is_help=True
)

_NAMES = {
    "key-file": "key file",
    "passphrase": "passphrase",
    "recovery": "recovery key",
    "keyring": "secret in the system's keyring",
    "credential": "credential of systemd",
    "none": "nothing: the home is not encrypted",
}


def _settings(home: Path | None, key_file: Path | None) -> Settings:
    from aico_lab.config import Settings

    passphrase = ask_passphrase(home, key_file=key_file)
    return Settings.resolve(home=home, key_file=key_file, passphrase=passphrase)


@keys.command("status")
def keys_status(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """List what opens the home, and whether the list is as it was written."""
    from aico_lab.config import Settings
    from aico_lab.home.keys import UNFINISHED
    from aico_lab.key_rotation.slots import status_of

    found = status_of(home_of(home), Settings.resolve(home=home, key_file=key_file))
    if json:
        emit(found)
        return
    for slot in found["slots"]:
        since = f"since {slot['created_at'][:10]}" if slot["created_at"] else ""
        in_use = "in use" if slot["id"] == found["in_use"] else ""
        name = _NAMES.get(slot["kind"], slot["kind"])
        shown = f"{slot['id']:>3}  {name:<32} {slot['fingerprint'] or '':<9} {since:<17} {in_use}"
        say(shown.rstrip())
    if times := found["rotations"]:
        often = "once" if times == 1 else f"{times} times, last"
        say(f"The key was changed {often} on {found['rotated_at'][:10]}.")
    if found["unfinished_since"]:
        note(UNFINISHED)


@keys.command("add")
def keys_add(
    kind: Annotated[
        Literal["key-file", "passphrase", "recovery", "keyring", "credential"],
        typer.Argument(help="The kind of credential that is to open the home, too."),
    ],
    file: Annotated[
        Path | None, typer.Argument(help="The new key file, or the file of a credential.")
    ] = None,
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Add a key file, passphrase or another credential that opens the home.

    A new passphrase is asked for, or taken from AICO_LAB_NEW_PASSPHRASE.
    """
    from aico_lab.errors import InvalidValue
    from aico_lab.key_rotation.adding import add_credential

    if (file is not None) != (kind in {"key-file", "credential"}):
        raise InvalidValue(
            f"Name the file to write, as in `aico-lab keys add {kind} FILE`."
            if file is None
            else f"`aico-lab keys add {kind}` writes no file: leave {file} out."
        )
    added = add_credential(
        home_of(home), _settings(home, key_file), kind, file=file, passphrase=_new_passphrase(kind)
    )
    if json:
        emit(
            {
                "id": added.slot["id"],
                "kind": kind,
                "file": None if file is None else str(file.expanduser().absolute()),
                "keyring": added.keyring,
                "recovery_key": added.recovery_key,
            }
        )
        return
    say(f"Added slot {added.slot['id']}: {_NAMES[kind]}.")
    if kind == "recovery":
        say(added.recovery_key or "")
        say("Write it down and keep it apart from this machine: it is shown only now.")
    elif kind == "key-file":
        say(f"Its key is {file}: keep it where only you can read it.")
    elif kind == "credential":
        say(
            f"Encrypt it by `systemd-creds encrypt --name=aico-lab.key {file} aico-lab.cred`, name "
            f"that file in LoadCredentialEncrypted=, and remove {file}."
        )
    elif kind == "keyring":
        say(f"Its secret is in the keyring ({added.keyring}); AICO_LAB_KEYRING=1 uses it.")


def _new_passphrase(kind: str) -> str | None:
    if kind != "passphrase":
        return None
    from aico_lab.config import NEW_PASSPHRASE_VARIABLE, new_passphrase_given

    return new_passphrase_given() or new_passphrase(NEW_PASSPHRASE_VARIABLE)


@keys.command("remove")
def keys_remove(
    number: Annotated[
        int,
        typer.Argument(metavar="SLOT", help="The number of the slot in `aico-lab keys status`."),
    ],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Remove a slot, so that its credential opens the home no longer."""
    from aico_lab.key_rotation.adding import remove_credential

    removed = remove_credential(home_of(home), _settings(home, key_file), number)
    slot = removed.slot
    if json:
        emit({"removed": slot["id"], "kind": slot["kind"], "twins": removed.twins})
        return
    say(f"Removed slot {slot['id']}: {_NAMES[slot['kind']]}.")
    if removed.twins:
        twins = ", ".join(map(str, removed.twins))
        say(f"It still opens this home, by slot {twins}, which is of the same secret.")
        return
    if removed.in_use:
        say("It opened the home just now: name another credential from now on.")
    say(
        "Whoever has it and an earlier copy of lab.json can still open this home; "
        "`aico-lab keys rotate` ends that."
    )


@keys.command("rotate")
def keys_rotate(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Change the key of the home, and encrypt every store anew.

    The credentials stay as they are. An interrupted change is finished.
    """
    from aico_lab.key_rotation.rotation import PARTS, rotate

    settings = _settings(home, key_file)
    done: list[str] = []
    with Bar("stores") as bar:

        def show(part: str) -> None:
            bar.show("stores", len(done), PARTS)
            done.append(part)

        result = rotate(home_of(home), settings, progress=show)
    if json:
        emit(result)
        return
    say(
        "The interrupted change of the key is finished."
        if result.resumed
        else "The home has a new key; what opened it before opens it now."
    )
    if result.backups:
        say(f"{result.backups} backups from before migrations have it, too.")
    if result.snapshot:
        say(f"Of the snapshots only the newest, {result.snapshot}, is left.")
