"""A workbench for studying conversations with a local-first AI companion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aico_lab.runtime import iri_grammar

if TYPE_CHECKING:
    from aico_lab.lab import Lab

    __version__: str

__all__ = ["Lab"]

iri_grammar.postpone()  # before anything here imports jsonschema


def __getattr__(name: str) -> Any:
    """Import on first use, to keep `aico-lab --help` fast."""
    if name == "Lab":
        from aico_lab.lab import Lab

        return Lab
    if name == "__version__":
        from importlib.metadata import version

        return version("aico-lab")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
