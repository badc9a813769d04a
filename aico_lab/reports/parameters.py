"""Read and validate a notebook's parameters before its kernel starts.

Papermill does not validate: it accepts text for a number, and only warns of an unknown name. Here
the cell tagged `parameters` is the declaration, with one line for each parameter::

    days: int = 30  # length of the window that ends with the last message

Without an annotation the type is that of the default, or `str | None` if the default is None. Of
`Literal["a", "b"]` only these texts are accepted; the cell may import it from `typing`.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import math
import reprlib
import tokenize
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aico_lab.errors import InvalidValue, UnknownName, WrongUse, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_OPTIONAL: Final = " | None"
_TYPES: Final = {"int": int, "float": float, "bool": bool, "str": str}
_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
}
_TRUTH: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_NO_VALUE: Final = object()
_LITERAL: Final = "Literal"
_IMPORT: Final = f"from typing import {_LITERAL}"


@dataclass(frozen=True)
class NotebookParameter:
    """One declaration in a notebook's parameters cell.

    Attributes:
        name: The variable's name.
        type: The annotation: int, float, bool, str or a Literal of texts, optionally with `| None`.
        default: The value if none is given.
        help: The comment at the end of the line.
    """

    name: str
    type: str
    default: object
    help: str


def read_parameters(notebook: Path) -> dict[str, NotebookParameter]:
    """Return the declarations in the cell tagged `parameters`; empty if there is no such cell.

    Raises:
        UnknownName: The notebook does not exist.
        WrongUse: The file is not a notebook, cannot be read, or its parameters cell contains
            anything but simple declarations.
    """
    source = _parameters_cell(notebook)
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise WrongUse(
            f"The parameters cell of {notebook.name} is not plain Python: {error.msg}, "
            f"line {error.lineno}."
        ) from error
    comments = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, NotebookParameter] = {}
    for statement in statements:
        if ast.unparse(statement) == _IMPORT:
            continue
        parameter = _declaration(statement, source, comments, notebook.name)
        if parameter.name in found:
            raise WrongUse(f"{notebook.name} declares the parameter “{parameter.name}” twice.")
        found[parameter.name] = parameter
    return found


def bind(
    parameters: Mapping[str, NotebookParameter], given: Mapping[str, object]
) -> dict[str, object]:
    """Return the values of all parameters: given ones, converted and validated, or the defaults.

    Args:
        parameters: The declarations of the notebook.
        given: Values by name; text is converted as from a command line.

    Raises:
        UnknownName: The notebook has no parameter of that name.
        InvalidValue: A value does not fit the parameter's type.
    """
    for name in given:
        if name not in parameters:
            known = ", ".join(sorted(parameters)) or "none, as no cell tagged “parameters” has any"
            end = did_you_mean(name, parameters, f"; its parameters are: {known}.")
            raise UnknownName(f"The notebook has no parameter “{name}”{end}")
    bound: dict[str, object] = {}
    for name, parameter in parameters.items():
        bound[name] = parameter.default
        if name in given:
            value = given[name]
            if isinstance(value, str):
                value = _parse(value, parameter.type)
            bound[name] = _check(value, parameter.type)
            if bound[name] is _NO_VALUE:
                raise InvalidValue(
                    f"The parameter “{name}” must be {_described(parameter.type)}, "
                    f"not {reprlib.repr(given[name])}."
                )
    return bound


def _parameters_cell(notebook: Path) -> str:
    try:
        content = json.loads(notebook.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnknownName(f"There is no notebook {notebook}.") from error
    except OSError as error:
        raise WrongUse(f"{notebook} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise WrongUse(f"{notebook.name} is not a notebook: it is not JSON text.") from error
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list):
        raise WrongUse(f"{notebook.name} is not a notebook of format 4: it has no list of cells.")
    try:
        for cell in cells:
            if "parameters" in cell.get("metadata", {}).get("tags", []):
                return "".join(cell["source"])
    except (AttributeError, LookupError, TypeError) as error:
        raise WrongUse(f"{notebook.name} is not a notebook: its cells are damaged.") from error
    return ""


def _declaration(
    statement: ast.stmt, source: str, comments: Mapping[int, str], notebook: str
) -> NotebookParameter:
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name)):
            annotation = ast.unparse(statement.annotation)
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)) if (
            value is None or type(value).__name__ in _TYPES
        ):
            annotation = "str | None" if value is None else type(value).__name__
        case _:
            text = (ast.get_source_segment(source, statement) or "").partition("\n")[0]
            raise WrongUse(
                f"The parameters cell of {notebook} must hold only lines such as "
                f"“days: int = 30  # what it is” or “days = 30”, not “{text}”."
            )
    kind = annotation.removesuffix(_OPTIONAL)
    if kind not in _TYPES and not _choices(kind):
        raise WrongUse(
            f"The parameter “{name}” of {notebook} is annotated “{annotation}”; use int, float, "
            "bool or str, or a Literal of several texts, each optionally with “| None”."
        )
    default: object = _NO_VALUE
    if statement.value is not None:
        with contextlib.suppress(ValueError):  # an expression, refused below
            default = _check(ast.literal_eval(statement.value), annotation)
    if default is _NO_VALUE:
        raise WrongUse(
            f"The parameter “{name}” of {notebook} needs a default that is "
            f"{_described(annotation)}, written as a plain value."
        )
    help_text = comments.get(statement.end_lineno or 0, "")
    return NotebookParameter(name=name, type=annotation, default=default, help=help_text)


def _choices(kind: str) -> list[str]:
    """Return the texts of a Literal; empty for any other annotation."""
    if not kind.startswith(f"{_LITERAL}["):
        return []
    try:
        found = ast.literal_eval(kind.removeprefix(_LITERAL))
    except ValueError:
        return []
    return found if all(isinstance(one, str) for one in found) else []


def _described(annotation: str) -> str:
    kind = annotation.removesuffix(_OPTIONAL)
    words = f"one of {', '.join(_choices(kind))}" if _choices(kind) else _WORDS[kind]
    return words if kind == annotation else f"{words} or none"


def _parse(text: str, annotation: str) -> object:
    """Parse a value from the command line; return `_NO_VALUE` if it does not fit the annotation."""
    kind = annotation.removesuffix(_OPTIONAL)
    if kind != annotation and not text.strip():  # a forgotten value is no choice of none
        return _NO_VALUE
    if kind != annotation and text.lower() == "none":
        return None
    if kind == "str" or _choices(kind):
        return text
    if kind == "bool":
        return _TRUTH.get(text.lower(), _NO_VALUE)
    try:
        return int(text) if kind == "int" else float(text)
    except ValueError:
        return _NO_VALUE


def _check(value: object, annotation: str) -> object:
    """Return the value, or `_NO_VALUE` if it does not fit the annotation."""
    kind = annotation.removesuffix(_OPTIONAL)
    if value is None and kind != annotation:
        return None
    if kind == "float" and type(value) is int:
        with contextlib.suppress(OverflowError):
            return float(value)
    if choices := _choices(kind):
        return value if value in choices else _NO_VALUE
    # The exact type, since isinstance accepts True as an int.
    if type(value) is not _TYPES[kind] or (isinstance(value, float) and not math.isfinite(value)):
        return _NO_VALUE
    return value
