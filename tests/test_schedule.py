"""Schedules of pipelines: their times, what is due, what was missed, and two schedulers at once."""

from __future__ import annotations

import json
import random
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from aico_lab.errors import InvalidValue, PeriodDone, StepFailed, UnknownName
from aico_lab.lab import Lab
from aico_lab.pipeline import load_pipeline, notices, records, run_pipeline, running
from aico_lab.pipeline.records import PipelineRun, read_runs
from aico_lab.pipeline.schedule import Schedule, due, last_time, missed, times_after

SYNC = "[[steps]]\nrun = 'sync'\n"
MORNING = f"schedule = '30 6 * * *'\ntimezone = 'Europe/Berlin'\n{SYNC}"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def run_of(period: str | None, status: str = "ok", started: str | None = None) -> PipelineRun:
    started = started or period
    text = period and utc(period).isoformat()
    at = utc(started).isoformat()
    return PipelineRun("r", "p", "home", "", status, at, at, None, [], [], [], {}, period=text)


class Clock:
    """The time that runs are recorded with."""

    def __init__(self, monkeypatch, text: str):
        self.now = utc(text)
        monkeypatch.setattr(records, "utc_now", lambda: self.now)

    def to(self, text: str) -> None:
        self.now = utc(text)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch, "2026-03-02T12:00")


@pytest.fixture
def morning(lab):
    """A home with a pipeline that runs at 06:30 in Berlin, which is 05:30 UTC in winter."""
    path = lab.home.path / "pipelines" / "morning.toml"
    path.parent.mkdir()
    path.write_text(MORNING)
    return path


def ran(lab) -> list[tuple[str, str, str]]:
    """Return the pipeline, the period and the status of all runs, the oldest first."""
    runs = read_runs(lab.primary)[::-1]
    return [(run.pipeline, (run.period or "")[:16], run.status) for run in runs]


# The file


WRONG = [
    ("schedule = '30 6 * *'", "needs five fields"),
    ("schedule = '0 30 6 * * *'", "needs five fields"),
    ("schedule = '30 25 * * *'", "wrong hour"),
    ("schedule = '30 6 31 2 *'", "wrong day-of-month"),
    ("schedule = '@daily'", "needs five fields"),
    ("schedule = '0 0 29 2 MON#6'", "wrong day-of-week"),
    ("schedule = 6", "must be text"),
    ("schedule = ''", "is empty"),
    ("schedule = '30 6 * * *'\ntimezone = 'Europe/Berln'", "no time zone .*did you mean"),
    ("schedule = '30 6 * * *'\ncatch_up = '5m'", "from 10 minutes to 366 days"),
    ("schedule = '30 6 * * *'\ncatch_up = inf", "from 10 minutes to 366 days"),
    ("schedule = '30 6 * * *'\ncatch_up = 'soon'", "'catch_up' .*text such as '10m'"),
    ("timezone = 'Europe/Berlin'", "needs a schedule"),
    ("catch_up = '1h'", "needs a schedule"),
]


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[w[0] for w in WRONG])
def test_a_wrong_schedule_is_one_sentence(tmp_path, text, words):
    path = tmp_path / "job.toml"
    path.write_text(f"{text}\n{SYNC}")
    with pytest.raises(InvalidValue, match=words) as raised:
        load_pipeline(str(path))
    assert "\n" not in str(raised.value)


def test_check_finds_a_wrong_schedule(cli, morning):
    morning.write_text(f"schedule = '61 6 * * *'\ntimezone = 'Mars'\n{SYNC}")
    checked = cli("pipeline", "check", "morning")
    assert checked.returncode == 1
    assert "wrong minute" in checked.stdout


def test_a_schedule_has_the_zone_of_the_lab_and_twelve_hours(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(f"schedule = ' 30  6 * * *'\n{SYNC}")
    schedule = load_pipeline(str(path)).schedule
    assert schedule == Schedule("30 6 * * *", None, 12 * 3600)
    assert schedule.within("Asia/Tokyo").timezone == "Asia/Tokyo"


# The times, on the days on which clocks change


CHANGES = [
    # skipped: 02:30 does not exist on 29 March, 03:00 is the first moment after
    ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["29T01:00", "30T00:30"]),
    ("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["29T01:00", "30T00:00"]),
    ("30 2 * * *", "America/New_York", "2026-03-07T12:00", ["08T07:00", "09T06:30"]),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00", ["03T15:30", "04T15:15"]),
    # twice: 02:30 on 25 October, the first of the two counts
    ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["25T00:30", "26T01:30"]),
    ("30 1 * * *", "America/New_York", "2026-10-31T12:00", ["01T05:30", "02T06:30"]),
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", ["04T14:45", "05T15:15"]),
    # each real quarter and hour
    ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00", ["29T00:30", "29T01:00", "29T01:30"]),
    ("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:00", ["25T00:30", "25T01:00", "25T01:30"]),
    ("0 * * * *", "Europe/Berlin", "2026-10-24T23:30", ["25T00:00", "25T01:00", "25T02:00"]),
    ("0 * * * *", "Europe/Berlin", "2026-03-28T23:30", ["29T00:00", "29T01:00", "29T02:00"]),
]


@pytest.mark.parametrize(("cron", "zone", "start", "expected"), CHANGES)
def test_each_time_is_once_on_the_days_that_clocks_change(cron, zone, start, expected):
    schedule = Schedule(cron, zone)
    times = list(islice(times_after(schedule, utc(start)), len(expected)))
    assert [f"{time:%dT%H:%M}" for time in times] == expected
    for time in times:
        assert last_time(schedule, time) == time
        assert last_time(schedule, time - timedelta(seconds=1)) != time


def test_within_the_second_hour_the_time_of_the_first_has_passed():
    """At 02:10, the second time, 02:50 was 20 minutes ago."""
    schedule = Schedule("50 2 * * *", "Europe/Berlin")
    assert last_time(schedule, utc("2026-10-25T01:10")) == utc("2026-10-25T00:50")
    assert next(times_after(schedule, utc("2026-10-25T01:10"))) == utc("2026-10-26T01:50")


# What is due


DAILY = Schedule("30 6 * * *", "UTC")
LONG_AGO = utc("2026-01-01")


def test_a_period_is_due_until_its_bound():
    def at(text: str) -> datetime | None:
        return due(DAILY, utc(text), [], since=LONG_AGO)

    assert at("2026-03-02T06:30") == utc("2026-03-02T06:30")
    assert at("2026-03-02T18:30") == utc("2026-03-02T06:30")
    assert at("2026-03-02T18:31") is None
    assert due(DAILY, utc("2026-03-02T06:40"), [], since=utc("2026-03-02T06:35")) is None


@pytest.mark.parametrize(
    ("statuses", "is_due"),
    [
        (["ok"], False),
        (["failed"], False),
        (["running"], False),
        (["missed"], True),  # by a clock that was wrong
        (["interrupted"], True),
        (["interrupted"] * 3, False),
        (["interrupted", "ok"], False),
    ],
)
def test_a_period_runs_once_and_again_only_after_an_interruption(statuses, is_due):
    runs = [run_of("2026-03-02T06:30", status) for status in statuses]
    assert bool(due(DAILY, utc("2026-03-02T07:00"), runs, since=LONG_AGO)) is is_due


def test_a_clock_that_goes_back_an_hour_begins_nothing_anew():
    runs = [run_of("2026-03-02T06:30", started="2026-03-02T07:20")]
    for minute in range(0, 120, 5):
        now = utc("2026-03-02T06:25") + timedelta(minutes=minute)
        assert due(DAILY, now, [*runs, run_of("2026-03-01T06:30")], since=LONG_AGO) is None


def test_a_run_of_a_clock_that_was_a_day_ahead_does_not_count():
    runs = [run_of("2026-03-03T06:30", started="2026-03-03T10:00")]
    assert due(DAILY, utc("2026-03-03T06:30"), runs, since=LONG_AGO) == utc("2026-03-03T06:30")


def test_missed_periods_are_told_once_each():
    now = utc("2026-03-05T07:00")
    runs = [run_of("2026-03-01T06:30")]
    found = missed(DAILY, now, runs, since=LONG_AGO)
    assert (found.first, found.last, found.count) == (
        utc("2026-03-02T06:30"), utc("2026-03-04T06:30"), 3,
    )  # fmt: skip
    runs.append(run_of("2026-03-04T06:30", "missed", "2026-03-05T07:00"))
    assert missed(DAILY, now, runs, since=LONG_AGO) is None
    assert missed(DAILY, now, [], since=utc("2026-03-04T12:00")) is None


def test_what_a_later_run_made_up_for_was_not_missed():
    """A machine that slept for three hours runs what is due each quarter once."""
    quarters = Schedule("*/15 * * * *", "UTC")
    runs = [run_of("2026-03-02T09:00")]
    now = utc("2026-03-02T12:07")
    assert due(quarters, now, runs, since=LONG_AGO) == utc("2026-03-02T12:00")
    assert missed(quarters, now, runs, since=LONG_AGO) is None


# A home


@pytest.mark.usefixtures("morning")
def test_a_pipeline_runs_once_for_its_time(lab, clock):
    assert lab.schedules.tick() == []  # it is new
    clock.to("2026-03-03T05:29")
    assert lab.schedules.tick() == []
    clock.to("2026-03-03T05:30")
    (done,) = lab.schedules.tick()
    assert (done.status, done.period[:16]) == ("ok", "2026-03-03T05:30")
    assert lab.pipelines.show("morning").period == done.period
    assert lab.schedules.tick() == lab.schedules.tick("morning") == []
    (again,) = lab.schedules.tick("morning", force=True)
    assert (again.status, again.period) == ("ok", done.period)
    clock.to("2026-03-07T12:00")  # the machine slept; noon in UTC is within 12 h
    assert [one.status for one in lab.schedules.tick()] == ["missed", "ok"]
    assert sorted(ran(lab)[2:]) == [
        ("morning", "2026-03-06T05:30", "missed"),
        ("morning", "2026-03-07T05:30", "ok"),
    ]
    lost = next(run for run in read_runs(lab.primary) if run.status == "missed")
    assert "3 times, from 2026-03-04 06:30 (Europe/Berlin)" in lost.error
    retried = lab.pipelines.retry(lost.run_id)
    assert (retried.status, retried.period) == ("ok", lost.period)


def test_a_notice_tells_of_what_was_missed_and_that_it_works_again(
    lab, morning, clock, monkeypatch
):
    told = []
    monkeypatch.setattr(notices, "_send", lambda _, title, body, **__: told.append((title, body)))
    morning.write_text(f"{MORNING}[notify]\nurls = ['json://127.0.0.1']\n")
    lab.schedules.tick()
    clock.to("2026-03-04T06:00")
    lab.schedules.tick()
    assert [title for title, _ in told] == [
        "aico-lab: morning was missed", "aico-lab: morning works again",
    ]  # fmt: skip
    assert "No run began in time for the schedule." in told[0][1]


def test_a_changed_schedule_begins_anew(lab, morning, clock):
    lab.schedules.tick()
    clock.to("2026-03-03T12:00")
    morning.write_text(MORNING.replace("30 6", "0 9"))
    assert lab.schedules.tick() == []
    clock.to("2026-03-04T08:00")
    assert [one.status for one in lab.schedules.tick()] == ["ok"]


@pytest.mark.parametrize("away", ["", "schedule = '30 6 * *'"])
def test_a_file_that_was_away_or_broken_keeps_its_schedule(lab, morning, clock, away):
    lab.schedules.tick()
    clock.to("2026-03-03T05:00")
    morning.write_text(f"{away}\n{SYNC}")
    lab.schedules.tick()
    clock.to("2026-03-03T05:40")
    morning.write_text(MORNING)
    assert [one.status for one in lab.schedules.tick()] == ["ok"]


def test_a_failure_keeps_no_other_from_running_and_is_not_repeated(lab, cli, morning, clock):
    bad = morning.with_name("a-bad.toml")
    bad.write_text(MORNING.replace("'sync'", "'load'\npath = 'x.db'\ntable = 't'"))
    morning.with_name("a-broken.toml").write_text("schedule = '30 6 * *'\n" + SYNC)
    lab.schedules.tick()
    clock.to("2026-03-03T06:00")
    done = {one.pipeline: one for one in lab.schedules.tick()}
    assert {name: one.status for name, one in done.items()} == {
        "a-bad": "failed", "a-broken": "failed", "morning": "ok",
    }  # fmt: skip
    assert "x.db does not exist" in done["a-bad"].error
    assert done["a-broken"].run_id is None
    assert [one.pipeline for one in lab.schedules.tick()] == ["a-broken"]
    status = cli("schedule", "status")
    assert status.returncode == 1
    assert len(status.stdout.splitlines()) == 2
    assert "a-bad failed at 2026-03-03 06:00 UTC: see `aico-lab pipeline show" in status.stdout
    assert "a-broken is broken" in status.stdout
    assert cli("schedule", "tick").returncode == 1


@pytest.mark.usefixtures("morning")
def test_what_cannot_be_scheduled_is_refused(lab):
    with pytest.raises(UnknownName):
        lab.schedules.tick("mornin")
    with pytest.raises(InvalidValue, match="nightly has no schedule"):
        lab.schedules.tick("nightly")
    with pytest.raises(InvalidValue, match="needs the name"):
        lab.schedules.tick(force=True)


@pytest.mark.usefixtures("morning")
def test_status_and_list_tell_what_is_wrong(lab, cli, clock):
    assert "No scheduler has looked at morning" in cli("schedule", "status").stdout
    clock.to("2026-03-02T12:00")
    lab.schedules.tick()
    assert cli("schedule", "status").returncode == 0
    clock.to("2026-03-03T06:30")
    late = cli("schedule", "status")
    assert late.returncode == 1
    assert "morning was due at 2026-03-03 06:30 (Europe/Berlin) and has not run" in late.stdout
    clock.to("2026-03-04T04:00")
    assert "no run began within 12 h of 2026-03-03 06:30" in cli("schedule", "status").stdout
    lab.schedules.tick()
    assert "morning was missed" in cli("schedule", "status").stdout
    clock.to("2026-03-04T06:00")
    lab.schedules.tick()
    assert cli("schedule", "status").returncode == 0
    listed = cli("schedule", "list").stdout
    assert "30 6 * * * (Europe/Berlin), next 2026-03-05 06:30" in listed
    assert "last run 2026-03-04 06:00 UTC: ok" in listed
    assert "missed: no run began within 12 h of 2026-03-03 06:30" in listed
    (state,) = json.loads(cli("schedule", "list", "--json").stdout)
    assert state["next"] == "2026-03-05T06:30+01:00"


@pytest.mark.usefixtures("morning")
def test_an_interrupted_run_is_begun_again_and_retry_keeps_the_period(lab, clock, monkeypatch):
    lab.schedules.tick()
    clock.to("2026-03-03T05:30")
    real = running.run_step
    monkeypatch.setattr(running, "run_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        lab.schedules.tick()
    monkeypatch.setattr(running, "run_step", real)
    again = lab.pipelines.retry("morning")
    assert again.period[:16] == "2026-03-03T05:30"
    assert lab.schedules.tick() == []


def test_a_period_that_another_scheduler_has_begun_is_left_alone(lab, morning, clock):
    """Whoever comes second holds the lock only after the first has ended."""
    job, period = load_pipeline(str(morning), lab.home), clock.now
    run_pipeline(lab, job, period=period)
    with pytest.raises(PeriodDone, match="--force"):
        run_pipeline(lab, job, period=period)
    assert len(run_pipeline(lab, job, period=period, force=True)) == 1


@pytest.mark.usefixtures("morning")
def test_two_schedulers_at_once_run_a_period_once(lab, clock, home):
    lab.schedules.tick()
    clock.to("2026-03-06T06:00")
    found = []

    def look() -> None:
        with Lab.open(home) as other:
            found.extend(other.schedules.tick())

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.status for one in found if one.run_id) == ["missed", "ok"]
    assert {one.status for one in found} <= {"missed", "ok", "busy", "done"}
    assert sorted(status for *_, status in ran(lab)) == ["missed", "ok"]


# A month, simulated


ZONES = {
    "Europe/Berlin": ("2026-03-10", "2026-10-10"),
    "America/New_York": ("2026-02-25", "2026-10-20"),
    "Australia/Lord_Howe": ("2026-03-20", "2026-09-20"),
}
CRONS = ("30 6 * * *", "30 2 * * *", "45 1 * * *")


def simulate(seed: int, *, wrong_clock: bool) -> tuple[list[datetime], list[PipelineRun], list]:
    """Return the periods of a month, the runs of a machine that crashes and sleeps, and the missed.

    The runs that began while the clock was wrong have the id 'wrong'.
    """
    rnd = random.Random(seed)
    zone = list(ZONES)[seed % 3]
    schedule = Schedule(CRONS[seed // 3 % 3], zone)
    start = utc(ZONES[zone][seed // 9 % 2])
    now, end, runs, lost = start, start + timedelta(days=31), [], []

    def look(ahead: timedelta = timedelta(0)) -> None:
        seen = now + ahead
        kind = "wrong" if ahead else "right"

        def record(period: datetime, status: str) -> None:
            at, text = seen.isoformat(), period.isoformat()
            runs.append(
                PipelineRun(
                    kind, "p", "home", "", status, at, at, "", [], [], [], {}, period=text
                )
            )  # fmt: skip

        for _ in range(rnd.choice((1, 1, 2))):  # at times a second scheduler
            if found := missed(schedule, seen, runs, since=start):
                lost.append(found)
                record(found.last, "missed")
            if period := due(schedule, seen, runs, since=start):
                record(period, rnd.choices(("ok", "failed", "interrupted"), (80, 5, 15))[0])

    while now < end:
        look()
        now += timedelta(minutes=rnd.choice((30, 120, 240, 300)))
        if rnd.random() < 0.05:  # it sleeps, for up to two days
            now += timedelta(hours=rnd.uniform(1, 48))
        if wrong_clock and rnd.random() < 0.04:
            ahead = rnd.choice((timedelta(hours=-1), timedelta(days=1)))
            for _ in range(3):
                look(ahead)
                now += timedelta(minutes=20)
    now = end + timedelta(days=2)
    look()
    periods = [time for time in islice(times_after(schedule, start), 33) if time < end]
    return periods, runs, lost


@pytest.mark.slow
def test_a_month_has_one_good_run_a_day_or_a_reason():
    """Over 100 seeds: crashes, sleep, both clock changes, two schedulers, wrong clocks."""
    good, reasons = 0, 0
    for seed in range(100):
        wrong_clock = seed >= 50
        periods, runs, lost = simulate(seed, wrong_clock=wrong_clock)
        zone = ZoneInfo(list(ZONES)[seed % 3])
        days = [period.astimezone(zone).date() for period in periods]
        assert days == [days[0] + timedelta(days=n) for n in range(len(days))], seed
        for period in periods:
            own = [run for run in runs if datetime.fromisoformat(run.period) == period]
            ended = [run.run_id for run in own if run.status == "ok"]
            assert ended.count("right") <= 1, (seed, period)
            assert ended.count("wrong") <= 1, (seed, period)
            assert len(ended) <= 1 or wrong_clock, (seed, period)
            known = own or any(one.first <= period <= one.last for one in lost)
            assert ended or known, (seed, period)
            good += bool(ended)
            reasons += not ended
    assert good > 2000, (good, reasons)


@pytest.mark.slow
@pytest.mark.usefixtures("morning")
def test_a_month_of_a_home_is_recorded_whole(lab, clock, monkeypatch):
    """The same with a home: every day of October has one good run, or the record of a reason."""
    rnd = random.Random(16)

    def step(*_):
        end = rnd.choices((None, StepFailed("no"), KeyboardInterrupt()), (75, 10, 15))[0]
        if end is not None:
            raise end

    monkeypatch.setattr(running, "run_step", step)
    clock.to("2026-10-01T00:00")
    while clock.now < utc("2026-11-02T00:00"):
        with suppress(KeyboardInterrupt):
            lab.schedules.tick()
        clock.now += timedelta(hours=rnd.choice((3, 5, 7, 7, 30)))
    runs = read_runs(lab.primary)
    zone = ZoneInfo("Europe/Berlin")
    for day in range(1, 32):
        period = datetime(2026, 10, day, 6, 30, tzinfo=zone).astimezone(UTC)
        own = [run for run in runs if run.period and datetime.fromisoformat(run.period) == period]
        assert [run.status for run in own].count("ok") <= 1
        until = f"{datetime(2026, 10, day, tzinfo=zone):%Y-%m-%d} 06:30"
        lost = [
            run for run in runs if run.status == "missed" and run.period >= f"{period:%Y-%m-%d}"
        ]
        named = [run for run in lost if until in run.error or " times, from " in run.error]
        assert all(run.status == "ok" or run.error for run in own)
        assert own or named, day
    assert {run.status for run in runs} == {"ok", "failed", "interrupted", "missed"}
