"""Compare segments with annotated ones: Pk and WindowDiff."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    Miss = Callable[[int, int], bool]


def pk(annotated: Collection[int], found: Collection[int], messages: int) -> float:
    """Return Pk: the share of pairs of messages that are wrongly together or apart.

    The two messages are half the mean length of the annotated segments apart. 0 is best; boundaries
    at random have about 0.5.

    Args:
        annotated: The positions of the first messages of the annotated segments.
        found: The positions of the first messages of the segments to judge.
        messages: The number of messages.

    Source: Beeferman, Berger and Lafferty 1999, "Statistical Models for Text Segmentation".
    """
    return _rate(annotated, found, messages, lambda one, other: (one > 0) != (other > 0))


def window_diff(annotated: Collection[int], found: Collection[int], messages: int) -> float:
    """Return WindowDiff: the share of windows with another number of boundaries than annotated.

    0 is best. Unlike Pk it also counts superfluous boundaries near true ones.

    Args:
        annotated: As for `pk`.
        found: As for `pk`.
        messages: As for `pk`.

    Source: Pevzner and Hearst 2002, "A Critique and Improvement of an Evaluation Metric for Text
        Segmentation".
    """
    return _rate(annotated, found, messages, lambda one, other: one != other)


def _rate(annotated: Collection[int], found: Collection[int], messages: int, miss: Miss) -> float:
    true, judged = _counts(annotated, messages), _counts(found, messages)
    window = max(1, round(messages / (true[-1] + 1) / 2))
    places = range(messages - window)
    misses = sum(
        miss(true[at + window] - true[at], judged[at + window] - judged[at]) for at in places
    )
    return misses / max(1, len(places))


def _counts(starts: Collection[int], messages: int) -> list[int]:
    """Return for each message the number of boundaries up to it."""
    inner = frozenset(starts) - {0}
    counts, total = [], 0
    for at in range(messages):
        total += at in inner
        counts.append(total)
    return counts
