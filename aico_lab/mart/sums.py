"""Sums of fractions that are equal in whatever order the rows are stored, to the last digit.

The sum of floating-point numbers depends on their order, which is another one on each of a person's
devices. Sums of integers do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis.expr.types as ir


def total(values: ir.Value | ir.Deferred) -> Any:
    """Return the sum of numbers from the least to the greatest; NULL if there are none."""
    numbers: Any = values
    return numbers.collect().sort().sums()


def average(values: ir.Value | ir.Deferred) -> Any:
    """Return the mean of numbers; NULL if there are none."""
    numbers: Any = values
    return total(numbers) / numbers.count().nullif(0)
