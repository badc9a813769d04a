"""One message of another millennium bends no metric, and is not waited for."""

from __future__ import annotations

import itertools
import resource
import time
import tracemalloc
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from aico_lab.errors import InvalidValue
from aico_lab.metrics import periods
from aico_lab.metrics.catalogue import compile_query
from aico_lab.metrics.filters import Filters
from aico_lab.metrics.registry import CATALOGUE
from aico_lab.metrics.talk import Talk
from aico_lab.metrics.zones import midnight, to_ms
from tests.talks import START, World, said, talk, world

EVERY = list(CATALOGUE)
FIRST = datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
DAY = timedelta(days=1)
ZONES = ("America/New_York", "Pacific/Kiritimati")  # west of UTC in year 1, and far east in 9999
SECONDS, MEGABYTES = 3, 500
"""What any question may take."""


def at(moment: datetime, role: str = "user", **others) -> dict:
    return said(0, role, **others) | {"timestamp": moment}


def ordinary(count: int = 1_000) -> list[dict]:
    """Forty people over half a year, each in a conversation of their own."""
    return [
        said(
            number * 15_000 + number % 7 * 60,
            "assistant" if number % 3 == 2 else "user",
            f"what do you think of number {number}? I like the {number % 9} of them.",
            conversation=f"c{number // 25}",
            user=f"u{number // 25}",
            sentiment=number % 11 / 10 - 0.5,
        )
        for number in range(count)
    ]


def resident_mb() -> float:
    """How much memory this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture(scope="module")
def near():
    with world(talk(*ordinary())) as made:
        yield made


@pytest.fixture(scope="module")
def far():
    ends = [at(FIRST, user="u1", conversation="c1"), at(LAST, "assistant", conversation="c2")]
    with world(talk(*ordinary(), *ends)) as made:
        made.ask("overview", filters={"timezone": "Europe/Berlin"})  # imports, and opens what it needs
        yield made
