"""Compile functions with Numba, where it is there and also where it may keep nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def is_available() -> bool:
    """Return whether Numba can be imported; without it, compiled functions are slow."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function at its first use, and keep the machine code for the next process.

    Where neither the package's folder nor the person's cache can be written, every process that
    needs it compiles it anew, which takes seconds. Without Numba the function stays as it is.
    """
    try:
        import numba
    except ImportError:  # as on a platform that it does not support
        return function
    try:
        kept: Callable[..., Any] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # there is no place for it
        kept = numba.njit(nogil=True)(function)
    return kept
