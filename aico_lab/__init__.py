"""A workbench for studying conversations with a local-first AI companion."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aico_lab.lab import Lab

__all__ = ["Lab"]
__version__ = version("aico-lab")


def __getattr__(name: str) -> Any:
    """Import `Lab` on first use, so that `aico-lab --help` does not wait for the databases."""
    if name == "Lab":
        from aico_lab.lab import Lab

        return Lab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
