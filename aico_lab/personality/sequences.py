"""Confidence sequences: intervals that stay valid however often one looks at them."""

from __future__ import annotations

import math
from typing import Final

ALPHA: Final = 0.05
"""The probability with which an interval may miss the truth at any time."""

PLANNED: Final = 50
"""The number of people at which the sequence of an evaluation is narrowest."""


def widening(information: float, planned: float) -> float:
    """Return half the width of a 95 % confidence sequence, in standard errors.

    This is the boundary of Robbins (1970), a mixture over normal distributions, for a sum that
    resembles a Brownian motion in the time of its information; Waudby-Smith, Arbour, Sinha, Kennedy
    and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (2024),
    theorem 2.2, prove it for means. Information is 1 / (standard error)^2; for independent people
    it is proportional to their number. Estimates from more and more decisions of the same people
    have independent increments in that time, too, as efficient estimates do (Scharfstein, Tsiatis
    and Robins 1997).

    Args:
        information: The information so far, or the number of people.
        planned: The information at which the sequence is narrowest, in the same unit; it must be
            chosen before the first look.
    """
    tuned = -2 * math.log(ALPHA) + math.log(-2 * math.log(ALPHA)) + 1
    ratio = tuned * information / planned
    if ratio <= 0:
        return math.inf
    return math.sqrt((1 + 1 / ratio) * math.log((1 + ratio) / ALPHA**2))
