"""`aico-lab backup` and `aico-lab restore`: copy a home into an encrypted file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aico_lab.cli.common import (
    ForceOption,
    HomeOption,
    JsonOption,
    KeyFileOption,
    open_lab,
    refuse_existing,
)
from aico_lab.cli.output import emit, note, say

IdentityOption = Annotated[
    Path | None,
    typer.Option(help="The file with the identity of a recipient of the backup."),
]


def backup(
    path: Annotated[
        Path,
        typer.Argument(help="The file to write, or a folder, where later backups hold changes."),
    ],
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check this backup instead of writing one.")
    ] = False,
    recipient: Annotated[
        str | None,
        typer.Option(
            help="An age recipient who can open this and all later backups; 'new' makes one, and "
            "prints its identity once."
        ),
    ] = None,
    identity: IdentityOption = None,
    force: ForceOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Write an encrypted backup of the home, and check it.

    Others can use the home meanwhile.
    """
    from dataclasses import asdict

    from aico_lab.errors import InvalidValue

    if verify and recipient:
        raise InvalidValue("Use only one of --verify and --recipient.")
    if identity and not verify:
        raise InvalidValue("--identity is for --verify: a backup is written without one.")
    if not verify and not path.is_dir():
        refuse_existing(path, force=force)
    with open_lab(home, key_file) as lab:
        new = None
        if recipient:
            new = lab.backups.add_recipient(recipient)
            if new and not json:
                say(f"The identity of the backups is {new}")
                say("Keep it elsewhere: it opens them without the home's key, and is not stored.")
        try:
            done = lab.backups.check(path, identity=identity) if verify else lab.backups.write(path)
        except BaseException:
            if new and json:
                note(f"The identity of later backups is {new}: keep it, it is not stored.")
            raise
    if json:
        emit({**asdict(done), "identity": new})
        return
    size = f"{done.bytes / 1e6:,.1f} MB"
    what = "only what changed" if done.kind == "changes" else "the whole home"
    say(f"{done.path}: {what}, {done.rows:,} rows, {size}; opened and compared.")


def restore(
    path: Annotated[Path, typer.Argument(help="The backup, or a folder for the newest one in it.")],
    *,
    identity: IdentityOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the database of an existing home.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace it even if it has changes that the backup lacks."),
    ] = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Restore a backup into a new home, or the home that it is of."""
    import sys

    from aico_lab.backup.container import newest_in, read_heading
    from aico_lab.backup.restoring import restore as restore_backup
    from aico_lab.config import Settings, usual_key_file
    from aico_lab.home.keys import kinds_of

    settings = Settings.resolve(home=home, key_file=key_file)
    if not settings.passphrase and not settings.key_file and not settings.keyring and not identity:
        heading = read_heading(newest_in(path.expanduser()))
        may_type = kinds_of(heading.marker) & {"passphrase", "recovery"}
        if may_type and sys.stdin.isatty() and not usual_key_file(heading.home_id).exists():
            secret = str(typer.prompt("Passphrase", hide_input=True, err=True))
            settings = Settings.resolve(home=home, passphrase=secret)
    done = restore_backup(path, settings, identity_file=identity, consent=replace, force=force)
    if json:
        emit(done)
        return
    say(
        f"Restored {done.rows:,} rows and {len(done.files):,} files of {done.made_at[:16]} UTC "
        f"into {done.home}: run `aico-lab sync` next."
    )
    if done.replaced:
        say(f"The former database is {done.replaced}.")
    if done.warning:
        note(done.warning)
    if done.key_file:
        say(f"The key of the home is {done.key_file}: back it up.")
    if done.differing:
        note(
            f"{len(done.differing):,} files of the home differ from the backup and stay as they "
            f"are, such as {done.differing[0]}."
        )
