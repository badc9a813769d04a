"""The catalogue of metrics by name: those of this package and those that installed packages add.

A metric's module is imported on first access, so that completion in shells and notebooks lists all
names at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from aico_lab.errors import ExtensionBroken, UnknownName, did_you_mean
from aico_lab.extensions import added, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

    from aico_lab.metrics.engine.metric import Metric

MODULES: Final = {
    "conversation": {
        "turns": "turns",
        "reply_latency": "reply_latency",
        "balance": "balance",
        "questions": "questions",
        "message_length": "message_length",
        "mood_recovery": "mood_recovery",
        "sessions": "sessions",
        "session_length": "session_length",
        "initiative": "initiative",
        "who_answers_whom": "who_answers_whom",
        "coordination": "coordination",
        "frequent_words": "frequent_words",
        "word_course": "word_course",
        "distinguishing_words": "distinguishing_words",
    },
    "interaction": {
        "overview": "overview",
        "people": "breakdown",
        "channels": "breakdown",
        "daily_activity": "activity",
        "weekly_activity": "activity",
        "monthly_activity": "activity",
        "stickiness": "stickiness",
        "concentration": "concentration",
        "cumulative_people": "cumulative_people",
        "retention": "retention",
        "streaks": "streaks",
        "milestones": "milestones",
    },
    "time": {
        "extremes": "extremes",
        "highlights": "highlights",
        "calendar_days": "calendar_days",
        "week_heatmap": "week_heatmap",
        "seasonality": "seasonality",
        "trend": "trend",
        "change_points": "change_points",
        "burstiness": "burstiness",
    },
    "personality": {
        "outcomes_by_profile": "outcomes",
        "outcomes_by_style": "outcomes",
        "version_change": "version_change",
        "style_and_ratings": "style_and_ratings",
        "feedback": "feedback",
    },
    "usage": {
        "preference_changes": "preference_changes",
        "sentiment": "sentiment",
        "mood_over_time": "mood_over_time",
        "sentiment_trajectory": "sentiment_trajectory",
        "sentiment_transfer": "sentiment_transfer",
        "lexical_diversity": "lexical_diversity",
        "languages": "languages",
        "extras": "extras",
    },
}
"""The module of each metric of this package, by domain, in the order of listings."""

FORMER_NAMES: Final = {"repair": "mood_recovery"}
"""Former names of metrics, with the current ones."""

_PLACES: Final = {
    name: f"aico_lab.metrics.{domain}.{module}"
    for domain, modules in MODULES.items()
    for name, module in modules.items()
}


class Catalogue:
    """Metrics by name."""

    def __getitem__(self, name: str) -> Metric:
        """Return a metric.

        Raises:
            UnknownName: No metric has that name.
            ExtensionBroken: The package that adds the metric does not provide a valid one.
        """
        if name in _PLACES:
            found: Metric = getattr(import_module(_PLACES[name]), name)
            return found
        if name in FORMER_NAMES:
            raise UnknownName(
                f"The metric {name!r} was renamed: use {FORMER_NAMES[name]!r} instead."
            )
        if name in _added():
            return _load(_added()[name])
        see = ": see `aico-lab metrics list` or `lab.metrics`."
        raise UnknownName(f"There is no metric {name!r}{did_you_mean(name, list(self), see)}")

    def by_domain(self) -> tuple[list[Metric], list[ExtensionBroken]]:
        """Return all metrics ordered by domain, and the errors of those that do not load."""
        metrics, broken = [], []
        for name in self:
            try:
                metrics.append(self[name])
            except ExtensionBroken as error:
                broken.append(error)
        domains = list(MODULES)
        return sorted(metrics, key=lambda metric: domains.index(metric.domain)), broken

    def ships(self, name: str) -> bool:
        """Return whether a metric is one of this package's own."""
        return name in _PLACES

    def __iter__(self) -> Iterator[str]:
        return iter([*_PLACES, *_added()])


CATALOGUE: Final = Catalogue()


def _added() -> dict[str, EntryPoint]:
    return added("aico_lab.metrics", _PLACES)


def _load(point: EntryPoint) -> Metric:
    from aico_lab.metrics.engine.metric import Metric

    metric = loaded(point, "metric", Metric)
    if metric.domain not in MODULES:
        package = point.dist.name if point.dist else point.value
        raise ExtensionBroken("metric", point.name, package, f"no domain {metric.domain!r}")
    return metric
