"""Compile functions with Numba, if it is installed, even without a writable cache folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def is_available() -> bool:
    """Return whether Numba can be imported; without it, functions run as plain Python, slowly."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on first use, and cache the machine code for other processes.

    If neither the package's folder nor the user's cache can be written, every process compiles it
    again, which takes seconds. Without Numba the function is returned unchanged.
    """
    try:
        import numba
    except ImportError:  # not installed, or no support for the platform
        return function
    try:
        kept: Callable[..., Any] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no writable cache folder
        kept = numba.njit(nogil=True)(function)
    return kept
