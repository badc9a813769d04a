"""Streaks, late messages, large sessions and milestones, as counted by plain Python."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings

from tests.effort import examples
from tests.talks import START, World, said, talk, talks, world
from tests.talks_by_hand import messages_of, real_messages, sessions_of

DAY = 86_400
COUNTS = (1, 10, 50, 100, 500, 1_000, 5_000, 10_000)


def local(ts_ms: int, zone: str) -> datetime:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).astimezone(ZoneInfo(zone))


def highlights_by_hand(made: World, zone: str) -> list[tuple]:
    """Record, n, people, begin, value and number of equal ones."""
    messages = messages_of(made.messages)
    by_people = [m for m in messages if m.role == "user"]
    found = []
    written = defaultdict(lambda: defaultdict(int))
    for m in by_people:
        if m.person:
            written[m.person][local(m.ts_ms, zone).date()] += 1
    runs = []
    for days in written.values():
        in_order = sorted(days)
        for _, placed in groupby(enumerate(in_order), lambda pair: pair[1].toordinal() - pair[0]):
            run = [day for _, day in placed]
            runs.append((len(run), run[0], sum(days[day] for day in run)))
    if runs:
        longest = [run for run in runs if run[0] == max(runs)[0]]
        length, first, n = min(longest, key=lambda run: (run[1], run[2]))
        found.append(("longest streak", n, 1, str(first), float(length), len(longest)))

    def after_five(m) -> timedelta:
        at = local(m.ts_ms, zone)
        return timedelta(hours=(at.hour - 5) % 24, minutes=at.minute, seconds=at.second)

    timed = [m for m in by_people if not m.is_estimated]
    if timed:
        latest = max(map(after_five, timed))
        top = [m for m in timed if after_five(m) == latest]
        at = min(local(m.ts_ms, zone).replace(tzinfo=None) for m in top)
        same = [m for m in top if local(m.ts_ms, zone).replace(tzinfo=None) == at]
        people = len({m.person for m in same} - {None})
        value = latest / timedelta(hours=1)
        found.append(("latest message", len(same), people, f"{at:%Y-%m-%d %H:%M}", value, len(top)))
    whole = [s for s in sessions_of(messages) if not any(m.is_estimated for m in s.messages)]
    if whole:
        most = max(len(s.messages) for s in whole)
        top = [s for s in whole if len(s.messages) == most]
        first = min(top, key=lambda s: (s.started_ms, max(m.ts_ms for m in s.messages)))
        people = len({m.person for m in first.messages} - {None})
        begins = f"{local(first.started_ms, zone):%Y-%m-%d %H:%M}"
        found.append(("largest session", most, people, begins, float(most), len(top)))
    return found


def assert_are_highlights(made: World, zone: str, *, without_people: bool = False) -> None:
    columns = ["record", "n", "people", "begins", "value", "alike"]
    rows = made.ask("highlights", filters={"timezone": zone}).pl().select(columns).rows()
    expected = highlights_by_hand(made, zone)
    if without_people:  # of sessions that tie in everything else, any may be first
        rows, expected = ([(*r[:2], *r[3:]) for r in found] for found in (rows, expected))
    assert [r[:-2] for r in rows] == [e[:-2] for e in expected]
    for row, hand in zip(rows, expected, strict=True):
        assert row[-2:] == pytest.approx(hand[-2:])


def milestones_by_hand(made: World, zone: str) -> list[tuple[int, int, date]]:
    messages = sorted(messages_of(made.messages), key=lambda m: (m.ts_ms, m.id))
    return [
        (
            n,
            len({m.person for m in messages[:n]} - {None}),
            local(messages[n - 1].ts_ms, zone).date(),
        )
        for n in COUNTS
        if n <= len(messages)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["UTC", "America/Sao_Paulo"])
def test_highlights_and_milestones_of_real_conversations(zone):
    with world(real_messages(6_000)) as made:
        assert_are_highlights(made, zone)
        found = made.ask("milestones", filters={"timezone": zone}).pl().rows()
        assert found == milestones_by_hand(made, zone)


@pytest.mark.slow
@settings(max_examples=examples(9), deadline=None)
@given(talks(40, marked=True))
def test_highlights_and_milestones_of_any_talk(messages):
    with world(messages) as made:
        zone = "Asia/Kolkata"  # whose clocks never change, so that local times are in order
        assert_are_highlights(made, zone, without_people=True)
        found = made.ask("milestones", filters={"timezone": zone}).pl().rows()
        assert found == milestones_by_hand(made, zone)


def test_a_night_ends_at_five_and_a_streak_needs_every_day():
    """`START` is 22:00 on 30 March."""
    hours = (0, 6.5, 24, 48, 55.02, 120)  # 22:00, 04:30, 22:00, 22:00, 05:01, 22:00
    with world(talk(*(said(3600 * at) for at in hours))) as made:
        answer = made.ask("highlights")
        assert answer.finding == (
            "Longest streak: 4 days from 30 March to 2 April 2024; latest message: 31 March 2024, "
            "04:30; largest session: 1 message from 30 March 2024, 22:00 (like 5 other sessions)"
        )
        one = made.ask("highlights", filters={"since": "2024-04-04"})
        assert one.finding.startswith(
            "Longest streak: 1 day, 4 April 2024; latest message: 4 April"
        )


def test_messages_of_one_instant_are_as_many_as_they_are():
    spoken = [said(at, conversation=f"c{n}") for n, at in enumerate((0, 0, DAY))]
    with world(talk(*spoken)) as made:
        row = made.ask("highlights").pl().row(1, named=True)
        assert (row["record"], row["n"], row["alike"]) == ("latest message", 2, 3)


def test_milestones_count_from_the_first_message_whatever_the_period():
    spoken = [said(DAY * day, user=f"u{day % 2}", conversation=f"c{day % 2}") for day in range(20)]
    with world(talk(*spoken)) as made:
        first = START.date()
        assert made.ask("milestones").pl().rows() == [
            (1, 1, first),
            (10, 2, first + timedelta(days=9)),
        ]
        later = made.ask("milestones", filters={"since": "2024-04-01"})
        assert later.finding == "The 10th message: 8 April 2024"
        mine = made.ask("milestones", filters={"user": "u1", "since": "2024-04-01"})
        assert mine.pl().rows() == [(10, 1, first + timedelta(days=19))]
