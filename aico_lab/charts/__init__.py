"""Draw Altair charts in JupyterLab and in exported HTML without network access.

JupyterLab ships an older Vega-Lite than Altair writes, and Altair's own renderers load Vega-Lite
from a CDN. Here a notebook contains the JavaScript once, as the output of `enable()`, and each
chart is a figure: a title, a picture that a script replaces by the interactive chart, and a
caption. Where scripts do not run (in an untrusted notebook or a mail program), the picture stays.

Charts follow the width of their column. Scripts of a page can draw more of them:
`window.aicoLab.draw(element, specification)` returns a promise of Vega's view.

Altair takes a second to import, so it is imported only when something is drawn.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aico_lab.charts.figure import Details, Html, describe, figure, render, unbroken
from aico_lab.charts.theme import (
    BLUE,
    CONFIG,
    DARK,
    FONT,
    GREEN,
    GREY,
    INK,
    LINES,
    MUTED,
    PALE,
    PAPER,
    PURPLE,
    VERMILION,
    WIDTH,
    theme,
    variables,
)
from aico_lab.config import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "BLUE",
    "DARK",
    "GREEN",
    "GREY",
    "INK",
    "LINES",
    "MUTED",
    "NAME",
    "PALE",
    "PAPER",
    "PURPLE",
    "VERMILION",
    "WIDTH",
    "Details",
    "Html",
    "describe",
    "enable",
    "figure",
    "script",
    "style",
    "tiles",
    "unbroken",
]

NAME: Final = "aico_lab"

_FOLDER: Final = Path(__file__).parent

_BUNDLE: Final = """
import sys, vl_convert
snippet = sys.stdin.buffer.read().decode()
sys.stdout.buffer.write(vl_convert.javascript_bundle(snippet).encode())
"""


def enable() -> None:
    """Make all charts of this notebook draw offline.

    Call it once, in the first code cell: each call adds a copy of the JavaScript (0.9 MB) to the
    output of its cell.
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()  # a plain script has no outputs
    if shell is not None:
        bundling = _start_bundling()
    import altair as alt

    alt.theme.register(NAME, enable=True)(theme)
    alt.renderers.register(NAME, render)
    alt.renderers.enable(NAME)
    if shell is not None:
        html = f"<style>{style()}</style><script>{bundling()}</script>"
        shell.display_pub.publish({"text/html": html, "text/plain": "Charts are ready."})


def style() -> str:
    """Return the style sheet of figures; its colours are variables, such as `--aico-ink`."""
    return f"{variables()}{(_FOLDER / 'style.css').read_text(encoding='utf-8')}"


def script() -> str:
    """Return the JavaScript that draws figures: Vega, Vega-Lite and `draw.js` in one."""
    return _start_bundling()()


def _start_bundling() -> Callable[[], str]:
    """Start to bundle the JavaScript, and return a function that waits for it and returns it.

    To bundle it takes a second and 100 MB, in another process. Python's folder of compiled modules
    keeps the result, if the folder can be written.
    """
    drawer = (_FOLDER / "draw.js").read_text(encoding="utf-8")
    source = f"const CONFIG = {json.dumps(CONFIG)};\n{drawer}".encode()
    made_of = importlib.metadata.version("vl-convert-python").encode() + source
    kept = _FOLDER / "__pycache__" / f"bundle.{hashlib.sha256(made_of).hexdigest()[:16]}.js"
    with contextlib.suppress(OSError):
        return functools.partial(_in_function, kept.read_text(encoding="utf-8"))
    process = subprocess.Popen(  # noqa: S603 - this Python, with our own code
        [sys.executable, "-P", "-c", _BUNDLE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=without_secrets(),
    )
    assert process.stdin is not None  # noqa: S101 - for mypy
    process.stdin.write(source)
    process.stdin.close()
    process.stdin = None
    return functools.partial(_bundled, process, kept)


def _bundled(process: subprocess.Popen[bytes], kept: Path) -> str:
    """Return the JavaScript that another process bundled, after waiting for its end; keep it."""
    bundle, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    if not sys.dont_write_bytecode:
        _keep(bundle, kept)
    return _in_function(bundle.decode())


def _keep(bundle: bytes, file: Path) -> None:
    """Write a file in one step, and remove those of other versions; do nothing if this fails."""
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=file.parent) as folder:
        new = Path(folder, file.name)
        new.write_bytes(bundle)
        for older in file.parent.glob("bundle.*.js"):
            older.unlink()
        new.replace(file)


def _in_function(bundle: str) -> str:
    """Return JavaScript that can run again in a page, where names can be declared only once."""
    return f"(() => {{\n{bundle}\n}})()"


def tiles(figures: Mapping[str, object]) -> Html:
    """Return headline figures side by side, as HTML.

    Args:
        figures: The value of each label; None is shown as a dash.
    """
    cells = "".join(
        '<div style="padding: 12px 16px; border-radius: 8px;'
        f' background: #F2F5F8; color: {INK}; border-left: 4px solid {BLUE};">'
        '<div style="font-size: 22px; line-height: 1.25; font-weight: 600; white-space: nowrap;">'
        f"{'–' if value is None else escape(str(value))}</div>"  # noqa: RUF001
        f'<div style="font-size: 13px; color: {MUTED};">{escape(label)}</div></div>'
        for label, value in figures.items()
    )
    columns = "display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr));"
    style = f"{columns} gap: 12px; max-width: 760px; font-family: {FONT};"
    return Html(f'<div class="mathjax_ignore" style="{style}">{cells}</div>')
