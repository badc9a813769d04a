"""Outcomes of conversations, by version and by traits of the companion's personality.

People were not assigned to versions at random, so an association need not be an effect.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import ibis
import polars as pl
from ibis import _

from aico_lab import charts
from aico_lab.constants import MS_PER_MINUTE
from aico_lab.mart.sums import total
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.filters import Filters
from aico_lab.metrics.engine.intervals import FEWEST, estimate, mean
from aico_lab.metrics.engine.metric import Column, RoleFilter, interval, metric
from aico_lab.metrics.engine.people_of_conversations import people_of_conversations

if TYPE_CHECKING:
    from collections.abc import Sequence

    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


_PARTS: Final = ["low", "middle", "high"]


_VALUES: Final = (
    Column("outcome", "text", "the outcome"),
    Column("n", "integer", "sessions, or ratings"),
    Column("people", "integer", "people with sessions or ratings in the row"),
    Column("value", "number", "mean of the outcome"),
    *interval("value"),
)


def _with_profile(moments: ir.Table, talk: Talk, *, key: Sequence[str]) -> ir.Table:
    """Return each moment with the profile version active for its person; others are left out.

    Versions for one context only are no versions of a whole session, so they are left out, too.

    Args:
        moments: A table with `user_id` and `at_ms`.
        talk: The source of the versions.
        key: The columns that identify a moment.
    """
    profiles = talk.profiles.filter(_.context.isnull())
    own = moments.join(profiles, moments.user_id == profiles.profile_user_id)
    shared = moments.cross_join(profiles.filter(profiles.profile_user_id.isnull()))
    both = own.mutate(is_own=True).union(shared.mutate(is_own=False))
    active = both.filter(
        (both.at_ms >= both.active_from_ms)
        & (both.active_until_ms.isnull() | (both.at_ms < both.active_until_ms))
    )
    best_first = ibis.window(
        group_by=key,
        order_by=[
            ibis.desc("is_own"), ibis.desc("active_from_ms"), ibis.desc("version"), "profile_id",
        ],
    )  # fmt: skip
    placed = active.mutate(place=ibis.row_number().over(best_first))
    return placed.filter(placed.place == 0).mutate(
        whose=ibis.ifelse(placed.is_own, "own", "everybody")
    )


def _outcomes(talk: Talk) -> ir.Table:
    """Return the sum and the count of every outcome, by profile and person."""
    # Unfiltered messages: a session that began in the period counts as a whole.
    everything = replace(talk, filters=Filters(timezone=talk.filters.timezone))
    moods = (
        everything.messages.filter(_.role == "user")
        .group_by("conversation_id", "session_idx")
        .agg(total=total(_.sentiment_score), scored=_.sentiment_score.count())
    )
    sessions = talk.sessions().filter(_.user_id.notnull()).mutate(at_ms=_.started_ms)
    place = ["conversation_id", "session_idx"]
    sessions = sessions.left_join(moods, place).select(
        *place,
        "user_id",
        "at_ms",
        "n_user_messages",
        minutes=(_.ended_ms - _.started_ms) / MS_PER_MINUTE,
        mood=_.total / _.scored.nullif(0),
    )
    held = _with_profile(sessions, talk, key=place)
    measured = {
        "sentiment of the user": held.mood,
        "messages of the user": held.n_user_messages.cast("float64"),
        "minutes": held.minutes,
    }
    columns = ["whose", "version", "profile_id", "user_id"]
    tables = [
        held.select(*columns, outcome=ibis.literal(name), value=value)
        for name, value in measured.items()
    ]
    said = talk.feedback.left_join(people_of_conversations(talk), "conversation_id")
    ratings = said.select(
        "event_id",
        "name",
        "value",
        user_id=ibis.coalesce(said.user_id, said.person),
        at_ms=said.ts_ms,
    ).filter(_.user_id.notnull())
    rated = _with_profile(ratings, talk, key=["event_id"])
    tables.append(
        rated.select(*columns, outcome=ibis.literal("feedback: ") + rated.name, value=rated.value)
    )
    long = ibis.union(*tables)
    return (
        long.filter(long.value.notnull())
        .group_by(*columns, "outcome")
        .agg(total=total(_.value), n=_.value.count())
    )


def _means(rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    found = estimate(
        rows.drop("user_id").with_columns(known=True),
        by=by,
        unit="people",
        counted="sessions and ratings",
        statistics={"value": mean("total", "n")},
    )
    return found.with_columns(pl.col("n").cast(pl.Int64))


def _draw_outcomes(rows: pl.DataFrame, row: str, order: list[str]) -> Chart:
    import altair as alt

    base = alt.Chart(rows).encode(alt.Y(f"{row}:N", title=None, sort=order))
    x = alt.X("value:Q", title=None).scale(zero=False)
    points = base.mark_point(size=70, opacity=1, color=charts.BLUE).encode(x)
    height = max(40, draw.LINE * len(order))
    layers = alt.layer(*draw.intervals(base, rows, "value"), points)
    panels = layers.properties(width=draw.WIDTH // 2 - 70, height=height)
    return panels.facet(alt.Facet("outcome:N", title=None), columns=2).resolve_scale(
        x="independent"
    )


def _describe_outcomes(rows: pl.DataFrame, compared: str) -> str:
    people = int(rows["people"].max() or 0)  # type: ignore[arg-type]
    if people < FEWEST:
        return f"{claims.too_little(people, 'people')}; {compared}"
    return (
        f"{compared} with sessions or ratings; differences are associations, not effects"
        f"{claims.doubt(people, 'people')}"
    )


def _draw_profiles(answer: Answer) -> Chart:
    rows = answer.pl().with_columns(
        profile=pl.format("{}, version {}", pl.col("whose"), pl.col("version"))
    )
    return _draw_outcomes(rows, "profile", rows["profile"].unique(maintain_order=True).to_list())


@metric(
    domain="personality",
    question="How did conversations go under each version of the companion's personality?",
    source="AICO's data layer, personality adaptation insights",
    columns=[
        Column(
            "whose",
            "text",
            "'own' if the profile was made for the person, 'everybody' if the profile is shared",
        ),
        Column("version", "integer", "version of the profile"),
        *_VALUES,
    ],
    role=RoleFilter.REFUSED,
    finish=lambda rows, _talk: _means(rows, ["whose", "version", "outcome"]),
    finding=lambda rows: _describe_outcomes(
        rows, claims.counted(rows.select("whose", "version").n_unique(), "versions")
    ),
    chart=_draw_profiles,
)
def outcomes_by_profile(talk: Talk) -> ir.Table:
    """Mean outcomes of the sessions that began, and ratings given, while a version was active.

    A person's own version takes precedence over the version for everybody; of several active
    versions the one activated last applies. Outcomes of a session are the mean score of the user's
    messages, their number, and the minutes from its first to its last message. Each kind of
    feedback is an outcome too; its person is the one it names, or else that of its conversation.
    Ratings of a conversation of several people that name nobody are left out. All sessions and all
    ratings have the same weight. Sessions without a named person, and those without an active
    version, are left out.

    These are associations, not effects: versions were not assigned at random, and later versions
    also mean later times, and people who stayed.
    """
    return (
        _outcomes(talk)
        .group_by("whose", "version", "outcome", "user_id")
        .agg(total=total(_.total), n=_.n.sum())
    )


def _finish_styles(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    found = _means(rows, ["trait", "part", "outcome"])
    return found.sort("trait", pl.col("part").cast(pl.Enum(_PARTS)), "outcome")


def _draw_styles(answer: Answer) -> Chart:
    rows = answer.pl().with_columns(style=pl.format("{}: {}", "trait", "part"))
    return _draw_outcomes(rows, "style", rows["style"].unique(maintain_order=True).to_list())


@metric(
    domain="personality",
    question="How did conversations go at low, middle and high levels of each trait?",
    source="AICO's data layer, personality adaptation insights",
    columns=[
        Column("trait", "text", "trait of the profile"),
        Column("part", "text", "level of the trait: low, middle or high"),
        *_VALUES,
    ],
    role=RoleFilter.REFUSED,
    finish=_finish_styles,
    finding=lambda rows: _describe_outcomes(
        rows, claims.counted(rows["trait"].n_unique(), "traits")
    ),
    chart=_draw_styles,
)
def outcomes_by_style(talk: Talk) -> ir.Table:
    """The outcomes of `outcomes_by_profile`, by the level of each trait of the active version.

    Levels range from 0 to 1: low is below 1/3, high is at least 2/3. If a trait has levels outside
    0 to 1, the thirds are those of the range between its lowest and highest level in all versions;
    if that range is a single level, it is the middle. Traits that are not numbers are left out.

    These are associations, not effects: styles were not assigned at random, and traits change
    together from version to version.
    """
    traits = talk.traits
    of_trait = ibis.window(group_by="trait")
    traits = traits.mutate(least=traits.level.min().over(of_trait),
                           most=traits.level.max().over(of_trait))  # fmt: skip
    usual = (traits.least >= 0) & (traits.most <= 1)
    lowest = ibis.ifelse(usual, 0.0, traits.least)
    width = ibis.ifelse(usual, 1.0, traits.most - traits.least)
    share = ibis.coalesce((traits.level - lowest) / width.nullif(0), 0.5)
    low, middle, high = _PARTS
    part = ibis.cases((share < 1 / 3, low), (share < 2 / 3, middle), else_=high)
    styles = traits.select("profile_id", "trait", part=part)
    return (
        _outcomes(talk)
        .join(styles, "profile_id")
        .group_by("trait", "part", "outcome", "user_id")
        .agg(total=total(_.total), n=_.n.sum())
    )
