"""A notebook's parameters: read from its cell, and checked before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from aico_lab.errors import InvalidValue, UnknownName, WrongUse
from aico_lab.reports.parameters import NotebookParameter, bind, read_parameters
from tests.notebooks import write_notebook

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"

DECLARED = """
generation: int = 0  # snapshot to read; 0 is the newest
threshold: float = -0.5
detailed: bool = False
zone: str = "UTC"  # IANA name # of a zone
top: int | None = None
share: float | None = 1
label: str | None = 'all # of them'  # what to call it
from typing import Literal
side: Literal["left", "right"] | None = "left"
"""


@pytest.fixture
def declared(tmp_path):
    return read_parameters(write_notebook(tmp_path / "n.ipynb", parameters=DECLARED))


def test_without_a_type_it_is_that_of_the_value(tmp_path):
    """As papermill's own examples write them."""
    source = "days = 30\nshare = 0.5\nquick = True\nname = 'x'\nuser = None  # who"
    path = write_notebook(tmp_path / "n.ipynb", parameters=source)
    found = read_parameters(path)
    types = ["int", "float", "bool", "str", "str | None"]
    assert [parameter.type for parameter in found.values()] == types
    assert found["user"].help == "who"
    assert bind(found, {"days": "7", "user": "ada"})["user"] == "ada"


def test_name_type_default_and_comment_of_every_line_are_read(declared):
    assert list(declared.values()) == [
        NotebookParameter("generation", "int", 0, "snapshot to read; 0 is the newest"),
        NotebookParameter("threshold", "float", -0.5, ""),
        NotebookParameter("detailed", "bool", False, ""),
        NotebookParameter("zone", "str", "UTC", "IANA name # of a zone"),
        NotebookParameter("top", "int | None", None, ""),
        NotebookParameter("share", "float | None", 1.0, ""),
        NotebookParameter("label", "str | None", "all # of them", "what to call it"),
        NotebookParameter("side", "Literal['left', 'right'] | None", "left", ""),
    ]


def test_an_empty_parameters_cell_declares_that_there_are_none(tmp_path):
    assert read_parameters(write_notebook(tmp_path / "n.ipynb")) == {}


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_of_the_project_declares_parameters_with_a_comment_each(path):
    assert all(parameter.help for parameter in read_parameters(path).values())


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("generation", "12", 12),
        ("generation", -3, -3),
        ("threshold", "1e-3", 0.001),
        ("threshold", 2, 2.0),
        ("detailed", "Yes", True),
        ("detailed", "0", False),
        ("detailed", True, True),
        ("zone", "", ""),
        ("zone", "none", "none"),
        ("zone", "12", "12"),
        ("top", "none", None),
        ("top", "None", None),
        ("top", None, None),
        ("top", "5", 5),
        ("share", "none", None),
        ("label", "none", None),
        ("label", "x", "x"),
        ("side", "right", "right"),
        ("side", "none", None),
    ],
)
def test_a_value_becomes_what_the_annotation_says(declared, name, given, value):
    bound = bind(declared, {name: given})
    assert bound[name] == value
    assert type(bound[name]) is type(value)


def test_parameters_that_are_not_given_keep_their_defaults(declared):
    assert bind(declared, {"zone": "Asia/Kolkata"}) == {
        "generation": 0,
        "threshold": -0.5,
        "detailed": False,
        "zone": "Asia/Kolkata",
        "top": None,
        "share": 1.0,
        "label": "all # of them",
        "side": "left",
    }


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("generation", "hello", "“generation” must be a whole number, not 'hello'."),
        ("generation", "1.0", "a whole number, not '1.0'"),
        ("generation", 1.0, "a whole number, not 1.0"),
        ("generation", True, "a whole number, not True"),
        ("generation", None, "a whole number, not None"),
        ("generation", "", "a whole number, not ''"),
        ("generation", "9" * 5000, "a whole number"),
        ("threshold", "nan", "a number, not 'nan'"),
        ("threshold", float("inf"), "a number, not inf"),
        ("threshold", 10**400, "a number"),
        ("detailed", "maybe", "true or false, not 'maybe'"),
        ("detailed", 1, "true or false, not 1"),
        ("zone", 5, "text, not 5"),
        ("zone", Path("x"), "text, not "),
        ("top", "", "a whole number or none, not ''"),
        ("label", " ", "text or none, not ' '"),
        ("top", [], "a whole number or none, not []"),
        ("label", b"x", "text or none, not b'x'"),
        ("side", "top", "one of left, right or none, not 'top'"),
        ("side", ["left"], "one of left, right or none, not ['left']"),
    ],
)
def test_a_value_of_another_type_is_refused_in_one_sentence(declared, name, given, sentence):
    with pytest.raises(InvalidValue) as caught:
        bind(declared, {name: given})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_refused_and_the_known_ones_are_listed(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", parameters="days: int = 3\nat: str = 'x'")
    with pytest.raises(UnknownName, match=r"no parameter “dayz”: did you mean days\?$"):
        bind(read_parameters(path), {"dayz": "3"})
    with pytest.raises(UnknownName, match=r"no parameter “user”; its parameters are: at, days\.$"):
        bind(read_parameters(path), {"user": "3"})


def test_an_unknown_name_is_refused_where_there_are_no_parameters():
    with pytest.raises(UnknownName, match=r"its parameters are: none, as no cell tagged"):
        bind({}, {"days": 3})


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("x = [3]", "must hold only lines such as .* not “x = \\[3\\]”"),
        ("import os", "must hold only lines such as .* not “import os”"),
        ("import os", "not “import os”"),
        ("def f():\n    pass", "not “def f"),
        ("a.b: int = 3", "not “a.b: int = 3”"),
        # papermill drops this annotation silently and takes any value
        ("x: dict[str, int] | None = None", "is annotated “dict.*use int, float, bool or str"),
        ("x: list = []", "is annotated “list”"),
        ("x: int | str = 3", "is annotated"),
        ("x: Literal[1, 2] = 1", "is annotated"),
        ("x: Literal[str] = 'a'", "is annotated"),
        ("x: Literal['a', 'b'] = 'c'", "needs a default that is one of a, b"),
        ("x: int | None | None = 3", "is annotated"),
        ("x: int", "needs a default that is a whole number"),
        ("x: int = 1 + 2", "needs a default"),
        ("x: int = len('abc')", "needs a default"),
        ("x: int = '3'", "needs a default"),
        ("x: int | None = 'none'", "needs a default that is a whole number or none"),
        ("x: bool = 0", "needs a default that is true or false"),
        ("x: int = 1\nx: int = 2", "declares the parameter “x” twice"),
        ("%time\nx: int = 3", "not plain Python"),
        ("x: int = (3", "not plain Python"),
    ],
)
def test_a_cell_that_could_be_misunderstood_is_refused_in_one_sentence(tmp_path, cell, sentence):
    path = write_notebook(tmp_path / "n.ipynb", parameters=cell)
    with pytest.raises(WrongUse, match=sentence) as caught:
        read_parameters(path)
    assert "\n" not in str(caught.value)


def test_a_notebook_without_a_parameters_cell_has_none(tmp_path):
    """Papermill would put given values on top, where the next cells overwrite them."""
    path = write_notebook(tmp_path / "n.ipynb", "days = 3", parameters=None)
    assert read_parameters(path) == {}


@pytest.mark.parametrize(
    "text",
    [
        *("", "# a script", "[]", '{"worksheets": []}', "\udcff", "[" * 100_000),
        *('{"cells": [1]}', '{"cells": [{"metadata": {"tags": ["parameters"]}}]}'),
    ],
)
def test_a_file_that_is_no_notebook_is_refused(tmp_path, text):
    path = tmp_path / "n.ipynb"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(WrongUse, match="is not a notebook"):
        read_parameters(path)


def test_a_notebook_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UnknownName, match=r"There is no notebook .*gone\.ipynb"):
        read_parameters(tmp_path / "gone.ipynb")
