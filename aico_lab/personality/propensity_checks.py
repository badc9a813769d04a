"""Whether the propensities of a log can be right: possible, as frequent as stated, independent.

The tests hold the choices against them, without any outcome. If they are right, few logs in a
thousand fail, also if the policy learns.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.constants import MS_PER_DAY, MS_PER_HOUR
from aico_lab.personality.check import Check, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from aico_lab.personality.log import Floats, Log

_ROUNDING: Final = 1e-4
"""The largest difference between probabilities that are stored as text, and their sum and 1."""

_BINS: Final = 5
"""The number of groups of decisions by stated propensity, whose frequencies are compared."""

_FALSE_ALARM: Final = 0.001
"""The probability with which the frequencies of correct propensities fail their check."""

_OFF: Final = 0.01
"""Smaller differences between stated and observed frequencies do not matter, nor do smaller
correlations with what the propensities should hold."""

_FEWEST_DRAWS: Final = 10
"""The least sum of an arm's variances for which the normal distribution is near enough."""

_STAKES: Final = tuple(2.0**power for power in range(-8, 7))
"""The shares of the money that are bet for each unit of what was known before."""

_REPEATED: Final = ("the last choice for the person", "the last choice")
"""The names on which choices seem to depend if one is recorded for several messages."""

_THURSDAY: Final = 3
"""The weekday of the first day of 1970, from Monday = 0."""

_SATURDAY: Final = 5
"""The first day of the weekend, from Monday = 0."""

_PRIOR: Final = 10
"""The decisions by which the mean of a group's first ones is drawn to 0, and so weigh less."""

_FAR: Final = 3.0
"""Features and outcomes count up to this many standard deviations."""


def check_possible(log: Log) -> Check:
    """Check that propensities are probabilities, and those of all arms add up to 1."""
    stated = log.propensity
    wrong = ~((stated > 0) & (stated <= 1 + _ROUNDING))
    if log.probabilities is not None:
        given = log.probabilities
        whole = np.isfinite(given).all(axis=1)
        with np.errstate(invalid="ignore"):
            wrong |= whole & (np.abs(given.sum(axis=1) - 1) > len(log.arms) * _ROUNDING)
            wrong |= ((given < 0) | (given > 1 + _ROUNDING)).any(axis=1)
            wrong |= np.abs(given[np.arange(len(log)), log.arm] - stated) > _ROUNDING
    share = float(np.mean(wrong)) if len(log) else 0.0
    sentence = "All propensities are probabilities."
    if wrong.any():
        sentence = (
            f"{counted(int(wrong.sum()), 'decision has', 'decisions have')} an impossible "
            "propensity: not above 0 and at most 1, or not part of probabilities that add up "
            "to 1."
        )
    return Check("propensities possible", not wrong.any(), share, 0.0, sentence)


def check_frequencies(log: Log) -> Check:
    """Check that the arms were chosen as often as their propensities say."""
    from scipy import special

    all_known = _all_known(log)
    found = list(_by_bins(log) if all_known else _by_weights(log))
    quantile = special.ndtri(1 - _FALSE_ALARM / 2 / max(len(found), 1))
    won = np.log(max(len(found), 1) / _FALSE_ALARM)
    off = [
        (abs(apart), arm, apart)
        for apart, error, arm in found
        if abs(apart) > max(quantile * error, _OFF)
        and (all_known or apart < 0 or _log_won(log, arm, np.ones(len(log))) > won)
    ]
    usual = max((abs(one[0]) for one in found), default=0.0)
    worst, arm, apart = max(off, default=(usual, 0, 0.0))
    sentence = "The arms were chosen as often as their propensities say."
    if off:
        sentence = (
            f"The propensities are wrong: {log.arms[arm]} was chosen more or less often than "
            f"they say, by {worst:.0%} of the decisions."
        )
        if not all_known:
            sentence = (
                f"The propensities are wrong: {log.arms[arm]} was chosen {1 + apart:.3g} times "
                "as often as they say."
            )
        several = [log.policies[place] for place in np.unique(log.policy)]
        if len(several) > 1:
            sentence = (
                f"The decisions are of {len(several)} policies, which may choose among "
                f"different arms: ask about one of {', '.join(several)}."
            )
    return Check("propensities correct", not off, worst, _OFF, sentence)


def check_independence(log: Log) -> Check:
    """Check that choices depend on nothing that the propensities do not say.

    Given correct propensities p, 1{A = arm} - p has the mean 0 whatever happened before. So its
    products with anything known before have the mean 0 too, and a known variance, also if the
    policy learns: their sum is a martingale. The sum of rare large products is far from normal,
    so what looks unlikely must also win a bet against the propensities.
    """
    from scipy import special

    found: list[tuple[float, float, int, str]] = []
    off: list[tuple[float, float, int, str]] = []
    tests = sum(1 for _ in _expectations(log)) * sum(1 for _ in _surprises(log))
    quantile = special.ndtri(1 - _FALSE_ALARM / 2 / max(tests, 1))
    for name, expect in _expectations(log):
        for arm, apart, variance in _surprises(log):  # each time anew, to save memory
            before = expect(apart)
            spread = float(np.sum(variance * before**2))
            if spread <= 0:
                continue
            z = abs(float(np.sum(apart * before))) / np.sqrt(spread)
            found.append((z, z / np.sqrt(len(log)), arm, name))
            if z > quantile and found[-1][1] > _OFF:
                won = _log_won(log, arm, before)
                off += [found[-1]] if won > np.log(tests / _FALSE_ALARM) else []
    _, worst, arm, name = max(off or found, default=(0.0, 0.0, 0, ""))
    sentence = "The choices depend on nothing beyond their propensities that the log shows."
    if off:
        sentence = (
            f"The propensities are wrong: whether {log.arms[arm]} was chosen depends on "
            f"{name}, beyond what they say"
            f"{', or one choice was recorded several times' if name in _REPEATED else ''}."
        )
    return Check("choices independent", not off, worst, _OFF, sentence)


def _all_known(log: Log) -> bool:
    return log.probabilities is not None and bool(np.isfinite(log.probabilities).all())


def _by_bins(log: Log) -> Iterator[tuple[float, float, int]]:
    """Yield, by arm and stated propensity, the difference to the frequency, and its error.

    Given the propensities, decisions are independent draws, also those of one person.
    """
    given = log.probabilities
    if given is None:
        return
    for arm in range(len(log.arms)):
        stated = given[:, arm]
        edges = np.unique(np.quantile(stated, np.linspace(0, 1, _BINS + 1)[1:-1]))
        place = np.searchsorted(edges, stated)
        times = np.bincount(place).astype(float)
        chosen = np.bincount(place, weights=(log.arm == arm).astype(float))
        expected = np.bincount(place, weights=stated)
        variance = np.bincount(place, weights=stated * (1 - stated))
        for n, found, due, spread in zip(times, chosen, expected, variance, strict=True):
            if n:
                # At least one decision's worth, where chance is not normal.
                yield float(abs(found - due) / n), float(np.sqrt(max(spread, 1.0)) / n), arm


def _by_weights(log: Log) -> Iterator[tuple[float, float, int]]:
    """Yield, by arm, the mean of its inverse propensities minus 1, and its error.

    Of an arm that was chosen less often than expected by chance, the choices also vary less, so the
    variance is at least the one to expect of an arm of its usual propensity. The sum of rare large
    values is skewed to the right: what is far above 1 must also win a bet.
    """
    n = len(log)
    for arm in range(len(log.arms)):
        stated = log.propensity[log.arm == arm]
        if len(stated):
            inverse = float(np.sum(1 / stated))
            squares = float(np.sum(stated**-2.0)) / n - (inverse / n) ** 2
            variance = max(squares, inverse / len(stated) - 1)
            yield inverse / n - 1, float(np.sqrt(variance / n)), arm


def _surprises(log: Log) -> Iterator[tuple[int, Floats, Floats]]:
    """Yield each arm with the surprises in its choices, of mean 0, and their variances."""
    for arm in range(len(log.arms)):
        chosen = (log.arm == arm).astype(float)
        if log.probabilities is not None and _all_known(log):
            stated = log.probabilities[:, arm]
            apart, variance = chosen - stated, stated * (1 - stated)
            enough = float(variance.sum())
        else:
            apart = chosen / log.propensity - 1
            variance = apart**2
            enough = float(min(chosen.sum(), len(log) - chosen.sum()))
        if enough >= _FEWEST_DRAWS:
            yield arm, apart, variance


def _log_won(log: Log, arm: int, before: Floats) -> float:
    """Return the logarithm of what bets on an arm's choices make of 1, on average over stakes.

    A bet of a share b of the money on an arm of propensity p multiplies it by 1 + b (1{A = arm}/p -
    1), whose mean is 1 if p is right. So at any time it exceeds 1/a with a probability of at most
    a, by Ville's inequality, however skewed the products are (Waudby-Smith and Ramdas, "Estimating
    means of bounded random variables by betting", 2024). It needs no arm's propensity but the
    chosen one's, as the stake is known before the choice. A bet on any other arm, which gains where
    an arm is avoided, needs the arm's propensity also where it was not chosen.
    """
    chosen = log.arm == arm
    bets = [(chosen, log.propensity)]
    if log.probabilities is not None and _all_known(log):
        bets.append((~chosen, 1 - log.probabilities[:, arm]))
    money = []
    for won, chance in bets:
        gain = np.full(len(log), -1.0)
        gain[won] += 1 / np.maximum(chance[won], _ROUNDING)
        for known in (np.maximum(before, 0.0), np.maximum(-before, 0.0)):
            rows = known > 0
            money += [
                float(np.sum(np.log1p(np.minimum(stake * known[rows], 0.5) * gain[rows])))
                for stake in _STAKES
            ]
    return float(np.logaddexp.reduce(money)) - float(np.log(len(money)))


def _expectations(log: Log) -> Iterator[tuple[str, Callable[[Floats], Floats]]]:
    """Yield what a choice may depend on, and a function of an arm's surprises.

    The function returns for each decision what was known before it: a feature, the last outcome,
    the last surprise, or the mean of the earlier surprises of a group.
    """
    for name, column in zip(log.names, log.features.T, strict=True):
        yield f"the feature {name}", partial(_as_known, _standard(column))
    yield "the person's last outcome", partial(_as_known, _standard(_last_known(log)))
    hour = log.time_ms // MS_PER_HOUR % 24
    day = (log.time_ms // MS_PER_DAY + _THURSDAY) % 7
    part = np.arange(len(log)) * 10 // max(len(log), 1)
    for name, group in (
        ("the person", log.person),
        ("the context", log.context),
        ("the part of the period", part),
        ("the hour of the day", hour),
        ("the day of the week", day),
        ("the weekend", (day >= _SATURDAY).astype(np.int64)),
        ("the policy", log.policy),
    ):
        order = np.argsort(group, kind="stable")
        firsts = np.flatnonzero(np.diff(group[order], prepend=-1))
        yield name, partial(_mean_before, order, firsts, np.diff(firsts, append=len(order)))
    yield _REPEATED[0], partial(_at, _previous(log.person))
    yield _REPEATED[1], partial(_at, np.arange(-1, len(log) - 1))


def _as_known(known: Floats, _apart: Floats) -> Floats:
    return known


def _at(rows: NDArray[np.int64], values: Floats) -> Floats:
    """Return the values of other rows; 0 where the row is -1."""
    return np.where(rows >= 0, values[rows], 0.0)


def _mean_before(
    order: NDArray[np.int64], firsts: NDArray[np.int64], sizes: NDArray[np.int64], values: Floats
) -> Floats:
    """Return the mean of the earlier values of each row's group, drawn to 0 while they are few."""
    place = np.arange(len(order)) - np.repeat(firsts, sizes)
    total = np.cumsum(values[order]) - values[order]
    found = np.empty(len(order))
    found[order] = (total - np.repeat(total[firsts], sizes)) / (place + _PRIOR)
    return found


def _previous(person: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row of the same person's previous decision; -1 for the first one."""
    order = np.argsort(person, kind="stable")
    found = np.full(len(person), -1, np.int64)
    same = person[order[1:]] == person[order[:-1]]
    found[order[1:][same]] = order[:-1][same]
    return found


def _last_known(log: Log) -> Floats:
    """Return the person's latest outcome that was known before each decision; NaN if none was.

    One that was not known yet may have been made by the decision, too.
    """
    rows = np.flatnonzero(log.observed)
    person = np.concatenate([log.person[rows], log.person])
    moment = np.concatenate([log.known_by[rows], log.time_ms])
    asks = np.arange(len(person)) >= len(rows)
    # At the same moment a decision goes first: its own outcome may be known at once.
    order = np.lexsort((~asks, moment, person))
    last = np.maximum.accumulate(np.where(asks[order], -1, np.arange(len(order))))
    source = order[last]
    known = asks[order] & (last >= 0) & (person[source] == person[order])
    found = np.full(len(log), np.nan)
    found[order[known] - len(rows)] = log.reward[rows[source[known]]]
    return found


def _standard(values: Floats) -> Floats:
    """Return values minus their mean, in standard deviations; 0 where there is none."""
    known = np.isfinite(values)
    spread = float(np.std(values[known])) if known.any() else 0.0
    if spread <= 0:
        return np.zeros(len(values))
    return np.where(known, np.clip((values - values[known].mean()) / spread, -_FAR, _FAR), 0.0)
