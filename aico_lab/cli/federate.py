"""`aico-lab federate`: exchange changes with the person's other devices."""

from __future__ import annotations

import re
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

import typer

from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, open_lab
from aico_lab.cli.device import FolderOption
from aico_lab.cli.output import Bar, emit, note, say, show
from aico_lab.cli.streams import flush
from aico_lab.results import json_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.federation.results import FederationProof, Synced
    from aico_lab.federation.syncing import Federation

federate = typer.Typer(
    help="Exchange changes with the person's other devices.", no_args_is_help=True
)

_PAUSE: Final = 30.0  # seconds between two exchanges of `--watch`
_SHOWN: Final = 10  # of the files that were refused


@federate.command("sync")
def federate_sync(
    *,
    folder: FolderOption = None,
    lan: Annotated[
        bool, typer.Option("--lan", help="Look for devices in the local network first.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="The HOST:PORT of a device that serves.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Exchange changes every 30 s, until Control-C.")
    ] = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Send what changed here, and take in what changed elsewhere."""
    from aico_lab.errors import AicoLabError, FolderUnusable, InvalidValue

    if watch and json:
        raise InvalidValue("Use only one of --watch and --json.")
    with open_lab(home, key_file) as lab:
        federation = lab.devices.federation
        tell: Callable[[str], None] = note
        said = ""
        noticed: list[str] = []
        while True:
            try:
                try:
                    with Bar("steps") as bar:
                        done = lab.devices.sync(
                            folder=folder, lan=lan, address=address, tell=tell, progress=bar.show
                        )
                finally:  # also if something fails after an erasure
                    _report_erasures(federation)
                notices = _notices(done)
                for sentence in notices:
                    if sentence not in noticed:  # at the last exchange of `--watch`
                        note(sentence)
                noticed = notices
                if json:
                    emit(done)
                else:
                    _report(done)
                # The folder is remembered, and why only it was used has been said.
                folder, tell, said = None, lambda _: None, ""
            except AicoLabError as error:
                # A folder of a cloud drive or a stick may be away for a while, and a program that
                # keeps an erasure from being finished may run for one.
                may_pass = error.transient or (
                    isinstance(error, FolderUnusable) and error.__cause__ is not None
                )
                if not (watch and may_pass):
                    raise
                if str(error) != said:
                    note(str(error))
                said = str(error)
            if not watch:
                return
            flush()  # else a pipe or a file would get it much later
            time.sleep(_PAUSE)


@federate.command("serve")
def federate_serve(
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; by default a free one.")
    ] = 0,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Exchange changes with devices of the local network that ask, until Control-C."""
    from aico_lab.federation import lan, nearby

    with open_lab(home, key_file) as lab:
        federation = lab.devices.federation

        def tell(sentence: str) -> None:
            _report_erasures(federation)
            note(sentence)

        server = lan.BundleServer(federation, port)
        with server, nearby.announced(nearby.BUNDLES, server.port) as is_announced:
            note(f"Serving at {nearby.own_address()}:{server.port} (Control-C stops).")
            if not is_announced:
                note("Other devices need this address: federate sync --address HOST:PORT.")
            server.run(lambda _: _report_erasures(federation), tell)


@federate.command("status")
def federate_status(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Show what was exchanged, what is missing or waits, and which stores are behind."""
    from aico_lab.federation.overview import labels
    from aico_lab.health import stores_behind
    from aico_lab.metrics.engine.claims import counted

    with open_lab(home, key_file) as lab:
        _ = lab.devices.federation.federation_id
        status = lab.devices.federation.status()
        behind = stores_behind(lab)
        holds_everything = lab.devices.federation.replica.holds_everything
    if json:
        emit({**{f.name: getattr(status, f.name) for f in fields(status)}, "behind": behind})
        return
    width = max(len(one.name) for one in status.devices)
    for one in status.devices:
        what = "written" if one.is_this else "taken in"
        last = f", the last {_moment(one.last_bundle_at)}" if one.last_bundle_at else ""
        revoked = "" if one.trust_level else ", revoked"
        bundles = counted(one.bundles, "bundles")
        show(f"{one.device_id}  {one.name:<{width}}  {bundles} {what}{last}{revoked}")
    names = labels(status.devices)
    for gap in status.missing:
        numbers = f"{gap.first} to {gap.last}" if gap.last > gap.first else f"{gap.first}"
        show(f"missing: {numbers} of {names.get(gap.device_id, '')} (stream {gap.stream})")
    for title, rows in (
        ("waiting", status.waiting),
        ("refused", status.refused),
        ("parked", status.parked),
        ("cannot be sent", status.unsendable),
    ):
        for row in rows:
            show(f"{title}: {' '.join(row)}")
    for file, reason in status.foreign[:_SHOWN]:
        show(f"not of the devices: {file} ({reason})")
    if len(status.foreign) > _SHOWN:
        show(f"not of the devices: {len(status.foreign) - _SHOWN:,} more files of the folder")
    if status.conflicts:
        say(f"{counted(status.conflicts, 'conflicts')}: see `aico-lab federate conflicts`.")
    say(
        "The other devices trust this one no longer: its changes go nowhere until one of them "
        "adds it again."
        if status.is_revoked
        else "This device only receives: its own changes stay here."
        if status.receives_only
        else "Changes wait for `aico-lab federate sync`."
        if status.unsent
        else "All changes of this device are in bundles."
        if holds_everything
        else "All changes of this device are in bundles, but for those of classes that it does not "
        "hold, which stay here."
    )
    if behind:
        say(f"Not up to date: {', '.join(behind)}; `aico-lab sync` brings them up to date.")


@federate.command("verify")
def federate_verify(
    *,
    with_: Annotated[
        Path | None,
        typer.Option(
            "--with", help="A file with the output of `federate verify --json` of another device."
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Send rows that differ with the next exchange.")
    ] = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Compare the rows with what was exchanged, and with another device."""
    from aico_lab.federation.lab_devices import read_proof

    other = None if with_ is None else read_proof(with_)
    with open_lab(home, key_file) as lab:
        folder = lab.devices.folder
        if folder is not None and not folder.is_dir():
            note(f"{folder} is not there, so that its files were not compared.")
            folder = None
        found = lab.devices.federation.verify(with_=other, repair=repair, folder=folder)
    differing = found.verified.differing
    if json:
        emit(found)
    else:
        _show_verified(found, is_compared=other is not None)
    is_damaged = any(not file.is_repaired for file in found.damaged)
    if found.buckets or is_damaged or (differing and not repair):
        raise typer.Exit(1)


@federate.command("conflicts")
def federate_conflicts(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """List rows that two devices changed without knowing of each other."""
    from aico_lab.federation.overview import labels

    with open_lab(home, key_file) as lab:
        _ = lab.devices.federation.federation_id
        found = lab.devices.federation.conflicts()
        names = labels(lab.devices.list())
    if json:
        emit(found)
        return
    for one in found:
        gone = (
            " was deleted by a device without this version"
            if one.kind == "deleted" and not one.kept
            else ""
        )
        show(f"{one.number}  {one.table} {one.key}{gone}")
        for column in sorted(one.lost.keys() | one.kept.keys()):
            kept, lost = one.kept.get(column), one.lost.get(column)
            if kept != lost:
                is_kept = "" if gone else f"{_value(kept)} is kept, "
                show(f"   {column}: {is_kept}{_value(lost)} lost "
                     f"({names.get(one.device_id, one.device_id)})")  # fmt: skip
    if not found:
        say("There is no conflict.")


@federate.command("resolve")
def federate_resolve(
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="N...", help="The numbers of the conflicts.")
    ] = None,
    *,
    all_: Annotated[
        bool, typer.Option("--all", help="Decide all conflicts that this device can decide.")
    ] = False,
    keep: Annotated[
        str,
        typer.Option(
            help="The version to keep: mine, theirs, or a JSON file with the values of columns, "
            "for one conflict. Of two other devices' versions, mine is the one that is kept until "
            "now."
        ),
    ],
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Decide conflicts, on all devices."""
    from aico_lab.errors import InvalidValue
    from aico_lab.federation.lab_devices import read_values
    from aico_lab.metrics.engine.claims import counted

    if bool(numbers) == all_:
        raise InvalidValue("Name the conflicts to decide, or use --all.")
    if keep not in ("mine", "theirs"):
        if all_ or len(numbers or []) != 1:
            raise InvalidValue("Several conflicts are decided by mine or theirs, not by a file.")
        if not Path(keep).expanduser().exists():
            raise InvalidValue(
                f"--keep takes mine, theirs, or a JSON file, and there is no file {keep!r}."
            )
    with open_lab(home, key_file) as lab:
        federation = lab.devices.federation
        before = [one.number for one in federation.conflicts()]
        undecided: dict[int, str] = {}
        if all_:
            undecided = federation.resolve_all(cast("Literal['mine', 'theirs']", keep))
        else:
            values = keep if keep in ("mine", "theirs") else read_values(Path(keep))
            federation.resolve(numbers or [], values)
        left = federation.conflicts()
    for number, reason in undecided.items():
        note(f"Conflict {number} is left: {reason}")
    resolved = sorted({*before} - {one.number for one in left})
    if json:
        emit({"resolved": resolved, "left": len(left)})
        return
    say(f"{counted(len(resolved), 'conflicts')} resolved; {counted(len(left), 'conflicts')} left.")
    if resolved:
        say("`aico-lab federate sync` tells the other devices.")
    if any(one.is_for_others for one in left):
        say("Some are of rows that this device does not send: decide them on another device.")


@federate.command("compact")
def federate_compact(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Replace all bundles by new ones without changed and erased texts."""
    from aico_lab.metrics.engine.claims import counted

    with open_lab(home, key_file) as lab:
        try:
            done = lab.devices.compact()
        finally:
            _report_erasures(lab.devices.federation)
    if json:
        emit(done)
        return
    say(
        f"{counted(done.bundles, 'bundles')} with {counted(done.rows, 'rows')} replace "
        f"{done.replaced:,}: "
        f"{done.before:,} bytes before, {done.after:,} now."
        if done.replaced
        else "Nothing was exchanged since the last time."
    )


@federate.command("log")
def federate_log(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """List what happened between the devices, the newest last."""
    from aico_lab.federation.overview import labels

    with open_lab(home, key_file) as lab:
        _ = lab.devices.federation.federation_id
        entries = lab.devices.federation.log()
        names = labels(lab.devices.list())
    if json:
        emit(entries)
        return

    def named(text: str) -> str:
        return re.sub(r"\b[0-9a-f]{16}\b(?!\.)", lambda id_: names.get(id_[0], id_[0]), text)

    subjects = [named(one.device_id or "") for one in entries]
    width = max(map(len, subjects), default=0)
    for one, subject in zip(entries, subjects, strict=True):
        line = f"{_moment(one.at)}  {one.event:<20}  {subject:<{width}}  {named(one.detail)}"
        show(line.rstrip())


def _moment(at: str) -> str:
    return f"{at[:19]}Z"


def _show_verified(found: FederationProof, *, is_compared: bool) -> None:
    from aico_lab.metrics.engine.claims import counted

    wrong = found.buckets.keys() | {table for table, _ in found.verified.differing}
    for table, count in found.verified.proof.rows.items():
        if table not in found.not_compared:
            say(f"{'FAIL' if table in wrong else 'ok  '} {table:<24} {counted(count, 'rows')}")
    for table, count in found.not_compared.items():
        say(
            f"     {table:<24} {counted(count, 'rows')}, NOT compared: only one of the devices "
            "holds them"
        )
    for table, key in found.verified.differing:
        show(f"not as exchanged: {table} {key}")
    if found.verified.repaired:
        say("These rows are sent as they are here with the next `aico-lab federate sync`.")
    for file in found.damaged:
        mended = "it is repaired, or sent again" if file.is_repaired else "no copy here is whole"
        show(f"damaged: {file.path}; {mended}")
    if is_compared:
        say(
            "The devices DIFFER."
            if found.buckets
            else f"Both devices have equal rows of {', '.join(found.compared)}."
            if found.compared
            else "Nothing was compared: the devices hold no class in common."
        )


def _notices(done: dict[str, Synced]) -> list[str]:
    """Return a sentence for each file that was damaged or refused, or that waits."""
    from aico_lab.metrics.engine.claims import counted

    found = []
    for one in done.values():
        found += [
            f"{file} was damaged on this device: it is fetched again, or sent anew."
            for file in one.exchanged.damaged
        ]
        refused = [*one.exchanged.refused, *one.taken_in.refused, *one.exchanged.foreign]
        found += [f"{file} was refused: {reason}." for file, reason in refused[:_SHOWN]]
        if len(refused) > _SHOWN:
            found.append(
                f"So were {len(refused) - _SHOWN:,} more: is it the folder of the devices alone?"
            )
        files: dict[str, list[str]] = {}
        for file, reason in one.taken_in.waiting:
            files.setdefault(reason, []).append(file)
        for reason, some in files.items():
            found.append(f"{some[0]} waits: {reason}.")
            if len(some) > 1:
                more = counted(len(some) - 1, "other files")
                found.append(f"Likewise {more}: see `aico-lab federate status`.")
    return found


def _report(done: dict[str, Synced]) -> None:
    from aico_lab.metrics.engine.claims import counted

    for way, one in done.items():
        say(
            f"{way}: {counted(one.exchanged.received, 'files')} received, "
            f"{one.exchanged.sent:,} sent; {counted(one.taken_in.rows, 'rows')} taken in, "
            f"{one.sealed.rows:,} changed here."
        )


def _report_erasures(federation: Federation) -> None:
    from aico_lab.metrics.engine.claims import counted

    while federation.erased:
        one = federation.erased.pop(0)
        rows, verb = counted(one.rows, "rows"), "was" if one.rows == 1 else "were"
        note(f"{one.name} asked for an erasure: {rows} {verb} erased here.")
        for sentence in one.left:
            note(sentence)


def _value(value: object) -> str:
    from aico_lab.federation.rows import RawText

    if isinstance(value, RawText):
        value = value.decode(errors="backslashreplace")
    return json_text(value) if isinstance(value, str | int | float | None) else repr(value)
