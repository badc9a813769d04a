"""Compile the grammar of international addresses only where an address is checked.

jsonschema, which Altair and nbformat import, imports `rfc3987_syntax` if it is installed, and
JupyterLab installs it. That package compiles its grammar three times when it is imported: a second
in every kernel, for formats that no chart and no notebook uses.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "rfc3987_syntax"


def postpone() -> None:
    """Let `rfc3987_syntax` be imported when a part of it is used, unless it already is."""
    if _PACKAGE in sys.modules or (spec := PathFinder.find_spec(_PACKAGE)) is None:
        return
    standing_in = ModuleType(_PACKAGE)
    standing_in.__spec__ = spec
    standing_in.__file__ = spec.origin  # for which ipykernel asks every module when it starts
    standing_in.__path__ = list(spec.submodule_search_locations or ())
    vars(standing_in).update(is_valid_syntax=_is_valid_syntax, __getattr__=_attribute)
    sys.modules[_PACKAGE] = standing_in


def _is_valid_syntax(term: str, value: str) -> bool:
    """Return whether a text matches a rule of the grammar.

    Args:
        term: The name of the rule, such as 'iri'.
        value: The text.
    """
    valid: bool = _attribute("is_valid_syntax")(term, value)
    return valid


def _attribute(name: str) -> Any:
    """Return an attribute of the real package, importing it first."""
    package = sys.modules[_PACKAGE]
    if vars(package).get("__getattr__") is _attribute:
        del sys.modules[_PACKAGE]
        package = importlib.import_module(_PACKAGE)
    return getattr(package, name)
