"""Compile functions with Numba, also where nothing compiled can be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba

if TYPE_CHECKING:
    from collections.abc import Callable


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function at its first use, and keep the machine code for the next process.

    Where neither the package's folder nor the person's cache can be written, every process that
    needs it compiles it anew, which takes seconds.
    """
    try:
        kept: Callable[..., Any] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # there is no place for it
        kept = numba.njit(nogil=True)(function)
    return kept
