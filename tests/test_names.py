"""Names and docstrings of the package's code: unique, listed and in the style of the README."""

from __future__ import annotations

import ast
import builtins
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

DOCUMENTED = [
    (f"{module}:{node.lineno}", node, ast.get_docstring(node) or "")
    for module, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
]


def test_no_two_public_classes_have_the_same_name():
    """Else a reader who searches for a class finds another one."""
    where = collections.defaultdict(list)
    for module, node, _ in DOCUMENTED:
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
    for where, _, docstring in DOCUMENTED:
        first = docstring.partition("\n")[0]
        assert not re.match(r"(Give|Say|What|Who|Whose|It|They|This|That)\b", first), (
            f"{where}: {first}"
        )


def section(docstring: str, heading: str) -> list[str]:
    """Return the names that a section of a docstring explains, in order."""
    _, _, after = f"\n{docstring}\n".partition(f"\n{heading}:\n")
    body = re.match(r"(?: +.*\n|\n)*", after)
    return re.findall(r"^ {4}([\w.]+):", body[0], re.MULTILINE) if body else []


def test_docstrings_explain_the_parameters_that_there_are():
    """All of them and in their order, where a docstring explains any."""
    for where, node, docstring in DOCUMENTED:
        explained = section(docstring, "Args")
        if explained and not isinstance(node, ast.ClassDef):
            given = node.args
            every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
            names = [one.arg for one in every if one is not None]
            assert explained == [n for n in names if n not in {"self", "cls"} and n[0] != "_"], (
                where
            )


def test_docstrings_explain_the_attributes_that_there_are():
    """Every public field of a public class, where its docstring explains any."""
    for where, node, docstring in DOCUMENTED:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            fields = [one.target for one in node.body if isinstance(one, ast.AnnAssign)]
            names = {one.id for one in fields if isinstance(one, ast.Name) and one.id[0] != "_"}
            explained = section(docstring, "Attributes")
            assert not explained or names <= set(explained), where


def test_docstrings_raise_errors_that_there_are():
    known = {*dir(errors), *dir(builtins)}
    known |= {node.name for _, node, _ in DOCUMENTED if isinstance(node, ast.ClassDef)}
    for where, _, docstring in DOCUMENTED:
        for name in section(docstring, "Raises"):
            assert name in known or "." in name, f"{where}: {name}"
