"""Check the arguments of methods by their annotations, before any work is done."""

from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Callable, Collection
from math import isnan
from numbers import Real
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np

from aico_lab.embeddings.exploration.themes import ThemeParameters
from aico_lab.errors import InvalidValue

Given = ParamSpec("Given")
Result = TypeVar("Result")

_LARGEST: Final = 1_000_000_000_000
"""The largest absolute value of whole numbers; frames cannot hold arbitrary ones."""


def checked(method: Callable[Given, Result]) -> Callable[Given, Result]:
    """Refuse arguments that do not fit the annotations of a method with InvalidValue.

    Names, people and times are left to what resolves them; see `_KINDS` for the others.
    """
    signature = inspect.signature(method)
    kinds = {
        name: _KINDS[parameter.annotation]
        for name, parameter in signature.parameters.items()
        if parameter.annotation in _KINDS
    }

    @functools.wraps(method)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in kinds:
                wanted, fits = kinds[name]
                if not fits(value):
                    raise InvalidValue(f"{name} must be {wanted}, not {reprlib.repr(value)}.")
        return method(*args, **kwargs)

    return call


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def _is_whole(value: object) -> bool:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_whole and bool(abs(value) <= _LARGEST)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not isnan(value)


def _is_true_or_false(value: object) -> bool:
    return isinstance(value, bool)


def _is_count(value: object) -> bool:
    return _is_whole(value) and value >= 1  # type: ignore[operator]


def _are_whole(value: object) -> bool:
    return isinstance(value, Collection) and all(map(_is_whole, value))


def _is_unit(value: object) -> bool:
    return isinstance(value, str) and value in {"week", "month"}


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


_KINDS: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "str": ("text of whole characters", _is_text),
    "str | None": ("text or None", _or_none(_is_text)),
    "int": (f"a whole number from 1 to {_LARGEST:,}", _is_count),  # all are numbers of things
    "int | None": (f"a whole number of at most {_LARGEST:,} or None", _or_none(_is_whole)),
    "float": ("a number such as 0.95", _is_number),
    "bool": ("true or false", _is_true_or_false),
    "bool | None": ("true, false or None", _or_none(_is_true_or_false)),
    "Sequence[int] | None": ("a list of whole numbers or None", _or_none(_are_whole)),
    "Literal['week', 'month']": ("'week' or 'month'", _is_unit),
    "ThemeParameters | None": (
        "ThemeParameters or None", _or_none(lambda value: isinstance(value, ThemeParameters))
    ),
    "Progress | None": ("a function or None", _or_none(callable)),
}  # fmt: skip
"""For each annotation, in words what an argument must be, and whether one is so."""
