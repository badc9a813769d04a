"""When the period of a log begins: not with the testers or the first wave, but with everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.personality.outcomes import WEEK_MS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FULL: Final = 0.67
"""The share of the later number of people a week from which a time belongs to the period. Simulated
first waves of up to half of the people are below it, also if they are there three times as often;
with fewer, such as 0.5, they roll harmless changes back."""

_ACTIVE: Final = 0.75
"""The quantile of the numbers of people a week that tells how many come in a week without pause."""

_WEEKS: Final = 4
"""The fewest weeks of which such a quantile is taken. Fewer may be one stretch of a home that grows
and pauses: their mean is compared, at the clearest place, and not with a part that pauses."""

_CHANCE: Final = 3.0
"""The difference between numbers of people a week, in standard errors, that chance explains."""


def begin_of_period(person: NDArray[np.int64], time_ms: NDArray[np.int64], until_ms: int) -> int:
    """Return the time of the first decision since when about as many people a week were there.

    Time is cut off at the start where the mean number of people a week was clearly lower than in
    all weeks that follow, at the clearest place first, until there is none. As weeks of a pause
    lower a mean, too, the best quarters of the weeks before and after must also differ. Numbers of
    people a week tell it sooner than first visits: those of people who are rarely there go on for
    months.

    Args:
        person: The person of each decision.
        time_ms: Its time in UTC milliseconds.
        until_ms: The end of the period, which is returned if there is nothing before it.
    """
    rows = time_ms < until_ms
    if not rows.any():
        return until_ms
    person, time_ms = person[rows], time_ms[rows]
    ago = (until_ms - 1 - time_ms) // WEEK_MS
    pairs = np.unique(ago * (int(person.max()) + 1) + person) // (int(person.max()) + 1)
    people = np.bincount(pairs)[::-1].astype(float)  # the earliest week first
    # Of that week only a part may be in the log.
    missing = min(1 - (until_ms - int(time_ms.min())) / WEEK_MS % 1, 6 / 7)
    whole = True
    while (at := _clearest(people, missing, whole=whole)) is not None:
        people, missing, whole = people[at + 1 :], 0.0, False
    return int(time_ms[ago < len(people)].min())


def _clearest(people: NDArray[np.float64], missing: float, *, whole: bool) -> int | None:
    """Return the week after which clearly more people a week were there; None if there is none.

    Args:
        people: The number of people in each week.
        missing: The part of the first week that is not in the log.
        whole: Whether these are all weeks.
    """
    before = np.arange(1, len(people)) - missing
    after = len(people) - before
    early = np.cumsum(people)[:-1] / before
    late = (people.sum() - np.cumsum(people)[:-1]) / after
    clear = (late - early) / np.sqrt(early / before + late / after)
    for rank, at in enumerate(np.argsort(-clear, kind="stable")):
        if clear[at] < _CHANCE:
            break
        # Means alone would take the end of a pause for it.
        usual = max(early[at], np.quantile(people[: at + 1], _ACTIVE, method="higher"))
        if after[at] >= _WEEKS:
            later = max(late[at], np.quantile(people[at + 1 :], _ACTIVE))
        elif rank == 0 and (whole or np.quantile(people[: at + 1], 1 - _ACTIVE) > usual / 2):
            later = late[at]
        else:
            continue
        if usual <= _FULL * later:
            return int(at)
    return None
