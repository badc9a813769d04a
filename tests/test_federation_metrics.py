"""Metrics are equal on all of a person's devices, to the last digit."""

from __future__ import annotations

import json

import ibis
import polars as pl
import pytest

from aico_lab.embeddings.exploration.selection import People
from aico_lab.mart import sums
from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.metrics.engine.pseudonyms import NAMES
from tests.simulated import attitudes, population

PEOPLE = 25


@pytest.fixture
def two(tmp_path, homes):
    """Return two homes that are devices, and the folder between them."""
    folder = tmp_path / "shared"
    folder.mkdir()
    a, b = homes.open(tmp_path / "a"), homes.open(tmp_path / "b")
    a.devices.federation.begin("laptop")
    keys = b.devices.federation.create_keys()
    b.devices.federation.join(json.loads(json.dumps(a.devices.federation.invite(keys, "phone"))))
    yield a, b, folder
    a.close()
    b.close()


def store(lab, table, rows):
    """Insert rows as another program would."""
    rows = rows.with_columns(
        pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        for name, type_ in rows.schema.items()
        if isinstance(type_, pl.Datetime)
    )
    with lab.primary.transaction():
        lab.primary.insert_many(table, rows.columns, rows.rows())


def conversations():
    """Return messages in whole seconds, so that many have the time of the one before."""
    said = population(people=PEOPLE)
    return said.with_columns(
        timestamp=said["timestamp"].dt.truncate("10s"),
        message_id=pl.format("m{}", 100_000 - said["id"]),  # in another order
    ).drop("id", "reply_to", "metadata")


@pytest.mark.slow
def test_metrics_are_equal_on_both_devices(two):
    a, b, folder = two
    said, facts = conversations(), attitudes(people=PEOPLE)
    ties = said.group_by("conversation_id").agg(n=pl.col("timestamp").is_duplicated().sum())
    assert ties["n"].sum() > len(said) / 10
    for lab, odd in ((a, 0), (b, 1)):  # the later half of the people first, on one of them
        is_here = pl.col("user_id").str.slice(1).cast(pl.Int64) % 2 == odd
        here = said.filter(is_here)
        users = here.select("user_id").unique(maintain_order=True)
        store(lab, "users", users.with_columns(name="user_id", created_at=pl.lit("2024")))
        channels = here.select("channel_id").unique(maintain_order=True)
        store(lab, "channels", channels.with_columns(created_at=pl.lit("2024")))
        store(lab, "messages", here)
        ratings = facts["feedback_events"].filter(is_here).drop("metadata")
        store(lab, "feedback_events", ratings.with_columns(kind=pl.lit("rating")))
        for user, key, value in facts["preference_changes"].filter(is_here).select(
            "user_id", "preference_key", "value"
        ).rows():  # fmt: skip
            with lab.primary.transaction():
                lab.primary.execute(
                    "INSERT INTO preferences VALUES (?, ?, ?, '2024') ON CONFLICT DO UPDATE "
                    "SET value = excluded.value", [user, key, value],
                )  # fmt: skip
    store(b, "personality_profiles", facts["personality_profiles"].drop("context"))
    for lab in (b, a, b):
        lab.devices.sync(folder=folder)
    with a.primary.transaction():
        a.primary.execute("UPDATE messages SET sentiment_score = 0.123456789 WHERE id % 7 = 0")
    for lab in (a, b):
        lab.devices.sync(folder=folder)
    ids = "SELECT message_id FROM messages ORDER BY id"
    assert a.primary.fetch_all(ids) != b.primary.fetch_all(ids)
    for lab in (a, b):
        lab.sync()
        numbers = lab.sql("SELECT user_id, pseudonym FROM mart.people").fetchall()
        people = People(lab.primary)
        assert {user: people.label(user) for user, _ in numbers} == dict(numbers)
    different = []
    for name in CATALOGUE:
        for names in (False, True):
            asked = {"names": True} if names else {}
            if names and NAMES not in CATALOGUE[name].parameters:
                continue
            one, other = a.metrics[name](**asked), b.metrics[name](**asked)
            if not one.pl().equals(other.pl()) or one.finding != other.finding:
                different.append((name, names))
    assert different == []


def test_the_sum_of_fractions_does_not_depend_on_their_order():
    connection = ibis.duckdb.connect()
    numbers = [None, 1.0, 1.0, 1.0, 1e16]
    total = sum(numbers[1:])
    assert total != sum(reversed(numbers[1:]))
    for some in (numbers, numbers[::-1]):
        x = ibis.memtable({"x": some}, schema={"x": "float64"}).x
        assert connection.execute(sums.total(x)) == total
        assert connection.execute(sums.average(x)) == total / 4
