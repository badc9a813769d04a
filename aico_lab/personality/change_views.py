"""Views of proposed and of applied changes of a personality, for notebooks and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from aico_lab import charts
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.days import written_day
from aico_lab.personality.change_log import change_logs
from aico_lab.personality.views import PersonalityView, labelled
from aico_lab.personality.watching import watch
from aico_lab.zones import to_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import altair as alt

    from aico_lab.domain import PersonalityChange
    from aico_lab.etl.reader import Reader
    from aico_lab.personality.proposals import Proposal


def proposed(proposal: Proposal) -> PersonalityView:
    """Return a proposal, or why there is none, with every arm that was compared."""
    rows = pl.DataFrame(
        [
            {
                "arm": one.arm,
                "steps": _steps(one.steps),
                "effect": None if effect is None else effect.value,
                "interval": None
                if effect is None or effect.low is None or effect.high is None
                else f"{claims.written(effect.low)} to {claims.written(effect.high)}",
                "people": proposal.people,
                "sentence": one.sentence if effect is None or effect.value is None else None,
            }
            for one in proposal.candidates
            for effect in [one.effect]
        ],
        schema={"arm": pl.String, "steps": pl.String, "effect": pl.Float64,
                "interval": pl.String, "people": pl.Int64, "sentence": pl.String},
    )  # fmt: skip
    then = "" if proposal.arm is None else (
        "It is not stored: “aico-lab personality propose” stores it, and “apply” applies it."
    )  # fmt: skip
    return PersonalityView(
        f"Which change of the personality would improve {proposal.goal.replace('_', ' ')}?",
        claims.with_minus(proposal.sentence.replace("_", " ")),
        rows,
        {"arm": "arm", "steps": "change", "effect": "expected effect",
         "interval": "valid at every look", "sentence": "why not"},
        " ".join(filter(None, [proposal.needed, then])),
    )  # fmt: skip


def after_change(reader: Reader, changes: Sequence[PersonalityChange]) -> PersonalityView:
    """Return how outcomes developed since the last change that was applied.

    Args:
        reader: The reader of the snapshot.
        changes: The changes in question, of `lab.personality.changes()`.
    """
    question = "What happened after the last change?"
    applied = [one for one in changes if one.applied_at is not None]
    if not applied:
        return PersonalityView(
            question, "No proposed change of the personality was applied", pl.DataFrame(), {}
        )
    last = max(applied, key=lambda one: one.applied_at or one.proposed_at)
    logs = change_logs(reader, last)
    if not logs:
        none = "No decision that the last change reaches is in the snapshot"
        return PersonalityView(question, none, pl.DataFrame(), {})
    found = watch(logs[0], to_ms(last.applied_at or last.proposed_at), guardrails=logs[1:])
    rows = pl.DataFrame(
        [
            {
                "outcome": one.outcome.replace("_", " "), "people": one.people,
                "value": one.value, "value_low": one.low, "value_high": one.high,
                "margin": one.margin, "better": one.better,
            }
            for one in (found.goal, *found.guardrails)
        ],
        schema_overrides={
            "value": pl.Float64, "value_low": pl.Float64, "value_high": pl.Float64,
            "margin": pl.Float64,
        },
    )  # fmt: skip
    watched = last.status == "applied"
    state = "is watched" if watched else f"was {last.status}"
    says = f"outcomes since say {found.recommendation}: {found.reason}"
    said = (
        f"The change of {written_day((last.applied_at or last.proposed_at).date())} "
        f"({_steps(last.steps) or 'no step'}) {state}"
        f"{'; ' + says.rstrip('.').replace('_', ' ') if watched else ''}"
    )
    return PersonalityView(
        question,
        labelled(said, simulated=logs[0].simulated),
        rows,
        {"outcome": "outcome", "people": "people", "value": "change",
         "value_low": "at every look from", "value_high": "at every look to",
         "margin": "accepted worsening", "better": "better"},
        "Whole weeks after minus as many before, each person alike, valid at every look. "
        "There is no control group: other things may have changed at the same time.",
        _draw_changes,
    )  # fmt: skip


def _steps(steps: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {claims.written(step, signed=True)}"
        for name, step in steps.items()
    )


def _draw_changes(rows: pl.DataFrame) -> alt.TopLevelMixin:
    import altair as alt

    rows = rows.drop_nulls("value")
    base = alt.Chart(rows).encode(alt.Y("outcome:N", title=None, axis=None))
    zero = alt.Chart(rows).mark_rule(color=charts.GREY, strokeDash=[4, 4])
    x = alt.X("value:Q", title=None)
    points = base.mark_point(size=70, opacity=1, color=charts.BLUE).encode(x)
    layers = alt.layer(
        zero.encode(x=alt.XDatum(0)), *draw.intervals(base, rows, "value"), points
    ).properties(width=draw.WIDTH // 2 - 70, height=draw.LINE)
    panels = alt.Facet("outcome:N", title=None)
    chart: alt.TopLevelMixin = layers.facet(panels, columns=2).resolve_scale(
        x="independent", y="independent"
    )
    return chart
