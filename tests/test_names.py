"""Names and docstrings of the package's code: unique, listed and in the style of the README."""

from __future__ import annotations

import ast
import collections
import inspect
import re
from pathlib import Path

from aico_lab import errors

PACKAGE = Path(errors.__file__).parent
TREES = {
    str(path.relative_to(PACKAGE)): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}


def test_no_two_public_classes_have_the_same_name():
    """Else a reader who searches for a class finds another one."""
    where = collections.defaultdict(list)
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(module)
    assert {name: modules for name, modules in where.items() if len(modules) > 1} == {}
    assert len(where) > 100


def test_the_tree_of_errors_is_that_of_the_classes():
    """The docstring of `errors` draws every class below its base class."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in str(errors.__doc__).splitlines():
        if found := re.match(r"    ([│ ├└─]*)([A-Z]\w+)( |$)", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else "Exception"
    classes = dict(inspect.getmembers(errors, inspect.isclass))
    assert drawn == {name: one.__bases__[0].__name__ for name, one in classes.items()}


def test_docstrings_begin_with_what_a_function_does():
    """And not with a word that the README's section on words excludes."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            assert not re.match(r"(Give|Say|What|Who|Whose|It|They|This|That)\b", first), (
                f"{module}:{node.lineno}: {first}"
            )
