"""`aico-lab device`: the person's devices, which hold the same conversations."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, open_lab, read_pairs
from aico_lab.cli.output import emit, note, say, show

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from aico_lab.federation.pairing import Post
    from aico_lab.federation.replica import DeviceKeys
    from aico_lab.federation.results import FederatedDevice

device = typer.Typer(
    help="Let a person's devices hold the same conversations.", no_args_is_help=True
)

DeviceArgument = Annotated[
    str, typer.Argument(metavar="DEVICE", help="The device: its name, or the beginning of its id.")
]
NameOption = Annotated[
    str | None,
    typer.Option(help="The name of this device; by default the machine's."),
]
FolderOption = Annotated[Path | None, typer.Option(help="The shared folder, which is remembered.")]


@device.command("init")
def device_init(
    *,
    name: NameOption = None,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Make this home the first device, which the others join."""
    with open_lab(home, key_file) as lab:
        lab.devices.federation.begin(_machine() if name is None else name)
        (made,) = lab.devices.list()
    if json:
        emit(made)
    else:
        say(f"This is device {made.name} ({made.device_id}); `aico-lab device add` adds another.")


@device.command("list")
def device_list(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """List the devices."""
    with open_lab(home, key_file) as lab:
        devices = lab.devices.list()
        classes = {*lab.devices.federation.replica.classes}
    if json:
        emit(devices)
        return
    width = max(len(one.name) for one in devices)
    for one in devices:
        show(_described(one, width, classes))


@device.command("add")
def device_add(
    *,
    folder: FolderOption = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to listen on without a folder.")
    ] = 0,
    receive_only: Annotated[
        bool, typer.Option("--receive-only", help="Take in no changes of the device.")
    ] = False,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS=none",
            help="A class that it is not to hold, such as conversations; may be repeated.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Trust the device that has the code, and do not ask.")
    ] = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Add a device that types the code which this command shows.

    The devices meet in a shared folder, or without --folder in the local network.
    """
    from aico_lab.errors import InvalidValue
    from aico_lab.federation import nearby, pairing, trust
    from aico_lab.federation.lab_devices import shared_folder

    if not yes and not sys.stdin.isatty():
        raise InvalidValue("There is no terminal to ask for trust: add --yes.")
    code, classes = pairing.new_code(), read_pairs(policy, "--policy")
    left_out: list[str] = []
    level: Literal[1, 2] = 1 if receive_only else 2

    def confirm(name: str, keys: DeviceKeys) -> bool:
        return yes or _ask(name, keys, left_out, receive_only=receive_only)

    with open_lab(home, key_file) as lab:
        trust.require_full_trust(lab.devices.federation.replica)
        held = trust.check_policy(lab.devices.federation.replica, classes)
        left_out += sorted({*lab.devices.federation.replica.classes} - held)
        known = {one.device_id for one in lab.devices.list()}
        if folder is not None:
            shared = shared_folder(folder)
            this = lab.devices.federation.replica.device_id
            with pairing.FolderPost.begin(shared, this) as post:
                _show_code(code, f"--folder {shared}")
                added = lab.devices.add(post, code, confirm, level=level, policy=classes)
            lab.devices.remember_folder(shared)
        else:
            with (
                nearby.ListeningPost(port) as listening,
                nearby.announced(nearby.PAIRING, listening.port) as is_announced,
            ):
                where = f"--address {nearby.own_address()}:{listening.port}"
                _show_code(code, f"[{where}]" if is_announced else where)
                added = lab.devices.add(listening, code, confirm, level=level, policy=classes)
    if json:
        emit(added)
    else:
        say(f"Added {added.name} ({added.device_id}); `aico-lab federate sync` sends it the rows.")
    if added.device_id in known:
        note(
            f"{added.name} was trusted already, and keeps the keys that it has got; from now on it "
            f"holds {', '.join(added.classes)}."
        )


@device.command("join")
def device_join(
    code: Annotated[str, typer.Argument(help="The code that the other device shows.")],
    *,
    folder: FolderOption = None,
    address: Annotated[str | None, typer.Option(help="The HOST:PORT of the other device.")] = None,
    name: NameOption = None,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Join the devices of which one runs `aico-lab device add`."""
    from aico_lab.errors import InvalidValue
    from aico_lab.federation import nearby, pairing
    from aico_lab.federation.lab_devices import shared_folder

    if folder is not None and address is not None:
        raise InvalidValue("Use only one of --folder and --address.")
    own_name = _machine() if name is None else name
    with open_lab(home, key_file) as lab:
        lab.devices.check_join(code, own_name)
        this = lab.devices.federation.create_keys()
        note(f"The fingerprint of this device is {this.fingerprint}; waiting for the other one.")
        way: AbstractContextManager[Post] = (
            nearby.ConnectedPost(address)
            if folder is None
            else pairing.FolderPost.find(shared_folder(folder))
        )
        with way as post:
            inviting = lab.devices.join(post, code, own_name)
        if folder is not None:
            lab.devices.remember_folder(shared_folder(folder))
        devices = lab.devices.list()
    if json:
        emit(devices)
    else:
        say(f"Joined {inviting.name} ({inviting.device_id}); run `aico-lab federate sync` next.")


@device.command("leave")
def device_leave(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """End the federation of a home that is alone in it, so that it can join another; rows stay."""
    with open_lab(home, key_file) as lab:
        folder = lab.devices.folder
        is_clear = lab.devices.leave()
    if json:
        emit({"left": True, "folder": None if is_clear else str(folder)})
        return
    say(
        "This home is in no federation now, and keeps all its rows; "
        "`aico-lab device join` joins one."
    )
    if not is_clear:
        note(f"Its bundles are still in {folder}: delete them, or let the devices use another one.")


@device.command("policy")
def device_policy(
    name: DeviceArgument,
    classes: Annotated[
        list[str],
        typer.Argument(
            metavar="CLASS=full|none...",
            help="The classes to hold or not: conversations, summaries, memories, personality.",
        ),
    ],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Choose the classes of rows that a device holds; it keeps what it has, and its keys.

    To keep a class away from a new device, add it with `device add --policy`.
    """
    policy = read_pairs(classes, "The policy")
    with open_lab(home, key_file) as lab:
        found = lab.devices.find(name)
        lab.devices.federation.set_policy(found.device_id, **policy)  # type: ignore[arg-type]
        found = lab.devices.find(found.device_id)
        without = sorted({*lab.devices.federation.replica.classes} - {*found.classes})
    if json:
        emit(found)
        return
    say(
        f"{found.name} holds {', '.join(found.classes)}"
        + (f", and not {', '.join(without)}" if without else "")
        + ", from the next exchange on."
    )
    if missing := [class_ for class_ in without if policy.get(class_) == "full"]:
        note(f"Its rows of {', '.join(missing)} refer to a class that it does not hold.")
    if without:
        note("It keeps what it has, and can read what was sent until now, also if it comes later.")


@device.command("rename")
def device_rename(
    name: DeviceArgument,
    new: Annotated[str, typer.Argument(metavar="NAME", help="The new name.")],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Change the name of a device, on all devices."""
    with open_lab(home, key_file) as lab:
        found = lab.devices.find(name)
        lab.devices.federation.rename(found.device_id, new)
        found = lab.devices.find(found.device_id)
    if json:
        emit(found)
    else:
        say(f"{name} is {found.name} now.")


@device.command("revoke")
def device_revoke(
    name: DeviceArgument,
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Trust a device no longer; it keeps what it has, and gets nothing new."""
    with open_lab(home, key_file) as lab:
        found = lab.devices.find(name)
        lab.devices.federation.revoke(found.device_id)
        found = lab.devices.find(found.device_id)
    if json:
        emit(found)
    else:
        say(f"{found.name} is revoked; the others learn of it by `aico-lab federate sync`.")


def _show_code(code: str, way: str) -> None:
    note(f"Run on the other device, within 10 minutes: aico-lab device join {code} {way}")


def _ask(name: str, keys: DeviceKeys, left_out: list[str], *, receive_only: bool) -> bool:
    what = f"everything but {', '.join(left_out)}" if left_out else "everything"
    question = f"Let {name} only receive {what}?" if receive_only else f"Trust {name} with {what}?"
    return typer.confirm(f"{question} Its fingerprint is {keys.fingerprint}.", err=True)


def _machine() -> str:
    return platform.node() or "device"


def _described(one: FederatedDevice, width: int, classes: set[str]) -> str:
    trust = ("revoked", "receives only", "trusted")[one.trust_level]
    this = ", this device" if one.is_this else ""
    without = ", ".join(sorted(classes.difference(one.classes)))
    held = f"without {without}" if without else "holds everything"
    return f"{one.device_id}  {one.name:<{width}}  {trust}{this}, {held}"
