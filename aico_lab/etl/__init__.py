"""Bring the DuckDB warehouse up to date with the primary database, through Arrow."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aico_lab.etl.foreign import LoadResult
    from aico_lab.etl.sync import SyncResult
    from aico_lab.etl.verify import Difference, Proof, TableProof

_MODULES = {
    "Difference": "verify",
    "LoadResult": "foreign",
    "Proof": "verify",
    "SyncResult": "sync",
    "TableProof": "verify",
}

__all__ = [
    "Difference",
    "LoadResult",
    "Proof",
    "SyncResult",
    "TableProof",
]


def __getattr__(name: str) -> object:  # imported on first use: the libraries behind it are slow
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
