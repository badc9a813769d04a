"""Remove secrets, ids, and names of folders of this machine from an executed notebook."""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aico_lab.charts.picture import quoted

if TYPE_CHECKING:
    from collections.abc import Collection

    import nbformat

REDACTED: Final = "•••"


class Redactor:
    """Replaces secrets by dots, also as Python, JSON and HTML quote them."""

    def __init__(self, secrets: Collection[str]) -> None:
        forms = {
            form
            for secret in secrets
            for form in (
                secret,
                repr(secret)[1:-1],
                json.dumps(secret)[1:-1],
                json.dumps(secret).replace("<", "\\u003c")[1:-1],  # as charts write it
                html.escape(secret),
                quoted(html.escape(secret, quote=False)),  # in the picture of a chart
            )
            if secret
        }
        # The longest first, since one secret may be part of another.
        self._forms = sorted(forms, key=len, reverse=True)

    def redact(self, text: str) -> str:
        """Return a text without secrets."""
        for form in self._forms:
            text = text.replace(form, REDACTED)
        return text

    def clean(self, value: Any) -> Any:
        """Return a notebook, or a part of one, with all texts and keys redacted."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, list):
            return [self.clean(item) for item in value]
        if isinstance(value, dict):
            return type(value)(
                {self.redact(name): self.clean(item) for name, item in value.items()}
            )
        return value


def forget_this_machine(node: nbformat.NotebookNode) -> None:
    """Remove paths of this machine from the metadata and tracebacks of a notebook."""
    for name in ("input_path", "output_path"):
        node.metadata.papermill[name] = Path(node.metadata.papermill[name]).name
    for cell in node.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                output.traceback = [line.replace(sys.prefix, "…") for line in output.traceback]


def withhold(node: nbformat.NotebookNode, parameters: Collection[str]) -> None:
    """Replace the given values of some parameters by dots, in the cell and the metadata of a run.

    Values that were not given, which are None, stay.
    """
    given = node.metadata.papermill.parameters
    for name in parameters:
        if given.get(name) is None:
            continue
        given[name] = REDACTED
        line = re.compile(rf"^{re.escape(name)} = .*$", re.MULTILINE)
        for cell in node.cells:
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.source = line.sub(f'{name} = "{REDACTED}"', cell.source)
