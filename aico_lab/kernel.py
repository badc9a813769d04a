"""What a kernel of `aico-lab lab` does otherwise: an extension of IPython."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_TABLES: Final = (
    ("polars.dataframe.frame", "DataFrame"),
    ("polars.series.series", "Series"),
    ("pandas.core.frame", "DataFrame"),  # before pandas 3
    ("pandas", "DataFrame"),
)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Show the text of tables as it is, for JupyterLab typesets what lies between dollar signs."""
    formatter = shell.display_formatter
    if formatter is None:  # nothing is shown
        return
    html = formatter.formatters["text/html"]
    for module, name in _TABLES:  # by name, so that neither is imported
        html.for_type_by_name(module, name, _without_mathjax)


def _without_mathjax(table: Any) -> str | None:
    shown: str | None = table._repr_html_()
    return shown and f'<div class="mathjax_ignore">{shown}</div>'
