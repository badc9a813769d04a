"""`aico-lab schedule`: run pipelines at their times, and tell what was missed."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from aico_lab.cli import completion
from aico_lab.cli.common import (
    HomeOption,
    JsonOption,
    KeyFileOption,
    ask_passphrase,
    home_of,
    open_lab,
)
from aico_lab.cli.output import Bar, emit, note, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.lab import Lab
    from aico_lab.pipeline.lab_schedules import ScheduledRun, ScheduleState
    from aico_lab.pipeline.system_jobs import SystemJob

schedule = typer.Typer(
    help="Run pipelines at their times, and tell what was missed.",
    no_args_is_help=True,
)

ShellOption = Annotated[
    bool, typer.Option("--allow-shell", help="Allow steps that are commands of the shell.")
]
KeyringOption = Annotated[
    bool, typer.Option("--keyring", help="Take the passphrase from the system's keyring.")
]
SystemOption = Annotated[
    Literal["systemd", "launchd", "cron", "windows"] | None,
    typer.Option(help="The scheduler; by default that of this operating system."),
]

_SECONDS: Final = 60.0
"""The time between two looks at the schedules."""

_DATE_AND_MINUTE: Final = 16


@schedule.command("tick")
def schedule_tick(
    name: Annotated[
        str | None,
        typer.Argument(
            help="The only pipeline to look at; by default all of the home.",
            autocompletion=completion.pipelines,
        ),
    ] = None,
    *,
    force: Annotated[
        bool,
        typer.Option("--force", help="Run NAME for its last time, even if it has run for it."),
    ] = False,
    keyring: KeyringOption = False,
    allow_shell: ShellOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Run every pipeline that is due, once.

    A pipeline that has run for its last time is not run again.
    """
    with open_lab(home, key_file, keyring=keyring) as lab, Bar("steps") as bar:
        done = lab.schedules.tick(name, force=force, allow_shell=allow_shell, on_step=bar.show)
    if json:
        emit(done)
    else:
        _say_runs(done)
    if any(one.status == "failed" for one in done):
        raise typer.Exit(1)


@schedule.command("run")
def schedule_run(
    *,
    allow_shell: ShellOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Run every pipeline when it is due, until the process is ended.

    SIGTERM and Control-C end it; a run that goes on is recorded as interrupted, and begun again by
    the next process.
    """
    passphrase = ask_passphrase(home, key_file=key_file)

    def open_home() -> Lab:
        from aico_lab.lab import Lab

        return Lab.open(home, key_file=key_file, passphrase=passphrase)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Control-C
    try:
        _keep_looking(open_home, allow_shell=allow_shell)
    except KeyboardInterrupt:
        note("The scheduler has ended.")
    finally:
        signal.signal(signal.SIGTERM, before)


def _keep_looking(open_home: Callable[[], Lab], *, allow_shell: bool) -> None:
    """Look at the schedules of a home every minute, also after errors of the home."""
    from aico_lab.errors import AicoLabError

    lab: Lab | None = open_home()  # an error at the start ends the process
    said: set[str] = set()
    try:
        while True:
            try:
                lab = lab or open_home()
                done = lab.schedules.tick(allow_shell=allow_shell)
            except AicoLabError as error:  # the home may come back, as on a disk
                if lab is not None:
                    lab.close()
                lab, done, faults = None, [], {str(error)}
            else:
                faults = {str(one.error) for one in done if one.run_id is None}
            _say_runs([one for one in done if one.run_id is not None])
            for fault in sorted(faults - said):  # which stays until somebody mends it: say it once
                note(fault)
            said = faults
            time.sleep(_SECONDS - time.time() % _SECONDS)
    finally:
        if lab is not None:
            lab.close()


def _say_runs(runs: list[ScheduledRun]) -> None:
    for one in runs:
        at = f" for {_minute(one.period)} UTC" if one.period else ""
        run = f", run {one.run_id}" if one.run_id else ""
        say(f"{one.pipeline:<12} {one.status}{at}{run}")
        if one.error:
            note(one.error)


@schedule.command("list")
def schedule_list(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """List next and last runs, and what was missed."""
    states = _states(home, key_file)
    if json:
        emit(states)
        return
    if not states:
        say("No pipeline of this home has a schedule.")
    for one in states:
        following = f"next {_minute(one.next)}" if one.next else "no next time"
        say(f"{one.pipeline:<12} {one.schedule} ({one.timezone}), {following}")
        if one.last:
            say(f"    last run {_minute(one.last.started_at)} UTC: {one.last.status}")
        for lost in one.missed:
            say(f"    missed: {lost.error}")
        for problem in one.problems:
            say(f"    {problem}")


@schedule.command("status")
def schedule_status(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Tell what is overdue, was missed or failed last.

    For monitoring: one sentence for each problem, and the exit code is 1 if there is one.
    """
    problems = [problem for one in _states(home, key_file) for problem in one.problems]
    if json:
        emit(problems)
    else:
        for problem in problems:
            say(problem)
    if problems:
        raise typer.Exit(1)


def _states(home: Path | None, key_file: Path | None) -> list[ScheduleState]:
    with open_lab(home, key_file) as lab:
        return lab.schedules.states()


@schedule.command("install")
def schedule_install(
    *,
    show: Annotated[
        bool, typer.Option("--print", help="Print the files, and change nothing.")
    ] = False,
    system: SystemOption = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="The file that systemd hands over as the passphrase of the home."),
    ] = None,
    keyring: KeyringOption = False,
    allow_shell: ShellOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Let the operating system run what is due.

    It looks every five minutes, by a job of the person: a user timer of systemd, an agent of
    launchd, a line of the crontab, or a task of Windows. No key is in it.
    """
    job = _job(
        system,
        home,
        key_file=key_file,
        passphrase_file=passphrase_file,
        keyring=keyring,
        allow_shell=allow_shell,
        checked=True,
    )
    if show:
        if json:
            emit(_described(job))
        else:
            say(job.text().rstrip("\n"))
        return
    from aico_lab.pipeline.system_jobs import install

    if keyring:
        _check_keyring(home)
    install(job)
    if json:
        emit(_described(job))
    else:
        say(f"Installed {job.name}.")


@schedule.command("uninstall")
def schedule_uninstall(
    *, system: SystemOption = None, home: HomeOption = None, json: JsonOption = False
) -> None:
    """Remove the job of the operating system again."""
    from aico_lab.pipeline.system_jobs import uninstall

    job = _job(system, home)
    found = uninstall(job)
    if json:
        emit({"name": job.name, "removed": found})
    else:
        say(f"Removed {job.name}." if found else f"There was no job {job.name}.")


def _job(
    system: Literal["systemd", "launchd", "cron", "windows"] | None,
    home: Path | None,
    *,
    key_file: Path | None = None,
    passphrase_file: Path | None = None,
    keyring: bool = False,
    allow_shell: bool = False,
    checked: bool = False,
) -> SystemJob:
    """Return the job of a home; `checked` for one that must be able to open it."""
    from aico_lab.config import Settings, usual_key_file
    from aico_lab.errors import InvalidValue
    from aico_lab.home.keys import kinds_of
    from aico_lab.pipeline.system_jobs import job_for, usual_system

    system = system or usual_system()
    folder = home_of(home)
    if not checked:
        return job_for(system, folder.path)
    marker = folder.read_marker()
    kinds = kinds_of(marker)
    opener: dict[str, Any] = {}
    if keyring and not kinds & {"passphrase", "keyring"}:
        raise InvalidValue(f"{folder.path} is not opened by a passphrase: leave out --keyring.")
    if keyring and passphrase_file is not None:
        raise InvalidValue("Use only one of --keyring and --passphrase-file.")
    named = Settings.resolve(home=home, key_file=key_file).key_file
    if keyring:
        opener["keyring"] = True
    elif (passphrase_file is None or "passphrase" not in kinds) and (
        "key-file" in kinds or ("credential" in kinds and named)
    ):
        opener["key_file"] = named or usual_key_file(str(marker.get("home_id")))
    elif "passphrase" in kinds and system != "systemd":
        raise InvalidValue(
            f"{system} would show the passphrase of the home: let the job take it from the keyring "
            "(`aico-lab keyring add`, then --keyring), keep `aico-lab schedule run` running with "
            "AICO_LAB_PASSPHRASE, or make a home with a key file."
        )
    elif "passphrase" in kinds:
        if passphrase_file is None:
            raise InvalidValue(
                "Name the file with the passphrase of the home (--passphrase-file), or let the job "
                "take it from the keyring (`aico-lab keyring add`, then --keyring)."
            )
        opener["passphrase_file"] = passphrase_file.expanduser().absolute()
    return job_for(system, folder.path, allow_shell=allow_shell, **opener)


def _check_keyring(home: Path | None) -> None:
    """Raise an error if the passphrase in the keyring does not open a home."""
    from aico_lab.config import Settings
    from aico_lab.home.keys import open_keys
    from aico_lab.home.os_keyring import with_keyring

    folder = home_of(home)
    marker = folder.read_marker()
    open_keys(marker, with_keyring(Settings(folder.path, keyring=True), marker))


def _described(job: SystemJob) -> dict[str, Any]:
    text = job.text()
    return {"name": job.name, "files": [str(path) for path in job.files], "text": text}


def _minute(text: str) -> str:
    return datetime.fromisoformat(text[:_DATE_AND_MINUTE]).strftime("%Y-%m-%d %H:%M")
