"""Jobs of the operating system for schedules, the process for containers, and its credentials."""

from __future__ import annotations

import json
import os
import plistlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from aico_lab.config import Settings
from aico_lab.errors import InvalidValue, SchedulerRefused
from aico_lab.lab import Lab
from aico_lab.pipeline.system_jobs import install, job_for, uninstall

ODD = Path('/srv/my %h $HOME "it\'s" & <home>\\x')
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Programs of the operating system that note how they were called; their code is in a file."""
    folder, log = tmp_path / "bin", tmp_path / "called"
    folder.mkdir()
    for name in ("systemctl", "launchctl", "schtasks"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\nexit $FAKE_CODE\n')
    (folder / "crontab").write_text(
        f'#!/bin/sh\nif [ "$1" = -l ]; then cat {tmp_path}/tab 2>/dev/null || '
        f'{{ echo "no crontab for me" >&2; exit 1; }}; else cat > {tmp_path}/tab; fi\n'
    )
    for file in folder.iterdir():
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_CODE", "0")
    return lambda: log.read_text().splitlines() if log.exists() else []


def words_after(text: str) -> list[str]:
    """Return the words of ExecStart= as systemd reads them."""
    line = next(one for one in text.splitlines() if one.startswith("ExecStart="))
    quoted = line.removeprefix("ExecStart=").strip('"').split('" "')
    return [
        word.replace("$$", "$").replace('\\"', '"').replace("\\\\", "\\").replace("%%", "%")
        for word in quoted
    ]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_accepts_the_units(tmp_path):
    home = tmp_path / 'a "home" of 5% $ome'
    job = job_for("systemd", home, passphrase_file=tmp_path / "50%", allow_shell=True)
    for path, content in job.files.items():
        (tmp_path / path.name).write_bytes(content)
    checked = subprocess.run(
        ["systemd-analyze", "--user", "verify", *(str(tmp_path / path.name) for path in job.files)],
        capture_output=True, text=True, check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    assert (checked.returncode, checked.stderr) == (0, "")
    calendar = subprocess.run(
        ["systemd-analyze", "calendar", "*:0/5"], capture_output=True, text=True, check=False
    )
    assert "*-*-* *:00/5:00" in calendar.stdout


def test_the_command_of_a_systemd_unit_is_that_of_this_python():
    job = job_for("systemd", ODD, key_file=Path("/k"), allow_shell=True)
    timer, service = (content.decode() for content in job.files.values())
    assert words_after(service) == [
        sys.executable, "-P", "-m", "aico_lab", "schedule", "tick", "--home", str(ODD),
        "--key-file", "/k", "--allow-shell",
    ]  # fmt: skip
    assert "OnCalendar=*:0/5" in timer
    assert "LoadCredential" not in service


def test_launchd_reads_the_agent():
    ((path, content),) = job_for("launchd", ODD).files.items()
    agent = plistlib.loads(content)
    assert path.name == f"{agent['Label']}.plist"
    assert agent["ProgramArguments"][-2:] == ["--home", str(ODD)]
    assert [one["Minute"] for one in agent["StartCalendarInterval"]] == list(range(0, 60, 5))


def test_windows_reads_the_task():
    (content,) = job_for("windows", ODD).files.values()
    task = ET.fromstring(content)  # noqa: S314 - our own
    assert task.find(f".//{TASK}Command").text == sys.executable
    arguments = task.find(f".//{TASK}Arguments").text
    assert arguments == subprocess.list2cmdline(
        ["-P", "-m", "aico_lab", "schedule", "tick", "--home", str(ODD)]
    )
    assert task.find(f".//{TASK}Interval").text == "PT5M"
    assert task.find(f".//{TASK}StartWhenAvailable").text == "true"


def test_a_shell_reads_the_line_of_a_crontab():
    line = job_for("cron", ODD).line
    assert line.startswith("*/5 * * * * ")
    command = line.removeprefix("*/5 * * * * ").replace(r"\%", "%")  # as cron does
    said = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines()[-1] == str(ODD)


def test_a_path_with_a_line_break_is_refused():
    with pytest.raises(InvalidValue, match="rename it"):
        job_for("cron", Path("/a\nb"))


@pytest.mark.usefixtures("lab")
def test_systemds_timer_is_installed_and_removed(cli, home, commands):
    shown = cli("schedule", "install", "--system", "systemd", "--print")
    assert "OnCalendar=*:0/5" in shown.stdout
    assert f'"--home" "{home}"' in shown.stdout
    assert commands() == []
    assert cli("schedule", "install", "--system", "systemd").returncode == 0
    unit = job_for("systemd", home).name
    files = [*job_for("systemd", home).files]
    assert all(path.is_file() for path in files)
    assert commands() == [
        "systemctl --user daemon-reload", f"systemctl --user enable --now {unit}.timer",
    ]  # fmt: skip
    installed = json.loads(cli("schedule", "install", "--system", "systemd", "--json").stdout)
    assert installed["files"] == [str(path) for path in files]
    keys = [path.read_text().strip() for path in home.parent.rglob("*.key")]
    assert keys
    assert not any(key in installed["text"] for key in keys)
    assert "Removed" in cli("schedule", "uninstall", "--system", "systemd").stdout
    assert not any(path.exists() for path in files)
    assert commands()[-2:] == [
        f"systemctl --user disable --now {unit}.timer", "systemctl --user daemon-reload",
    ]  # fmt: skip
    assert "no job" in cli("schedule", "uninstall", "--system", "systemd").stdout


@pytest.mark.usefixtures("commands")
def test_a_crontab_keeps_its_other_lines(tmp_path):
    tab = tmp_path / "tab"
    one, other = job_for("cron", Path("/one")), job_for("cron", Path("/other"))
    install(one)
    tab.write_text(f"MAILTO=me\n{tab.read_text()}")
    install(other)
    install(one)
    assert tab.read_text().splitlines() == ["MAILTO=me", other.line, one.line]
    assert uninstall(one)
    assert not uninstall(one)
    assert tab.read_text().splitlines() == ["MAILTO=me", other.line]


def test_without_a_scheduler_the_remedy_is_a_process(monkeypatch, tmp_path):
    """As in a container."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerRefused, match="or keep `aico-lab schedule run` running"):
        install(job_for("cron", Path("/one")))


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("system", ["launchd", "windows", "systemd"])
def test_a_scheduler_that_refuses_is_one_sentence(monkeypatch, system):
    monkeypatch.setenv("FAKE_CODE", "3")
    with pytest.raises(SchedulerRefused, match="failed: 3"):
        install(job_for(system, Path("/one")))
    monkeypatch.setenv("FAKE_CODE", "0")
    install(job_for(system, Path("/one")))
    assert uninstall(job_for(system, Path("/one")))
    assert not uninstall(job_for(system, Path("/one")))


def test_a_passphrase_is_handed_over_by_systemd_only(home, cli, tmp_path, monkeypatch):
    Lab.create(home, protection="passphrase", passphrase="a long secret").close()
    assert "--passphrase-file" in cli("schedule", "install", "--system", "systemd").stderr
    assert "would show the passphrase" in cli("schedule", "install", "--system", "cron").stderr
    file = tmp_path / "aico-lab.passphrase"
    file.write_text("a long secret\n")
    shown = cli(
        "schedule", "install", "--system", "systemd", "--print", "--passphrase-file", str(file)
    )
    assert f"LoadCredential=aico-lab.passphrase:{file}\n" in shown.stdout
    assert "a long secret" not in shown.stdout
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert cli("schedule", "tick").returncode == 0
    monkeypatch.setenv("AICO_LAB_PASSPHRASE", "another secret")  # comes first
    assert cli("schedule", "tick").returncode == 1


def test_a_key_file_can_be_a_credential(tmp_path):
    (tmp_path / "aico-lab.key").touch()
    found = Settings.resolve(environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert found.key_file == tmp_path / "aico-lab.key"
    assert found.passphrase is None


@pytest.mark.slow
def test_sigterm_ends_the_scheduler_and_the_next_one_begins_the_run_again(lab, home, tmp_path):
    """SIGTERM, as of a container that stops, in the middle of a step."""
    path = home / "pipelines" / "job.toml"
    path.parent.mkdir()
    begun = tmp_path / "begun"
    path.write_text(
        f"schedule = '* * * * *'\n[[steps]]\nrun = 'shell'\n"
        f"command = 'touch {begun}; test -e {tmp_path}/go || sleep 60'\n"
    )
    lab.schedules.tick()
    primary = lab.primary
    with primary.transaction():
        primary.execute(
            'UPDATE system_state SET value = replace(value, \'"since": "2\', \'"since": "1\') '
            "WHERE key = 'schedules'"
        )
    command = [sys.executable, "-m", "aico_lab", "schedule", "run", "--home", str(home)]
    command.append("--allow-shell")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if begun.exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "The scheduler has ended.\n")
    assert next(run.status for run in lab.pipelines.runs()) == "interrupted"
    (tmp_path / "go").touch()
    (again,) = lab.schedules.tick(allow_shell=True)
    assert again.status == "ok"
