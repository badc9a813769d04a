"""Jobs of the operating system that look at the schedules of a home every five minutes.

A job knows no schedule: `aico-lab schedule tick` finds what is due, and a run is recorded with its
time. So time zones, clock changes and sleep need no support of the operating system.
"""

from __future__ import annotations

import hashlib
import os
import plistlib
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from xml.sax.saxutils import escape

from aico_lab.config import PASSPHRASE_CREDENTIAL, config_folder
from aico_lab.errors import InvalidValue, SchedulerRefused
from aico_lab.home.files import os_errors, write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

System = Literal["systemd", "launchd", "cron", "windows"]

MINUTES: Final = 5
_NO_CRONTAB: Final = "no crontab"


@dataclass(frozen=True, slots=True)
class SystemJob:
    """The job of one home for one scheduler of an operating system.

    Attributes:
        name: The name of the job, which tells homes apart.
        files: The files to write; the line of a crontab has no file.
        line: The line of a crontab, or ''.
        on: The commands that start the job.
        off: The commands that end it, before its files are removed.
        after: The commands after the removal of its files.
    """

    name: str
    files: dict[Path, bytes] = field(default_factory=dict)
    line: str = ""
    on: tuple[tuple[str, ...], ...] = ()
    off: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()

    def text(self) -> str:
        """Return the files, or the line, to read."""
        if self.line:
            return f"{self.line}\n"
        return "\n".join(
            f"# {path}\n{content.decode('utf-16' if path.suffix == '.xml' else 'utf-8')}"
            for path, content in self.files.items()
        )


def usual_system() -> System:
    """Return the scheduler that this operating system has."""
    if sys.platform == "win32":
        return "windows"
    if sys.platform == "darwin":
        return "launchd"
    return "systemd" if Path("/run/systemd/system").is_dir() else "cron"


def job_for(
    system: System,
    home: Path,
    *,
    key_file: Path | None = None,
    passphrase_file: Path | None = None,
    keyring: bool = False,
    allow_shell: bool = False,
) -> SystemJob:
    """Return the job that looks at the schedules of a home. No key is in it.

    Args:
        system: The scheduler.
        home: The home.
        key_file: Its key file, whose path is named; or None.
        passphrase_file: The file that systemd hands over as a credential; or None.
        keyring: Whether the job takes the passphrase from the keyring.
        allow_shell: Whether the pipelines may run commands of the shell.

    Raises:
        InvalidValue: A path has a line break.
    """
    command = [sys.executable, "-P", "-m", "aico_lab", "schedule", "tick", "--home", str(home)]
    if key_file is not None:
        command += ["--key-file", str(key_file)]
    if keyring:
        command.append("--keyring")
    if allow_shell:
        command.append("--allow-shell")
    for word in [*command, str(passphrase_file)]:
        if not word.isprintable():
            raise InvalidValue(f"The path {word!r} cannot be named in a job: rename it.")
    name = f"aico-lab-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"
    match system:
        case "systemd":
            return _systemd(name, home, command, passphrase_file)
        case "launchd":
            return _launchd(name, command)
        case "cron":
            return _cron(name, command)
        case "windows":
            return _windows(name, home, command)


def install(job: SystemJob) -> None:
    """Write the files of a job and start it; a job of the same home is replaced.

    Raises:
        SchedulerRefused: A command of the operating system failed.
        HomeNotWritable: A file cannot be written.
    """
    if any(path.exists() for path in job.files):
        for command in job.off:
            _call(command, may_fail=True)
    for path, content in job.files.items():
        with os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
    if job.line:
        _write_crontab(job, [job.line])
    for command in job.on:
        _call(command)


def uninstall(job: SystemJob) -> bool:
    """End a job, remove its files, and return whether there was one.

    Raises:
        SchedulerRefused: The crontab cannot be written.
    """
    if job.line:
        return _write_crontab(job, [])
    found = any(path.exists() for path in job.files)
    for command in job.off if found else ():
        _call(command, may_fail=True)  # the job may have been ended by hand
    for path in job.files:
        with os_errors(path):
            path.unlink(missing_ok=True)
    for command in job.after if found else ():
        _call(command, may_fail=True)
    return found


def _call(command: Sequence[str], *, may_fail: bool = False, given: str | None = None) -> str:
    """Run a command of the operating system and return its output."""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            command, input=given, capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        if may_fail:
            return ""
        raise SchedulerRefused(
            f"`{shlex.join(command)}` could not be run ({type(error).__name__}): use another "
            "--system, or keep `aico-lab schedule run` running."
        ) from error
    if done.returncode and not may_fail and _NO_CRONTAB not in done.stderr:
        said = " ".join(done.stderr.split())[:200]
        raise SchedulerRefused(f"`{shlex.join(command)}` failed: {said or done.returncode}.")
    return done.stdout


def _systemd(name: str, home: Path, command: list[str], passphrase_file: Path | None) -> SystemJob:
    folder = config_folder().parent / "systemd" / "user"
    about = _for_systemd(f"The schedules of {home}")
    # SIGINT ends a run as Control-C does, so that it is recorded as interrupted.
    credential = (
        ""
        if passphrase_file is None
        else f"LoadCredential={PASSPHRASE_CREDENTIAL}:{_for_systemd(str(passphrase_file))}\n"
    )
    timer = f"""\
[Unit]
Description={about}

[Timer]
OnCalendar=*:0/{MINUTES}
AccuracySec=15s

[Install]
WantedBy=timers.target
"""
    service = f"""\
[Unit]
Description={about}

[Service]
Type=oneshot
ExecStart={" ".join(_quoted_for_systemd(word) for word in command)}
{credential}KillSignal=SIGINT
KillMode=mixed
"""
    return SystemJob(
        name,
        {
            folder / f"{name}.timer": timer.encode(),
            folder / f"{name}.service": service.encode(),
        },
        on=(
            ("systemctl", "--user", "daemon-reload"),
            ("systemctl", "--user", "enable", "--now", f"{name}.timer"),
        ),
        off=(("systemctl", "--user", "disable", "--now", f"{name}.timer"),),
        after=(("systemctl", "--user", "daemon-reload"),),
    )


def _for_systemd(text: str) -> str:
    return text.replace("%", "%%")


def _quoted_for_systemd(word: str) -> str:
    """Return a word of a command, in which systemd replaces neither specifiers nor variables."""
    text = _for_systemd(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"'


def _launchd(name: str, command: list[str]) -> SystemJob:
    label = f"dev.{name}"
    path = Path.home() / "Library" / "LaunchAgents" / f"{label}.plist"
    log = str(Path.home() / "Library" / "Logs" / f"{name}.log")
    job = {
        "Label": label,
        "ProgramArguments": command,
        "RunAtLoad": True,
        # Times that passed while the machine slept start the job once when it wakes.
        "StartCalendarInterval": [{"Minute": minute} for minute in range(0, 60, MINUTES)],
        "ProcessType": "Background",
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    domain = f"gui/{os.getuid() if hasattr(os, 'getuid') else 0}"
    return SystemJob(
        name,
        {path: plistlib.dumps(job, sort_keys=False)},
        on=(("launchctl", "bootstrap", domain, str(path)),),
        off=(("launchctl", "bootout", f"{domain}/{label}"),),
    )


def _cron(name: str, command: list[str]) -> SystemJob:
    words = shlex.join(command).replace("%", r"\%")  # a bare % would end the command
    return SystemJob(name, line=f"*/{MINUTES} * * * * {words} # {name}")


def _write_crontab(job: SystemJob, lines: list[str]) -> bool:
    """Replace the line of a job in the crontab, and return whether there was one."""
    before = _call(("crontab", "-l")).splitlines()
    others = [line for line in before if not line.endswith(f"# {job.name}")]
    if others + lines != before:
        _call(("crontab", "-"), given="".join(f"{line}\n" for line in others + lines))
    return len(others) < len(before)


def _windows(name: str, home: Path, command: list[str]) -> SystemJob:
    program, arguments = command[0], subprocess.list2cmdline(command[1:])
    text = f"""\
<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>{escape(f"aico-lab: the schedules of {home}")}</Description>
  </RegistrationInfo>
  <Triggers>
    <TimeTrigger>
      <StartBoundary>2000-01-01T00:00:00</StartBoundary>
      <Repetition>
        <Interval>PT{MINUTES}M</Interval>
      </Repetition>
    </TimeTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <StartWhenAvailable>true</StartWhenAvailable>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{escape(program)}</Command>
      <Arguments>{escape(arguments)}</Arguments>
    </Exec>
  </Actions>
</Task>
"""
    file = config_folder() / f"{name}.xml"
    return SystemJob(
        name,
        {file: text.encode("utf-16")},
        on=(("schtasks", "/Create", "/F", "/TN", name, "/XML", str(file)),),
        off=(("schtasks", "/Delete", "/F", "/TN", name),),
    )
