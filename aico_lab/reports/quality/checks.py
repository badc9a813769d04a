"""The outcome of a check of data, and its three verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.lab import Lab

Verdict = Literal["fine", "look", "act"]

VERDICTS: Final[dict[Verdict, str]] = {
    "act": "something is wrong, or missing: do what the command does",
    "look": "it may be right: only somebody who knows the data can say",
    "fine": "nothing to do",
}
"""The meanings of the verdicts, the most urgent first."""


@dataclass(frozen=True)
class DataCheck:
    """The outcome of a check.

    Attributes:
        name: The name of the check.
        verdict: 'fine', 'look' or 'act'.
        finding: The outcome, in one sentence without a full stop.
        rows: The number of rows that are not fine; None if the check is about no rows.
        command: The command that helps, or shows more; empty for none.
    """

    name: str
    verdict: Verdict
    finding: str
    rows: int | None = None
    command: str = ""


def found(
    name: str, rows: int, verdict: Verdict, bad: str, *, good: str = "none", command: str = ""
) -> DataCheck:
    """Return the outcome of a check that counts rows: fine if there are none.

    Args:
        name: The name of the check.
        rows: The number of rows that are not fine.
        verdict: The verdict if there are any.
        bad: The finding if there are any.
        good: The finding if there are none.
        command: The command that helps if there are any.
    """
    if not rows:
        return DataCheck(name, "fine", good, 0)
    return DataCheck(name, verdict, bad, rows, command)


def rows_from(
    lab: Lab, query: str, values: Sequence[object] | dict[str, object] | None = None
) -> list[Any]:
    """Return the rows of a query on the snapshot."""
    relation = lab.sql(query, values)
    assert relation is not None  # noqa: S101 - a SELECT has a result
    return list(relation.fetchall())


def share(part: int, whole: int) -> str:
    """Return a share in percent, as '12 %' or 'under 1 %'."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 1:
        return "under 1 %"
    if 99 < percent < 100:  # noqa: PLR2004
        return "over 99 %"
    return f"{percent:.0f} %"
