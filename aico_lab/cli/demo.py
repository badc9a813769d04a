"""The demo: import real conversations, write a report, and suggest next commands."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from aico_lab.cli.common import program
from aico_lab.cli.import_results import REPORT, import_with_progress
from aico_lab.cli.output import Bar, emit, say
from aico_lab.config import Settings
from aico_lab.home.folder import Home

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.lab import Lab
    from aico_lab.messages.records import Batch

HEADLINES = """
    SELECT
        count(*) AS messages,
        count(DISTINCT conversation_id) AS conversations,
        count(DISTINCT user_id) FILTER (role = 'user') AS people,
        min(timestamp)::VARCHAR AS first_message,
        max(timestamp)::VARCHAR AS last_message,
        round(avg(sentiment_score), 3) AS average_sentiment,
        median(response_time) AS median_response_seconds
    FROM conversations
"""

PERSONALITY_REPORT = "personality_adaptation"

SIMULATED_HEADLINES = """
    SELECT
        count(*) AS decisions,
        count(DISTINCT user_id) AS people,
        (SELECT count(*) FROM raw.feedback_events) AS ratings
    FROM mart.decisions
"""

LAST_PEOPLE = """
    SELECT user_id FROM conversations WHERE user_id IS NOT NULL
    GROUP BY 1 ORDER BY max(timestamp) DESC, 1 LIMIT 20
"""


def run_demo(lab: Lab, *, limit: int | None, json: bool) -> None:
    """Import, sync and report; skip the steps that were done before."""
    from aico_lab.sources import SOURCES

    started = time.perf_counter()
    imported = import_with_progress(lab, SOURCES["chitchat"], None, limit=limit)
    with Bar("rows") as bar:
        synced = lab.sync(progress=lambda table, rows, all_: bar.show(f"sync {table}", rows, all_))
    report = _existing_report(lab, synced.generation)
    if report is None:
        with Bar("cells") as bar:
            report = lab.reports.run(
                REPORT, on_cell=lambda done, all_: bar.show(f"report {REPORT}", done, all_)
            ).html
    _talk_again(lab)
    relation = lab.sql(HEADLINES)
    assert relation is not None  # noqa: S101 - a SELECT has a result
    row = relation.fetchone() or ()
    headlines = dict(zip(relation.columns, row, strict=True))
    seconds = time.perf_counter() - started
    if json:
        emit(
            {
                **headlines,
                "added": imported.added,
                "quarantined": sum(synced.quarantined.values()),
                "generation": synced.generation,
                "seconds": round(seconds, 2),
                "report": report,
                "home": lab.home.path,
            }
        )
        return
    say(
        f"{headlines['messages']:,} messages in {headlines['conversations']:,} conversations of "
        f"{headlines['people']:,} people"
    )
    say(f"from {headlines['first_message'][:10]} to {headlines['last_message'][:10]} (UTC)")
    say(f"average sentiment     {headlines['average_sentiment']:+z.3f} (-1 to 1)")
    say(f"median response time  {headlines['median_response_seconds'] or 0:.0f} s")
    say(f"{imported.added:,} messages were new; this took {seconds:.1f} s")
    say(f"\nReport: {report}")
    say("\nNext:")
    for command in _next_commands(lab.home.path):
        say(f"  {program()} {shlex.join(command)}")
    own = _own_home(lab.home.path)
    say("\nFor your own conversations, in a separate home:")
    if not own.marker.exists():
        say(f"  {program()} {shlex.join(['init', '--home', str(own.path)])}")
    say(f"  {program()} {shlex.join(['import', '--home', str(own.path), 'jsonl'])} FILE")


def run_personality_demo(lab: Lab, *, json: bool) -> None:
    """Simulate, sync and report; skip the steps that were done before."""
    from aico_lab.personality.simulated_home import write_simulated_home

    started = time.perf_counter()
    with Bar("messages") as bar:
        done = 0

        def show(batch: Batch) -> None:
            nonlocal done
            done += len(batch.messages)
            bar.show("simulate", done, None)

        write_simulated_home(lab.primary, progress=show)
    with Bar("rows") as bar:
        synced = lab.sync(progress=lambda table, rows, all_: bar.show(f"sync {table}", rows, all_))
    report = _existing_report(lab, synced.generation, PERSONALITY_REPORT)
    if report is None:
        with Bar("cells") as bar:
            report = lab.reports.run(
                PERSONALITY_REPORT,
                on_cell=lambda cell, all_: bar.show(f"report {PERSONALITY_REPORT}", cell, all_),
            ).html
    relation = lab.sql(SIMULATED_HEADLINES)
    assert relation is not None  # noqa: S101 - a SELECT has a result
    headlines = dict(zip(relation.columns, relation.fetchone() or (), strict=True))
    seconds = time.perf_counter() - started
    if json:
        emit(
            {"simulated": True, **headlines, "generation": synced.generation,
             "seconds": round(seconds, 2), "report": report, "home": lab.home.path}
        )  # fmt: skip
        return
    say(
        f"Simulated data: {headlines['decisions']:,} decisions about {headlines['people']:,} "
        f"people, with {headlines['ratings']:,} ratings; this took {seconds:.1f} s"
    )
    say(f"\nReport: {report}")
    say("\nNext:")
    here = ["--home", str(lab.home.path)]
    for command in (["personality", "status", *here], ["personality", "propose", *here]):
        say(f"  {program()} {shlex.join(command)}")


def _talk_again(lab: Lab) -> None:
    """Read the context of the last conversations, as a companion does, which fills the cache."""
    import asyncio

    from aico_lab.domain import ConversationService
    from aico_lab.repositories import (
        CachedSessions,
        CachedUserRepository,
        LibSQLConversationRepository,
        LibSQLMemoryRepository,
        LibSQLUserRepository,
    )

    async def read(people: list[str]) -> None:
        async with lab.data_access() as dal:
            cache = lab.cache.available
            service = ConversationService(
                LibSQLConversationRepository(dal),
                LibSQLMemoryRepository(dal, lab.memories.index),
                sessions=CachedSessions(dal, cache),
            )
            users = CachedUserRepository(LibSQLUserRepository(dal), dal, cache)
            for person in people * 2:  # at first sight, and with the next message
                await users.get_by_id(person)
                await service.context(person)

    relation = lab.sql(LAST_PEOPLE)
    assert relation is not None  # noqa: S101 - a SELECT has a result
    asyncio.run(read([person for (person,) in relation.fetchall()]))


def _next_commands(demo: Path) -> list[list[str]]:
    here = ["--home", str(demo)]
    return [
        ["sql", *here, "SELECT role, count(*) FROM conversations GROUP BY 1"],
        ["metrics", "show", "reply_latency", "--since", "30d", *here],
        ["report", "run", REPORT, "-p", "since=7d", "-p", "timezone=America/Denver", *here],
        ["lab", *here],
    ]


def _own_home(demo: Path) -> Home:
    """Return the home that commands use without `--home`, or another one if that is the demo's."""
    usual = Settings.resolve().home
    return Home(usual if usual != demo else demo.with_name(f"{demo.name}-own"))


def _existing_report(lab: Lab, generation: int, name: str = REPORT) -> Path | None:
    """Return the path of a report on this snapshot, or None if it does not exist."""
    for run in lab.reports.list(name):
        file = lab.reports.page(run)
        if run.status == "succeeded" and run.generation == generation and file.exists():
            return file
    return None
