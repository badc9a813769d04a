"""The mark of a home whose data are simulated: nothing of people is mixed with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aico_lab.errors import WrongUse

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection

SIMULATED: Final = "simulated"
"""The key in `system_state` of a home whose data are simulated; its value says which."""

SENTENCE: Final = "All data of this home are simulated."
"""The remark in results of such a home."""


def is_simulated(primary: Connection) -> bool:
    """Return whether a home is marked as simulated."""
    return bool(primary.fetch_all("SELECT 1 FROM system_state WHERE key = ?", [SIMULATED]))


def refuse_if_simulated(primary: Connection) -> None:
    """Raise WrongUse if a home is marked as simulated: nothing of people is mixed with it."""
    if is_simulated(primary):
        raise WrongUse(
            "The data of this home are simulated, and people's messages and documents are never "
            "mixed with them: name another home with --home."
        )
