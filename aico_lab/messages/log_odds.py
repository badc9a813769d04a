"""Log-odds of words with an informative Dirichlet prior: which words tell texts apart.

Monroe, Colaresi and Quinn, "Fightin' Words", Political Analysis 16 (2008). The prior pulls rare
words towards no difference, so that they do not lead the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Odds:
    """The odds of words in some texts, with the prior's words added.

    Attributes:
        uses: Uses of each word, those of the prior included.
        others: Uses of all other words, those of the prior included.
    """

    uses: Numbers
    others: Numbers

    @classmethod
    def of(cls, uses: Numbers, words: Numbers, share: Numbers, prior: float) -> Odds:
        """Return the odds of words.

        Args:
            uses: Uses of each word in the texts.
            words: The number of all words in the texts.
            share: The share of each word in the words of all texts, 0 to 1.
            prior: The weight of the prior, in words.
        """
        pseudo = prior * share
        return cls(uses + pseudo, words + prior - uses - pseudo)

    @property
    def log(self) -> Numbers:
        """The logarithms of the odds; infinite if the texts have no other word."""
        with np.errstate(divide="ignore"):
            logarithms: Numbers = np.log(self.uses / self.others)
        return logarithms


def difference(one: Odds, other: Odds) -> tuple[Numbers, Numbers]:
    """Return the log-odds ratios of two kinds of texts, and their variances.

    The variances are those of the paper, for which words are independent of each other.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return one.log - other.log, 1 / one.uses + 1 / other.uses
