"""The IPython extension that kernels of `aico-lab lab` load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aico_lab.home.handover import receive
from aico_lab.jupyter import report_magic

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_TABLES: Final = (
    ("polars.dataframe.frame", "DataFrame"),
    ("polars.series.series", "Series"),
    ("pandas.core.frame", "DataFrame"),  # before pandas 3
    ("pandas", "DataFrame"),
)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add `%report` and `%reports`; keep dollar signs in tables from being read as formulas.

    The key of the home is read, so that no process that a cell starts inherits its file.
    """
    receive()
    report_magic.register(shell)
    formatter = shell.display_formatter
    if formatter is None:  # a shell without display
        return
    html = formatter.formatters["text/html"]
    for module, name in _TABLES:  # by name, to avoid importing the libraries
        html.for_type_by_name(module, name, _without_mathjax)


def _without_mathjax(table: Any) -> str | None:
    shown: str | None = table._repr_html_()
    return shown and f'<div class="mathjax_ignore">{shown}</div>'
