"""Tables and charts of personalities, logs and evaluations, for notebooks and reports."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from aico_lab import charts
from aico_lab.adapters.duckdb import translated
from aico_lab.constants import MS_PER_DAY
from aico_lab.mart.simulated import is_simulated
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import FEWEST, UNITS, estimate, mean
from aico_lab.personality.simulate import LABEL
from aico_lab.results import in_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import altair as alt

    from aico_lab.etl.reader import Reader
    from aico_lab.personality.evaluation import Evaluation
    from aico_lab.personality.log import Log

SIMULATED: Final = f"{LABEL}: "
"""How every sentence about simulated data begins."""

_EVERY: Final = "every context"

_CELL: Final = 'style="text-align: left; overflow-wrap: normal;"'
"""The style of cells, whose words are not broken in print."""


@dataclass(frozen=True, repr=False)
class PersonalityView:
    """A table with a finding, and mostly a chart.

    Attributes:
        question: The question that it answers.
        finding: The answer in one sentence.
        headings: The heading of each column that is displayed, by name.
        caption: Remarks.
    """

    question: str
    finding: str
    _rows: pl.DataFrame
    headings: Mapping[str, str]
    caption: str = ""
    _draw: Callable[[pl.DataFrame], alt.TopLevelMixin] | None = field(default=None)

    def pl(self) -> pl.DataFrame:
        """Return the rows."""
        return self._rows

    def plot(self) -> alt.TopLevelMixin | None:
        """Return the chart; None without rows, or if it is only a table."""
        if self._draw is None or self._rows.is_empty():
            return None
        import altair as alt

        if alt.renderers.active != charts.NAME:
            charts.enable()
        charts.describe(self.question, charts.Details({}, dict(self.headings)))
        subtitle = [self.question, *textwrap.wrap(self.caption, 100)]
        title = alt.Title(textwrap.wrap(self.finding, 75), subtitle=subtitle)
        return self._draw(self._rows).properties(title=title)

    def __repr__(self) -> str:
        return "\n".join(filter(None, [self.finding, self.caption, *map(" ".join, self._cells())]))

    def _repr_html_(self) -> str:
        heads = "".join(f"<th {_CELL}>{escape(one)}</th>" for one in self._heads)
        body = "".join(
            "<tr>" + "".join(f"<td {_CELL}>{escape(one)}</td>" for one in row) + "</tr>"
            for row in self._cells()
        )
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
        return (
            f"<p><strong>{escape(self.finding)}</strong><br><small>{escape(self.question)} "
            f"{escape(self.caption)}</small></p>"
            f'<div class="mathjax_ignore" style="overflow-x: auto;">{table if body else ""}</div>'
        )

    @property
    def _shown(self) -> list[str]:
        """The columns that are displayed: those with any value."""
        rows = self._rows
        return [one for one in self.headings if one in rows.columns and rows[one].count()]

    @property
    def _heads(self) -> list[str]:
        return [self.headings[name] for name in self._shown]

    def _cells(self) -> list[list[str]]:
        rows = self._rows.select(self._shown).iter_rows()
        return [
            [claims.with_minus(in_cell(value, claims.written)) for value in row] for row in rows
        ]


def profiles_over_time(reader: Reader, user: str | None = None) -> PersonalityView:
    """Return the traits of the versions for everybody, or of those that reach one person.

    Args:
        reader: The reader of the snapshot.
        user: The id of a person whose own versions are shown, too.
    """
    connection = reader.connection()
    with translated("The snapshot"):
        simulated = is_simulated(connection)
        rows = connection.execute(
            """
            SELECT
                profile_user_id IS NOT NULL AS own, context, version, trait, level,
                active_from_ms AS from_ms,
                coalesce(
                    active_until_ms,
                    greatest((SELECT max(ts_ms) FROM mart.messages), active_from_ms + ?)
                ) AS until_ms,
                active_until_ms IS NULL AS active
            FROM mart.traits
            WHERE profile_user_id IS NULL OR profile_user_id = ?
            ORDER BY trait, own, context NULLS FIRST, from_ms, version""",
            [MS_PER_DAY, user],
        ).pl()  # fmt: skip
    whose = pl.when("own").then(pl.lit(", this person's own")).otherwise(pl.lit(""))
    where = pl.when(pl.col("context").is_null()).then(pl.lit("")).otherwise(
        pl.lit(", ") + pl.col("context")
    )  # fmt: skip
    rows = rows.with_columns(
        row=pl.col("trait").str.replace_all("_", " ") + where + whose,
        since=pl.from_epoch("from_ms", "ms"),
        until=pl.from_epoch("until_ms", "ms"),
        context=pl.col("context").fill_null(_EVERY),
    )
    return PersonalityView(
        "How did the companion's personality change?",
        labelled(_told_of_profiles(rows), simulated=simulated),
        rows.drop("from_ms", "until_ms"),
        {"row": "trait", "version": "version", "level": "level", "since": "from", "until": "until",
         "context": "context"},
        "Levels range from 0 to 1.",
        _draw_profiles,
    )  # fmt: skip


def _told_of_profiles(rows: pl.DataFrame) -> str:
    if rows.is_empty():
        return "No version of the personality is stored"
    versions = rows.select("own", "context", "version").n_unique()
    begun = rows.filter(pl.col("from_ms") == pl.col("from_ms").max())
    last = begun.row(0, named=True)
    earlier = rows.filter(
        pl.col("from_ms") < last["from_ms"], pl.col("context").is_in([_EVERY, last["context"]])
    ).sort(pl.col("own") == last["own"], pl.col("context") == last["context"], "from_ms")
    before = earlier.group_by("trait").agg(old=pl.col("level").last())
    moved = begun.join(before, "trait", maintain_order="left").filter(
        pl.col("level") != pl.col("old")
    )
    steps = ", ".join(
        f"{row['trait'].replace('_', ' ')} from {claims.written(row['old'])} to "
        f"{claims.written(row['level'])}"
        for row in moved.iter_rows(named=True)
    )
    said = claims.counted(versions, "versions")
    return f"{said}; the last one moved {steps}" if steps else said


def _draw_profiles(rows: pl.DataFrame) -> alt.TopLevelMixin:
    import altair as alt

    order = rows["row"].unique(maintain_order=True).to_list()
    rows = rows.with_columns(
        text=pl.Series([claims.written(level) for level in rows["level"]], dtype=pl.String)
    )
    base = alt.Chart(rows).encode(
        alt.X("since:T", title=None), alt.Y("row:N", title=None, sort=order)
    )
    bars = base.mark_bar(color=charts.BLUE, height=16, stroke=charts.PAPER).encode(
        alt.X2("until:T"), draw.shades("level", "Level", 1.0)
    )
    texts = base.mark_text(align="left", dx=4, fontSize=11).encode(text="text:N")
    return alt.layer(bars, texts).properties(width=draw.WIDTH, height=draw.LINE * len(order))


def outcomes_by_arm(log: Log) -> PersonalityView:
    """Return the mean outcome after each arm, by context, with 95 % intervals over people."""
    known = log.observed
    rows = pl.DataFrame(
        {
            "context": np.array([*log.contexts, ""])[log.context[known]],
            "arm": np.array([*log.arms, ""])[log.arm[known]],
            "person": log.person[known],
            "reward": log.reward[known],
        },
        schema={"context": pl.String, "arm": pl.String, "person": pl.Int64, "reward": pl.Float64},
    )
    sums = rows.group_by("context", "arm", "person").agg(
        total=pl.col("reward").sum(), n=pl.len(), known=pl.lit(value=True)
    )
    found = estimate(
        sums.drop("person"),
        by=["context", "arm"],
        unit="people",
        counted="decisions",
        statistics={"value": mean("total", "n")},
    )
    most = int(found[UNITS].max() or 0)  # type: ignore[arg-type]
    share = f"{known.mean():.0%}" if len(log) else "none"
    finding = (
        f"{claims.counted(len(log), 'decisions')} among {claims.counted(len(log.arms), 'arms')}, "
        f"the outcome of {share} is known"
        if most >= FEWEST
        else claims.too_little(most, "people")
    )
    return PersonalityView(
        f"How did people respond to each arm ({log.outcome.name.replace('_', ' ')})?",
        labelled(finding, simulated=log.simulated),
        found.select(
            "context", "arm", pl.col("n").cast(pl.Int64), pl.col("people").cast(pl.Int64),
            "value", "value_low", "value_high",
        ),
        {"context": "context", "arm": "arm", "n": "decisions", "people": "people",
         "value": "mean outcome", "value_low": "from", "value_high": "to"},
        f"The outcome is {log.outcome.definition}; {log.outcome.better} is better. Arms may have "
        "been chosen in other moments, so differences need not be effects.",
        _draw_arms,
    )  # fmt: skip


def _draw_arms(rows: pl.DataFrame) -> alt.TopLevelMixin:
    import altair as alt

    base = alt.Chart(rows).encode(alt.Y("arm:N", title=None))
    x = alt.X("value:Q", title=None).scale(zero=False)
    points = base.mark_point(size=70, opacity=1, color=charts.BLUE).encode(x)
    layers = alt.layer(*draw.intervals(base, rows, "value"), points)
    height = max(40, draw.LINE * rows["arm"].n_unique())
    panels = layers.properties(width=draw.WIDTH // 2 - 70, height=height)
    return panels.facet(alt.Facet("context:N", title=None), columns=2)


def gate_checks(evaluation: Evaluation) -> PersonalityView:
    """Return the gate's verdict on an evaluation, with the result of every check."""
    verdict = evaluation.verdict
    rows = pl.DataFrame(
        [
            {
                "check": one.name,
                "ok": "failed" if not one.ok else "passed" if one.known else "not known",
                "sentence": one.sentence,
            }
            for one in verdict.checks
        ],
        schema={"check": pl.String, "ok": pl.String, "sentence": pl.String},
    )
    said = "The log supports the question" if verdict.supported else "The log supports no estimate"
    needed = "" if verdict.needed is None else verdict.needed.sentence
    finding = f"{said}: {verdict.reason}" if not verdict.supported else verdict.reason
    return PersonalityView(
        f"Can the log tell the value of the policy “{evaluation.policy}”?",
        labelled(finding, simulated=evaluation.simulated),
        rows,
        {"check": "check", "ok": "result", "sentence": "in words"},
        needed,
    )


def policy_values(evaluations: Sequence[Evaluation]) -> PersonalityView:
    """Return the estimated value of each policy with its intervals, and why others have none."""
    rows = pl.DataFrame(
        [
            {
                "policy": one.policy,
                "value": None if main is None else main.value,
                "value_low": None if main is None else main.low,
                "value_high": None if main is None else main.high,
                "anytime_low": None if main is None else main.low_anytime,
                "anytime_high": None if main is None else main.high_anytime,
                "gain": None if main is None else main.gain,
                "gain_low": None if main is None else main.gain_low,
                "gain_high": None if main is None else main.gain_high,
                "baseline": None if one.baseline is None else one.baseline.value,
                "reason": "" if one.verdict.supported else one.verdict.reason,
            }
            for one in evaluations
            for main in [one.main]
        ],
        schema={"policy": pl.String}
        | dict.fromkeys(_NUMBERS, pl.Float64)
        | {"baseline": pl.Float64, "reason": pl.String},
    )
    outcome = evaluations[0].outcome if evaluations else ""
    simulated = any(one.simulated for one in evaluations)
    supported = rows.drop_nulls("value")
    headings = {
        "policy": "policy", "value": "value", "value_low": "from", "value_high": "to",
        "anytime_low": "at every look from", "anytime_high": "at every look to",
        "gain": "gain over the log", "gain_low": "gain from", "gain_high": "gain to",
        "reason": "why not",
    }  # fmt: skip
    return PersonalityView(
        f"How well would each policy do ({outcome.replace('_', ' ')})?",
        labelled(_told_of_policies(evaluations, supported), simulated=simulated),
        rows,
        headings,
        "Doubly robust estimates with 95 % intervals over people; the thin line is valid however "
        "often one looks. The dashed line is the mean of the log."
        + (_HEAVY if outcome in _UNEVEN else ""),
        _draw_policies if supported.height else None,
    )


_NUMBERS: Final = (
    "value", "value_low", "value_high", "anytime_low", "anytime_high", "gain", "gain_low",
    "gain_high",
)  # fmt: skip


_UNEVEN: Final = ("reply_latency", "disclosure_length")
"""The outcomes of which some may be far above the rest."""

_HEAVY: Final = (
    " Where some outcomes are far above the rest, intervals of a value are too narrow: in "
    "simulations they held the truth in 87 to 90 %, those of a gain in 93 to 95 %."
)


def _told_of_policies(evaluations: Sequence[Evaluation], supported: pl.DataFrame) -> str:
    if supported.is_empty():
        several = claims.counted(len(evaluations), "policies")
        return f"The log supports an estimate of none of {several}"
    without = len(evaluations) - supported.height
    rest = f"; {without} of {len(evaluations)} have no estimate" if without else ""
    better = evaluations[0].better
    best = supported.sort("value", descending=better == "higher").row(0, named=True)
    ends = (best["gain_low"], best["gain_high"])
    clear = None not in ends and (ends[0] > 0 if better == "higher" else ends[1] < 0)
    values = (
        f"{claims.written(best['value'])} instead of {claims.written(best['baseline'])} as logged"
    )
    if supported.height == 1:
        doubt = "" if clear else ", not clearly better"
        return f"{best['policy']} is the only policy with an estimate, {values}{doubt}{rest}"
    several = claims.counted(supported.height, "policies")
    said = f"{best['policy']} has the best estimate of {several}, {values}"
    if clear:
        return f"{said}; chosen as the best of several, it looks better than it is{rest}"
    return f"{said}, not clearly different{rest}"


def _draw_policies(rows: pl.DataFrame) -> alt.TopLevelMixin:
    import altair as alt

    rows = rows.drop_nulls("value")
    order = rows["policy"].to_list()
    base = alt.Chart(rows).encode(alt.Y("policy:N", title=None, sort=order))
    layers = [
        alt.Chart(rows.head(1)).mark_rule(color=charts.GREY, strokeDash=[4, 4])
        .encode(x="baseline:Q"),
    ]  # fmt: skip
    if rows["anytime_low"].count():
        thin = base.mark_rule(strokeWidth=1, color=charts.INK)
        layers.append(thin.encode(alt.X("anytime_low:Q"), alt.X2("anytime_high:Q")))
    x = alt.X("value:Q", title="Expected outcome of a decision").scale(zero=False)
    points = base.mark_point(size=70, opacity=1, color=charts.BLUE).encode(x)
    return alt.layer(*layers, *draw.intervals(base, rows, "value"), points).properties(
        width=draw.WIDTH, height=max(60, draw.LINE * len(order))
    )


def estimators(evaluation: Evaluation) -> PersonalityView:
    """Return the value of one policy by every estimator; they agree if their assumptions hold."""
    table = evaluation.table
    rows = table.select(
        "estimator",
        "value",
        interval=_ends(table, "low", "high"),
        anytime=_ends(table, "low_anytime", "high_anytime"),
    )
    headings = {
        "estimator": "estimator", "value": "value", "interval": "95 % interval",
        "anytime": "valid at every look",
    }  # fmt: skip
    values = rows["value"].drop_nulls()
    finding = "No estimate" if values.is_empty() else (
        f"Estimators of “{evaluation.policy}” range from {claims.written(float(values.min()))} "  # type: ignore[arg-type]
        f"to {claims.written(float(values.max()))}"  # type: ignore[arg-type]
    )  # fmt: skip
    return PersonalityView(
        "Do the estimators agree?",
        labelled(finding, simulated=evaluation.simulated),
        rows,
        headings,
        "They share their data, so they differ less by chance than their intervals suggest. Where "
        "the companion learned for each person, DM, Switch-DR and DRos are a little biased.",
    )


def _ends(rows: pl.DataFrame, low: str, high: str) -> pl.Series:
    """Return intervals as text; null where there is none."""
    return pl.Series(
        [
            None if None in ends else " to ".join(map(claims.written, ends))
            for ends in rows.select(low, high).iter_rows()
        ],
        dtype=pl.String,
    )


def diagnostics(evaluation: Evaluation) -> tuple[PersonalityView, ...]:
    """Return overlap, balance and calibration of an evaluation; nothing without support."""
    found = evaluation.diagnostics
    if found is None:
        return ()
    weights = (
        f"{found.decisions:,} decisions count like {found.effective_size:,.0f}, "
        f"{found.people:,} people like {found.effective_people:,.0f}; the largest weight is "
        f"{claims.written(found.largest_weight)}, and weights above "
        f"{claims.written(found.threshold)} ({found.clipped:.0%}) are not used by Switch-DR"
    )
    worst = found.balance["difference"].abs().max()
    balanced = (
        "Nothing to balance is logged" if worst is None else
        "With weights, means differ by at most "
        f"{claims.written(float(worst))} standard deviations"  # type: ignore[arg-type]
    )  # fmt: skip
    calibrated = "The reward model predicts the same for everybody" if found.slope is None else (
        f"Outcomes {'fall' if found.slope < 0 else 'rise'} by "
        f"{claims.written(abs(found.slope))} for each 1 of the reward model's prediction; a rise "
        "of 1 is calibrated"
    )  # fmt: skip
    label = evaluation.simulated
    return (
        PersonalityView(
            "How often was each arm tried, and how often would the policy choose it?",
            labelled(weights, simulated=label),
            found.overlap,
            {"arm": "arm", "decisions": "decisions", "people": "people", "share": "share",
             "target": "of the policy", "least_propensity": "least propensity"},
        ),
        PersonalityView(
            "Do weights make the moments of the arms alike?",
            labelled(balanced, simulated=label),
            found.balance,
            {"name": "moment", "difference": "difference"},
        ),
        PersonalityView(
            "Is the reward model calibrated?",
            labelled(calibrated, simulated=label),
            found.calibration,
            {"decisions": "decisions", "predicted": "prediction", "reward": "outcome"},
            "Tenths of the decisions by prediction. The dashed line is that of a calibrated model.",
            _draw_calibration,
        ),
    )  # fmt: skip


def _draw_calibration(rows: pl.DataFrame) -> alt.TopLevelMixin:
    import altair as alt

    scale = alt.Scale(zero=False)
    x = alt.X("predicted:Q", title="Mean prediction", scale=scale)
    points = alt.Chart(rows).mark_point(size=70, opacity=1, color=charts.BLUE)
    line = alt.Chart(rows).mark_line(color=charts.GREY, strokeDash=[4, 4])
    return alt.layer(
        line.encode(x, alt.Y("predicted:Q")),
        points.encode(x, alt.Y("reward:Q", title="Mean outcome", scale=scale)),
    ).properties(width=draw.WIDTH, height=220)


def labelled(finding: str, *, simulated: bool) -> str:
    """Return a sentence, labelled if its data are simulated."""
    return claims.with_minus(f"{SIMULATED}{finding}" if simulated else finding)
