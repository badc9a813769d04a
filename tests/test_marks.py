"""Marks of rows: which numbers are times, in which unit, and what is capped at the present."""

from __future__ import annotations

import math
import time

import pytest

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.etl.marks import of_column, of_row_id

NOW = int(time.time())
SOON = NOW + 86_400  # a day in the future
YEAR_1990 = 631_152_000_000  # in milliseconds: the earliest that counts as such a time
NO_SECONDS = 10**11  # a number from here on is no time in seconds


@pytest.fixture
def marks(tmp_path):
    """Store values in a column without a type, and return its marks, capped or not, and unit."""

    def read(*values):
        with LibSQLAdapter(tmp_path / "t.db", None).connect() as connection:
            connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
            connection.execute_many("INSERT INTO t (v) VALUES (?)", [[value] for value in values])
            mark = of_column(connection, "t", "t.v")
            found = connection.fetch_all(f"SELECT {mark.sql}, {mark.capped} FROM t ORDER BY id")
        return [m for m, _ in found], [c for _, c in found], mark.in_millis

    return read


def is_now(mark, since):
    """Return whether a mark is a time since an earlier one, to the millisecond, until now."""
    return since - 0.002 <= mark <= time.time()


@pytest.mark.parametrize("values", [[10**8, SOON, 5], [NOW - 1, SOON, -5], [NOW - 1.5, SOON + 0.5]])
def test_numbers_of_which_one_is_a_past_second_are_seconds(marks, values):
    """Whole ones stay whole, and a time in the future is capped at the present one."""
    since = time.time()
    found, capped, in_millis = marks(*values)
    assert (repr(found), in_millis) == (repr(values), False)
    assert is_now(capped.pop(1), since)
    assert capped == [values[0], *values[2:]]


@pytest.mark.parametrize(
    "values",
    [
        [10**8 - 1, SOON],  # before 1973
        [NOW, NO_SECONDS],  # beyond what a second can be
        [NOW, SOON * 1000],  # both units
        [SOON],  # the future alone
        [SOON * 1000],
        [YEAR_1990 - 1, SOON * 1000],  # before 1990
        [NOW * 1000, NO_SECONDS - 1],  # too low for such a time
        [NOW * 1000, 1],
        [NOW * 1000, -1],
        [-(10**9), 3],
    ],
)
def test_other_numbers_are_counters_and_never_capped(marks, values):
    assert marks(*values) == (values, values, False)


def test_the_highest_number_of_seconds_is_a_time_in_the_future(marks):
    since = time.time()
    found, capped, in_millis = marks(NOW, NO_SECONDS - 1)
    assert (found, in_millis) == ([NOW, NO_SECONDS - 1], False)
    assert is_now(capped[1], since)


@pytest.mark.parametrize(
    "earliest", [YEAR_1990, YEAR_1990 + 1, (NOW - 1) * 1000], ids=["first", "next", "last"]
)
def test_numbers_of_which_one_is_a_past_millisecond_are_milliseconds(marks, earliest):
    """Their marks are seconds, with the fraction; zero stands for an unknown time."""
    since = time.time()
    found, capped, in_millis = marks(earliest, NO_SECONDS, SOON * 1000, 0, SOON * 1000 + 0.5)
    assert in_millis
    assert found == [earliest / 1000, 10**8, SOON, 0, SOON + 0.0005]
    assert capped[:2] == found[:2]
    assert capped[3] == 0
    assert is_now(capped[2], since)
    assert is_now(capped[4], since)


def test_zeros_alone_are_counters(marks):
    assert marks(0, 0.0) == ([0, 0], [0, 0], False)


def test_texts_are_times_if_they_begin_with_a_year(marks):
    """And nothing else: neither `now`, nor digits, which SQLite would take for the day's number."""
    texts = ["1970-01-02", "1970-01-01T00:00:01.250Z", "now", "2460000", "1.5", "12-01-02", ""]
    expected = [86_400, 1.25, None, None, None, None, None]
    assert marks(*texts) == (expected, expected, False)


def test_a_text_in_the_future_is_capped_whatever_numbers_stand_beside_it(marks):
    since = time.time()
    found, capped, _ = marks("2999-01-01", 7)
    assert (found[1], capped[1]) == (7, 7)
    assert found[0] > SOON
    assert is_now(capped[0], since)


def test_what_is_no_number_and_no_time_has_no_mark(marks):
    """An infinite number would be the highest for ever."""
    values = [math.inf, -math.inf, None, b"2024-01-01", 1.5, -1.5]
    expected = [None, None, None, None, 1.5, -1.5]
    assert marks(*values) == (expected, expected, False)


def test_an_empty_column_has_counters(marks):
    assert marks() == ([], [], False)


def test_marks_of_row_ids_are_the_row_ids():
    mark = of_row_id('t."id"')
    assert (mark.sql, mark.capped, mark.in_millis) == ('t."id"', 't."id"', False)
