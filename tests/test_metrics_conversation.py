"""Turns, times of reply and sessions, against plain Python from raw messages."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aico_lab.errors import InvalidValue
from tests.effort import examples
from tests.talks import START, said, talk, talks, world
from tests.talks_by_hand import (
    HALF_AN_HOUR,
    assert_rows,
    grouped,
    is_complete,
    mean,
    median_interval_by_hand,
    messages_of,
    real_messages,
    sessions_of,
    sessions_of_people,
    smallest_reaching,
    turns_of,
    units_of,
)

GAPS = (1.0, 30.0, 720.0)


def turns_by_hand(raw):
    rows = []
    for role, turns in sorted(grouped(turns_of(messages_of(raw)), lambda t: t.role)):
        rows.append(
            {
                "role": role,
                "n": len(turns),
                "people": len({t.person for t in turns if t.person is not None}),
                "messages": mean(len(t.messages) for t in turns),
                "words": mean(sum(len(m.words) for m in t.messages) for t in turns),
            }
        )
    return rows


def latency_by_hand(raw, cutoff_hours):
    cutoff = round(cutoff_hours * 3_600_000)
    turns = turns_of(messages_of(raw))
    units = {id(turn): unit for turn, unit in zip(turns, units_of(turns), strict=True)}
    last_ms = max((t.ended_ms for t in turns), default=0)
    replies, late, counts = defaultdict(list), defaultdict(int), defaultdict(int)
    untimed = defaultdict(int)
    for _, of_conversation in grouped(turns, lambda t: t.conversation):
        for place, turn in enumerate(of_conversation):
            if turn.reply_ms is not None and turn.reply_ms <= cutoff:
                reply = (units[id(turn)], turn.reply_ms, turn.recorded_ms)
                replies[turn.role].append(reply)
            elif turn.reply_ms is not None:
                late[turn.role] += 1
            elif turn.reply_is_estimated:
                untimed[turn.role] += 1
            other = "assistant" if turn.role == "user" else "user"
            opening = all(t.role == "assistant" for t in of_conversation[: place + 1])
            later = next(
                (t for t in of_conversation[place:]
                 if t.role == other and (opening or t.person == turn.person)),
                None,
            )  # fmt: skip
            in_time = later is not None and (
                turn.end_is_estimated or later.started_ms <= turn.ended_ms + cutoff
            )
            is_open = not in_time and turn.ended_ms + cutoff <= last_ms
            if all(t.role == turn.role for t in of_conversation):
                what = "one_sided"
            elif turn is of_conversation[-1] and not any(m.asks for m in turn.messages):
                what = "farewells"
            else:
                what = "unanswered"
            counts[other, what] += is_open
    rows = []
    for role in sorted({*replies, *late, *untimed, *(role for role, _ in counts)}):
        times = [ms for _, ms, _ in replies[role]]
        recorded = [ms for *_, ms in replies[role] if ms is not None]
        low, high = median_interval_by_hand(times, [unit for unit, *_ in replies[role]])
        low, high = (None if end is None else end / 1000 for end in (low, high))
        row = {"role": role, "n": len(times), "late": late[role], "recorded": len(recorded)}
        row["untimed"] = untimed[role]
        row |= {what: counts[role, what] for what in ("unanswered", "farewells", "one_sided")}
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            row[name] = smallest_reaching(times, share) / 1000 if times else None
        for name, share in (("recorded_p50", 0.5), ("recorded_p95", 0.95)):
            row[name] = smallest_reaching(recorded, share) / 1000 if recorded else None
        rows.append(row | {"p50_low": low, "p50_high": high})
    return rows


def local_day(ms, zone="UTC"):
    return datetime.fromtimestamp(ms // 1000, UTC).astimezone(ZoneInfo(zone)).date()


def sessions_by_hand(raw, gap_minutes, scope):
    messages = messages_of(raw, int(gap_minutes * 60_000))
    if scope == "person":
        return sessions_of_people(messages, int(gap_minutes * 60_000))
    return sessions_of(messages)


def weeks_by_hand(raw, gap_minutes, scope, zone):
    messages = messages_of(raw)
    if not messages:
        return []
    times = [m.ts_ms for m in messages]
    ends = [datetime.fromtimestamp(ms // 1000, UTC) + timedelta(milliseconds=ms % 1000)
            for ms in (min(times), max(times))]  # fmt: skip
    first, last = (local_day(f(m.ts_ms for m in messages), zone) for f in (min, max))
    by_week = defaultdict(list)
    for session in sessions_by_hand(raw, gap_minutes, scope):
        day = local_day(session.started_ms, zone)
        by_week[day - timedelta(days=day.weekday())].append(session)
    rows, monday = [], first - timedelta(days=first.weekday())
    while monday <= last:
        found = by_week[monday]
        rows.append(
            {
                "start": monday,
                "n": len(found),
                "minutes": mean((s.ended_ms - s.started_ms) / 60_000 for s in found),
                "messages": mean(len(s.messages) for s in found),
                "turns": mean(s.n_turns for s in found),
                "complete": is_complete(monday, "week", zone, *ends),
            }
        )
        monday += timedelta(days=7)
    return rows


CLASSES = {
    "under 1 min": (0, 1), "1 to 5 min": (1, 5), "5 to 15 min": (5, 15), "15 to 30 min": (15, 30),
    "30 to 60 min": (30, 60), "1 to 2 h": (60, 120), "2 to 6 h": (120, 360),
    "6 h and more": (360, float("inf")),
}  # fmt: skip


def lengths_by_hand(raw, gap_minutes, scope):
    sessions = sessions_by_hand(raw, gap_minutes, scope)
    rows = []
    for name, (low, high) in CLASSES.items() if sessions else ():
        found = [s for s in sessions if low <= (s.ended_ms - s.started_ms) / 60_000 < high]
        rows.append(
            {
                "duration": name,
                "n": len(found),
                "share": 100 * len(found) / len(sessions),
                "messages": mean(len(s.messages) for s in found),
            }
        )
    return rows


def initiative_by_hand(raw, gap_minutes, scope):
    sessions = sessions_by_hand(raw, gap_minutes, scope)
    return [
        {
            "role": role,
            "n": len(sessions),
            "share_started": 100 * mean(s.started_by == role for s in sessions),
            "share_ended": 100 * mean(s.ended_by == role for s in sessions),
        }
        for role in ("assistant", "user")
        if any(m.role == role for s in sessions for m in s.messages)
    ]


BY_HAND = {"session_length": lengths_by_hand, "initiative": initiative_by_hand}


def assert_all_as_by_hand(made, gap_minutes, cutoff_hours, zone):
    raw, filters = made.messages, {"timezone": zone}
    assert_rows(made.ask("turns"), turns_by_hand(raw))
    assert_rows(
        made.ask("reply_latency", cutoff_hours=cutoff_hours), latency_by_hand(raw, cutoff_hours)
    )
    for scope in ("conversation", "person"):
        asked = {"gap_minutes": gap_minutes, "scope": scope}
        weeks = made.ask("sessions", filters=filters, **asked)
        assert_rows(weeks, weeks_by_hand(raw, gap_minutes, scope, zone))
        for name, by_hand in BY_HAND.items():
            assert_rows(made.ask(name, **asked), by_hand(raw, gap_minutes, scope))


@pytest.mark.slow
@settings(max_examples=examples(9))
@given(
    talks() | talks(marked=True),
    st.sampled_from(GAPS),
    st.sampled_from([0.25, 12.0]),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
)
def test_they_are_what_plain_python_finds(messages, gap_minutes, cutoff_hours, zone):
    with world(messages) as made:
        assert_all_as_by_hand(made, gap_minutes, cutoff_hours, zone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "gap_minutes"),
    [(2_000, 1.0), (2_000, 720.0), pytest.param(20_000, 30.0, marks=pytest.mark.slow)],
)
def test_they_are_what_plain_python_finds_in_real_conversations(count, gap_minutes):
    with world(real_messages(count)) as made:
        assert_all_as_by_hand(made, gap_minutes, 12.0, "America/Denver")


def test_a_turn_ends_with_the_other_side_or_with_half_an_hour_of_silence():
    with world(
        talk(
            said(0, content="one two"),
            said(60, content="three"),
            said(70, "assistant", "four", user=None),
            said(80, content="five"),
            said(80 + 1800, content="six"),
            said(80 + 3601, content="seven"),
        )
    ) as made:
        rows = made.ask("turns").pl().to_dicts()
    assert [(row["role"], row["n"]) for row in rows] == [("assistant", 1), ("user", 3)]
    assert rows[1]["messages"] == 5 / 3
    assert rows[1]["words"] == 2
    assert rows[1]["messages_low"] is None  # one conversation has no interval


ESTIMATED = {"metadata": '{"timestamp_estimated": true}'}


def test_a_conversation_without_any_times_has_no_time_of_reply():
    """As a training file has, that was imported with --start and --step."""
    made_up = [said(60 * n, ("user", "assistant")[n % 2]) | ESTIMATED for n in range(10)]
    with world(talk(*made_up)) as made:
        answer = made.ask("reply_latency")
        rows = answer.pl().select("role", "n", "untimed", "late", "unanswered", "p50").rows()
        assert rows == [("assistant", 0, 5, 0, 0, None), ("user", 0, 4, 0, 0, None)]
        assert answer.finding == (
            "the companion: no reply with known times; people: no reply with known times"
        )
        assert "10 messages with an estimated time left out" in answer.caption
        assert "10 messages with an estimated time among them" in made.ask("sessions").caption
        assert "estimated" not in made.ask("turns").caption
        assert "estimated" not in made.ask("reply_latency", filters={"since": "2025-01-01"}).caption


def test_a_reply_whose_question_has_an_estimated_time_is_not_late_and_not_missing():
    """The question may have been asked a minute before, or a day."""
    spoken = [said(0), said(10, "assistant"), said(10) | ESTIMATED, said(DAY, "assistant")]
    with world(talk(*spoken, said(9 * DAY))) as made:
        row = made.ask("reply_latency").pl().row(0, named=True)
        assert (row["n"], row["p50"], row["untimed"]) == (1, 10.0, 1)
        assert (row["late"], row["unanswered"]) == (0, 0)
        seconds = made.connection().execute(
            "SELECT response_time FROM conversations ORDER BY message_id"
        )
        assert seconds.fetchall() == [(None,), (10.0,), (None,), (None,), (8 * DAY,)]


DAY = 86_400
CENSORED = talk(
    said(0),
    said(10, "assistant", user=None),  # a reply of 10 s
    said(20),
    said(20 + 12 * 3600 + 1, "assistant", user=None),  # late: of the user's turn nobody took notice
    said(2 * DAY),  # and late again
    said(2 * DAY + 3600),  # a second turn before one reply
    said(2 * DAY + 3660, "assistant", user=None),
    said(4 * DAY, conversation="d"),  # nobody knows yet
)


@pytest.mark.slow
def test_late_replies_are_no_replies_and_what_got_none_in_time_is_counted():
    with world(CENSORED) as made:
        rows = made.ask("reply_latency").pl().rows_by_key("role", named=True, unique=True)
        assistant, user = rows["assistant"], rows["user"]
        assert (assistant["n"], assistant["late"], assistant["unanswered"]) == (2, 1, 1)
        assert (assistant["p50"], assistant["p95"]) == (10, 60)
        # Of the companion's turns the last but one; the last one asks nothing.
        assert (user["n"], user["p50"], user["late"], user["unanswered"]) == (1, 10, 1, 1)
        assert (user["farewells"], user["one_sided"]) == (1, 0)
        patient = made.ask("reply_latency", cutoff_hours=24).pl()
        assert patient["late"].to_list() == [0, 1]
        assert patient["unanswered"].to_list() == [0, 1]


@pytest.mark.slow
def test_a_turn_is_not_unanswered_before_the_cutoff_has_passed():
    """Neither at the end of the data, nor at the end of the period that was asked for."""
    with world(CENSORED) as made:

        def unanswered(**filters):
            found = made.ask("reply_latency", filters=filters).pl()
            return dict(found.select("role", "unanswered").rows())

        assert unanswered() == {"assistant": 1, "user": 1}
        until = START + timedelta(seconds=20 + 12 * 3600)
        assert unanswered(until=until) == {"assistant": 1, "user": 0}
        assert unanswered(until=until - timedelta(seconds=1)) == {"assistant": 0, "user": 0}


@pytest.mark.slow
def test_who_never_replies_has_a_row_and_who_is_never_asked_has_none():
    with world(talk(said(0), said(DAY))) as made:
        answer = made.ask("reply_latency")
    columns = ["role", "n", "unanswered", "one_sided"]
    assert answer.pl().select(columns).rows() == [("assistant", 0, 0, 1)]
    assert answer.finding == "the companion: no reply in time"
    answer.plot().to_dict()


@pytest.mark.slow
def test_a_second_message_is_no_reply_and_recorded_times_stand_apart():
    """Waiting for 5 and 40 s; making the answers took 2 and 3 s."""
    with world(
        talk(
            said(0),
            said(5, "assistant", response_time=2.0),
            said(5 + 2 * DAY, "assistant", response_time=100.0),
            said(6 + 2 * DAY, content="are you there?"),
            said(46 + 2 * DAY, "assistant", response_time=3.0),
            said(9 * DAY, "assistant", "hello?", conversation="d"),
            said(9 * DAY, "user", "bye", conversation="e", user="w"),
            said(9 * DAY + 1, "assistant", "what is it?", conversation="e", user="w"),
            said(19 * DAY, conversation="f", user="x"),
        )
    ) as made:
        found = made.ask("reply_latency").pl().rows_by_key("role", named=True, unique=True)
    companion, user = found["assistant"], found["user"]
    assert (companion["n"], companion["p50"], companion["p95"]) == (3, 5, 40)
    assert (companion["recorded"], companion["recorded_p50"]) == (2, 2)
    assert (companion["recorded_p95"], companion["late"], companion["unanswered"]) == (3, 0, 0)
    # The first, 5 s into `c`, and the question in `e`; its last turn there; and that of `d`.
    assert (user["unanswered"], user["farewells"], user["one_sided"]) == (2, 1, 1)


@pytest.mark.slow
def test_replies_to_several_people_count_from_whom_they_name():
    """20 and 60 s; and who was not spoken to is still waiting."""
    group = talk(
        said(0, user="ada"),
        said(19, user="ben"),
        said(20, "assistant", user="ada"),
        said(50, user="ada"),
        said(51, user="cy"),
        said(109, user="ben"),
        said(110, "assistant", user="ada"),
        said(3 * DAY, user="ada"),
    )
    with world(group) as made:
        companion = made.ask("reply_latency").pl().row(0, named=True)
        assert (companion["n"], companion["p50"], companion["p99"]) == (2, 20, 60)
        assert companion["unanswered"] == 3  # ben's two and cy's
        ben = made.ask("reply_latency", filters={"user": "ben"}).pl().row(0, named=True)
        assert (ben["n"], ben["unanswered"], ben["one_sided"]) == (0, 2, 0)


@pytest.mark.slow
def test_the_interval_of_the_median_is_that_of_a_bootstrap_of_conversations():
    """Woodruff's interval against 400 draws of whole conversations, on times that differ."""
    rng = np.random.default_rng(5)
    per_conversation = rng.lognormal(3, 1, 300)
    messages, start = [], 0.0
    for number, typical in enumerate(per_conversation):
        for _ in range(4):
            messages.append(said(start, conversation=f"c{number}"))
            start += round(typical * rng.lognormal(0, 0.3), 3)
            messages.append(said(start, "assistant", conversation=f"c{number}", user=None))
            start += 4000  # another session
    with world(talk(*messages)) as made:
        row = made.ask("reply_latency", cutoff_hours=24).pl().row(0, named=True)
    units = [
        [t.reply_ms for t in found if t.role == "assistant"]
        for _, found in grouped(turns_of(messages_of(talk(*messages))), lambda t: t.conversation)
    ]
    times = np.array(units)
    drawn = [np.median(times[rng.integers(0, 300, 300)]) / 1000 for _ in range(400)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    assert row["p50_low"] == pytest.approx(low, rel=0.05)
    assert row["p50_high"] == pytest.approx(high, rel=0.05)


@pytest.mark.slow
def test_a_session_counts_in_the_week_in_which_it_begins_where_people_are():
    """Sunday 2024-03-31 23:59:59 in Berlin, on the day on which the summer time began."""
    monday = datetime(2024, 4, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    second = (monday.astimezone(UTC) - START).total_seconds()
    with world(
        talk(said(second - 1), said(second + 60), said(second + 3600), said(second + 7 * DAY))
    ) as made:
        berlin = made.ask("sessions", filters={"timezone": "Europe/Berlin"}).pl()
        assert berlin.select("start", "n", "complete").rows() == [
            (date(2024, 3, 25), 1, False),
            (date(2024, 4, 1), 1, True),
            (date(2024, 4, 8), 1, False),
        ]
        assert berlin["minutes"].to_list() == [61 / 60, 0, 0]
        utc = made.ask("sessions").pl()
        assert utc["n"].to_list() == [2, 1]
        assert utc["complete"].to_list() == [False, False]
        cut = made.ask("sessions", filters={"since": "2024-04-03"}).pl()
        assert cut.select("n", "complete").rows() == [(1, False)]


@pytest.mark.slow
def test_a_silence_of_exactly_the_gap_does_not_end_a_session():
    with world(talk(said(0), said(600), said(1201))) as made:
        assert made.ask("sessions", gap_minutes=10).pl()["n"].sum() == 2
        assert made.ask("sessions", gap_minutes=10.5).pl()["n"].sum() == 1
        assert made.ask("sessions").pl()["n"].sum() == 1


@pytest.mark.slow
def test_a_session_of_exactly_a_minute_is_in_the_second_class():
    with world(talk(said(0), said(60), said(5000), said(5059.999))) as made:
        answer = made.ask("session_length")
        assert answer.pl()["n"].to_list()[:3] == [1, 1, 0]
        assert answer.pl()["share"].to_list()[:3] == [50, 50, 0]
        assert answer.pl()["messages"].to_list()[:3] == [2, 2, None]
        alone = made.ask("session_length", filters={"user": "u"})
        assert alone.pl().equals(answer.pl())


@pytest.mark.slow
def test_who_comes_back_after_a_silence_begins_a_session():
    with world(
        talk(
            said(0),
            said(5, "assistant", user=None),
            said(4000, "assistant", user=None),
            said(9000, conversation="d", user="w"),
        )
    ) as made:
        rows = made.ask("initiative").pl()
        assert rows["n"].to_list() == [3, 3]
        assert rows["share_started"].to_list() == pytest.approx([100 / 3, 200 / 3])
        assert rows["share_ended"].to_list() == pytest.approx([200 / 3, 100 / 3])
        users = made.ask("initiative", filters={"role": "user", "user": "w"}).pl()
        assert users.select("role", "n", "share_started").rows() == [("user", 1, 100)]


def test_without_a_companion_nothing_is_told_of_its_initiative():
    with world(talk(said(0), said(9000, user="w"))) as made:
        answer = made.ask("initiative")
    assert answer.pl()["role"].to_list() == ["user"]
    assert "companion" not in answer.finding


@pytest.mark.slow
def test_who_goes_on_in_another_conversation_has_not_begun_a_new_session():
    with world(
        talk(
            said(0),
            said(600, conversation="d"),
            said(650, "assistant", conversation="d"),
            said(660, conversation="e", user=None),
            said(1700, "assistant"),
            said(9000, conversation="d"),
        )
    ) as made:
        person = {"scope": "person"}
        assert made.ask("sessions").pl()["n"].sum() == 4
        row = made.ask("sessions", **person).pl().row(0, named=True)
        assert (row["n"], row["messages"], row["turns"]) == (3, 2, 2)  # 4, 1 and nobody's 1
        ends = made.ask("initiative", **person).pl()
        assert ends["share_ended"].to_list() == pytest.approx([100 / 3, 200 / 3])
        in_d = made.ask("sessions", filters={"channel": "d"}, **person).pl()
        assert (in_d["n"].sum(), in_d["messages"].item()) == (2, 1.5)
        alone = made.ask("sessions", filters={"user": "u"}, **person).pl()
        assert alone["n"].sum() == 2
        with pytest.raises(InvalidValue, match="scope must be one of conversation, person"):
            made.ask("sessions", scope="channel")


@pytest.mark.slow
def test_the_sessions_of_real_people_are_those_that_polars_counts():
    """By who opened each conversation: the partner stands in for the companion."""
    raw = real_messages()
    opened = raw.filter(pl.col("role") == "user").select("conversation_id", person="user_id")
    theirs = raw.join(opened.unique(), on="conversation_id").sort("timestamp")

    def count(key):
        gap = theirs.select(pl.col("timestamp").diff().over(key)).to_series()
        return int((gap.is_null() | (gap > timedelta(minutes=30))).sum())

    with world(raw) as made:
        for scope, key, expected in (
            ("conversation", "conversation_id", 588), ("person", "person", 482),
        ):  # fmt: skip
            found = made.ask("sessions", scope=scope).pl()["n"].sum()
            assert found == count(key) == expected


@pytest.mark.parametrize("name", ["sessions", "session_length", "initiative"])
@pytest.mark.parametrize("gap", [0, -1, 1e-6, 1e12])
def test_a_gap_that_is_no_silence_is_refused(name, gap):
    with world(talk(said(0))) as made, pytest.raises(InvalidValue, match="gap_minutes must"):
        made.ask(name, gap_minutes=gap)


@pytest.mark.parametrize("cutoff", [0, -3, 1e9])
def test_a_cutoff_that_cuts_everything_or_nothing_is_refused(cutoff):
    with world(talk(said(0))) as made, pytest.raises(InvalidValue, match="cutoff_hours must"):
        made.ask("reply_latency", cutoff_hours=cutoff)


@pytest.mark.slow
def test_half_an_hour_is_what_the_stored_sessions_are_made_with():
    """The stored ones and those that are made with the question are the same."""
    messages = real_messages(2_000)
    assert sessions_of(messages_of(messages)) == sessions_of(messages_of(messages, HALF_AN_HOUR))
