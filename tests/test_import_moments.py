"""Times that are those of an import into another program, not of the messages."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.exported import read, telegram_chat
from tests.test_exports_pigpig import MIRA, PIG, database, row

START = 1_714_557_607


def telegram(tmp_path, *chats):
    """Read chats, each a list of (second, author); author 1 is the companion."""
    listed = []
    for number, messages in enumerate(chats, 1):
        chat = telegram_chat(number, *range(len(messages)))
        for said, (second, author) in zip(chat["messages"], messages, strict=True):
            said["date_unixtime"] = str(START + second)
            said["from"], said["from_id"] = ("Ada", "Otto")[author], f"user{author}"
        listed.append(chat)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(
        {"about": "", "personal_information": {}, "chats": {"about": "", "list": listed}}
    ))  # fmt: skip
    return lambda **options: read("telegram", path, companion=("Otto",), **options)


def talk(count, *, at=0, step=0):
    """Return alternating messages."""
    return [(at + number * step, number % 2) for number in range(count)]


def estimated(got):
    return [bool(one.get("timestamp_estimated")) for one in got.metadata]


def test_a_chat_whose_messages_are_all_at_once_is_refused_and_said(tmp_path):
    reading = telegram(tmp_path, talk(8), talk(8, at=900, step=60))
    got = reading()
    assert len(got.messages) == 8
    assert "--trust-times" in got.rejected[0].reason
    assert "all 8 messages have the same time" in got.rejected[0].reason
    assert len(reading(trust_times=True).messages) == 16


def test_a_bots_burst_is_no_import(tmp_path):
    """One side may write many messages at once."""
    got = telegram(tmp_path, [(0, 1)] * 40)()
    assert (len(got.messages), got.rejected, any(estimated(got))) == (40, [], False)
    among = telegram(tmp_path, [*talk(4, step=60), *[(600, 1)] * 50, *talk(4, at=700, step=60)])()
    assert (len(among.messages), any(estimated(among))) == (58, False)


@pytest.mark.parametrize("imported", [40, 1_000, 2_500])
def test_an_imported_beginning_does_not_cost_what_was_said_later(tmp_path, imported):
    """Also if it is longer than what is read ahead. Its times are marked, and nothing is lost."""
    chat = [*talk(imported), *talk(30, at=3600, step=60)]
    got = telegram(tmp_path, chat)()
    assert len(got.messages) == imported + 30
    assert estimated(got) == [True] * imported + [False] * 30
    assert not got.rejected
    assert sum(batch.estimated for batch in got.batches) == imported


def test_the_ids_of_an_imported_beginning_do_not_depend_on_trust(tmp_path):
    reading = telegram(tmp_path, [*talk(40), *talk(4, at=3600, step=60)])
    assert [m.message_id for m in reading().messages] == [
        m.message_id for m in reading(trust_times=True).messages
    ]


def test_many_small_chats_at_one_moment_are_of_an_import(tmp_path):
    """One chat alone would tell nothing."""
    reading = telegram(tmp_path, *(talk(2, at=second) for second in range(5)))
    got = reading()
    assert (len(got.messages), len(got.rejected)) == (0, 5)
    assert "all conversations have the same time" in got.rejected[0].reason
    assert len(reading(trust_times=True).messages) == 10


def test_small_chats_at_different_times_are_real(tmp_path):
    got = telegram(tmp_path, talk(2), talk(2, at=1), talk(2, at=2), talk(2, at=86_400))()
    assert (len(got.messages), got.rejected) == (8, [])
    assert [m.conversation_id.split()[-1] for m in got.messages[::2]] == ["1", "2", "3", "4"]
    assert len(telegram(tmp_path, talk(2), talk(2, at=1))().messages) == 4


def test_a_minute_of_a_whatsapp_chat_is_no_moment(tmp_path):
    """Its times have no seconds."""
    lines = [f"01.05.24, 10:00 - {('Ada', 'Otto')[n % 2]}: {n}" for n in range(20)]
    path = tmp_path / "WhatsApp Chat with Otto.txt"
    path.write_text("\n".join(lines))
    got = read("whatsapp", path, companion=("Otto",))
    assert (len(got.messages), got.rejected, any(estimated(got))) == (20, [], False)


def stored(tmp_path, talked, at_once):
    """Read a chat of PigPig: real messages a minute apart, then some at given microseconds."""
    start = datetime(2025, 7, 1, 10, tzinfo=UTC)
    times = [start + timedelta(minutes=number) for number in range(talked)]
    times += [start + timedelta(days=60, microseconds=one) for one in at_once]
    rows = [
        row(str(1_000 + number), str(number), *((MIRA, "user"), (PIG, "bot"))[number % 2],
            at=str(time))
        for number, time in enumerate(times)
    ]  # fmt: skip
    database(tmp_path / "memory.db", *rows)
    return read("pigpig", tmp_path / "memory.db")


@pytest.mark.parametrize(
    ("talked", "at_once"),
    [
        (30, range(1, 21)),
        (3, range(1, 13)),
        (30, [0] * 20),
        (3, range(0, 30_000, 3_000)),
        (10, [7] * 6),
    ],
)
def test_a_few_messages_within_milliseconds_have_the_clock_of_a_migration(
    tmp_path, talked, at_once
):
    got = stored(tmp_path, talked, at_once)
    assert estimated(got) == [False] * talked + [True] * len(at_once)
    assert not got.rejected


@pytest.mark.parametrize("at_once", [[7] * 3, range(0, 1_200_000, 100_000), [0] * 6])
def test_a_few_quick_messages_are_real(tmp_path, at_once):
    """A question and its answer may have one time, and whole seconds are coarse."""
    got = stored(tmp_path, 10, at_once)
    assert (len(got.messages), any(estimated(got))) == (10 + len(at_once), False)
