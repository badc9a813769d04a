"""The space in which passages are compared, made of the vectors of a model by principal components.

All vectors of a model have a direction in common, and their largest principal components separate
long from short and formal from casual texts rather than subjects (Mu and Viswanath,
"All-but-the-Top", 2018). So the mean and the largest components are subtracted. Of the rest only
the larger components are kept, which makes themes more stable and everything faster.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from aico_lab.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

P = ParamSpec("P")
T = TypeVar("T")

REMOVED: Final = 2
"""The number of largest principal components that are subtracted."""

COMPONENTS: Final = 64
"""The number of principal components, after those, that are kept."""


def reproducible(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function multiply matrices in one thread.

    Sums then have the same rounding errors whatever the number of processors. On a busy machine it
    also takes less time, because threads that wait for each other keep the processor busy.
    """

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> T:
        with threadpool_limits(limits=1, user_api="blas"):
            return function(*args, **options)

    return run


@dataclass(frozen=True, eq=False)
class Space:
    """A linear map from a model's vectors to unit vectors of few dimensions.

    Attributes:
        mean: The mean of the vectors that the space was made of, of shape (dimensions,).
        components: Orthonormal rows, largest variance first, of shape (components, dimensions).
        share: The share of the kept components in the variance that is left without the removed
            ones, 0 to 1.
    """

    mean: Vectors
    components: Vectors
    share: float

    @classmethod
    @reproducible
    def of(cls, vectors: Vectors, *, removed: int = REMOVED, components: int = COMPONENTS) -> Space:
        """Return the space of vectors.

        Args:
            vectors: An array of shape (passages, dimensions).
            removed: The number of largest principal components to subtract; 0 for none.
            components: The number of components to keep; fewer if there are fewer.

        Raises:
            InvalidValue: There are no vectors, a number is not finite, or an option is invalid.
        """
        check(vectors)
        if removed < 0 or components < 1:
            raise InvalidValue("removed must be at least 0, and components at least 1.")
        exact = vectors.astype(np.float64)
        mean = exact.mean(axis=0)
        centred = exact - mean
        variances, directions = np.linalg.eigh(centred.T @ centred)
        variances, directions = np.maximum(variances[::-1], 0), directions[:, ::-1].T
        rank = int((variances > variances[0] * 1e-9).sum()) if variances[0] > 0 else 0
        # Few or uniform texts may have so few components that removing some would leave none.
        removed = min(removed, max(rank - 1, 0))
        kept = slice(removed, max(min(removed + components, rank), removed + 1))
        found = directions[kept]
        largest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
        found = np.where(largest < 0, -found, found)  # the sign of a component is arbitrary
        rest = variances[removed:].sum()
        share = float(variances[kept].sum() / rest) if rest > 0 else 1.0
        return cls(mean.astype(np.float32), np.ascontiguousarray(found, np.float32), share)

    @reproducible
    def place(self, vectors: Vectors) -> Vectors:
        """Return unit vectors of shape (passages, components); zeros for a vector at the mean.

        Raises:
            InvalidValue: The vectors have another dimension, or a number that is not finite.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):  # noqa: PLR2004 - rows, columns
            raise InvalidValue(
                f"The vectors must have {len(self.mean)} dimensions, as those of the exploration: "
                "choose the same model."
            )
        if not len(vectors):
            return np.empty((0, len(self.components)), np.float32)
        check(vectors)
        return unit((vectors - self.mean) @ self.components.T)

    def back(self, placed: Vectors) -> Vectors:
        """Return directions of this space as directions among the model's vectors."""
        directions: Vectors = placed @ self.components
        return directions

    def pack(self) -> bytes:
        """Return the mean and the components as numbers of 32 bits, little-endian."""
        return np.vstack([self.mean, self.components]).astype("<f4").tobytes()

    @classmethod
    def unpack(cls, packed: bytes, dimensions: int, share: float) -> Space:
        """Return the space that was packed.

        Raises:
            InvalidValue: The bytes are not those of a space of that many dimensions.
        """
        numbers = np.frombuffer(packed, "<f4") if len(packed) % 4 == 0 else np.empty(0, "<f4")
        if dimensions < 1 or len(numbers) < 2 * dimensions or len(numbers) % dimensions:
            raise InvalidValue(
                "The stored space of the exploration is damaged: explore with another seed, as in "
                "lab.embeddings.explore(seed=1)."
            )
        rows = numbers.reshape(-1, dimensions).astype(np.float32)
        check(rows)
        return cls(rows[0], rows[1:], share)


def unit(vectors: NDArray[np.floating[Any]]) -> Vectors:
    """Return the rows scaled to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = (vectors / np.where(lengths > 1e-9, lengths, np.inf)).astype(np.float32)  # noqa: PLR2004 - rounding
    return scaled


def check(vectors: Vectors) -> None:
    """Raise InvalidValue unless the array has rows of finite numbers."""
    if vectors.ndim != 2 or not vectors.size:  # noqa: PLR2004 - rows and columns
        raise InvalidValue("There are no vectors to explore.")
    if not np.isfinite(vectors).all():
        raise InvalidValue("A vector has a number that is not finite: use another model.")
