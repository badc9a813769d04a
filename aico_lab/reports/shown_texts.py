"""The texts that can be read in an output: shown, quoted, or put together from its parts.

A sentence can be in the attribute of a tag, split by tags, escaped as HTML, JSON or in an address,
or spread over the rows of a chart or table, one word in each.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

    import nbformat

_DECODED: Final = 2
"""How many times quoting is undone, as for the picture of a chart within a page within JSON."""

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal, in tracebacks
_TAG: Final = re.compile(r"<[^<>]*>")
# Also emphasis of Markdown, and the hyphen at the end of a line.
_INSIDE_WORDS: Final = re.compile(r"<[^<>]*>|[*_`~\\]+|-\s*\n\s*")
_PAIR: Final = re.compile(
    r"""["']?([\w .-]{1,64})["']?\s*:\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|(-?\d[\d.]*))"""
)
_ROW: Final = re.compile(r"<tr\b.*?</tr>", re.DOTALL | re.IGNORECASE)
_CELL: Final = re.compile(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", re.DOTALL | re.IGNORECASE)
_BARS: Final = re.compile("[|│┆]")  # between the columns of a table that is printed
_BASE64: Final = re.compile(r"base64,([A-Za-z0-9+/\s]{24,}={0,2})")
_UTF_8: Final = re.compile(r"(?:\\x[89a-fA-F][0-9a-fA-F]){2,}")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([nrtbf])|(.))")

_CONTROLS: Final = dict(zip("nrtbf", "\n\r\t\b\f", strict=True))


@dataclass(frozen=True)
class ShownText:
    """A text of a page.

    Attributes:
        where: Its place in words, such as 'cell 3 (a chart)'.
        text: The text as the file holds it.
    """

    where: str
    text: str


def shown_texts(node: nbformat.NotebookNode, injected: str) -> list[ShownText]:
    """Return all texts in the outputs of an executed notebook, in their order.

    Args:
        node: The notebook.
        injected: The tag of a cell that is not counted, since the notebook itself has none.
    """
    found: list[ShownText] = []
    number = 0
    for cell in node.cells:
        is_counted = cell.cell_type == "code" and bool(cell.source.strip())
        number += is_counted and injected not in cell.metadata.get("tags", [])
        for output in cell.get("outputs", []):
            found += _of_output(f"cell {number}", output)
    return found


def _of_output(cell: str, output: nbformat.NotebookNode) -> Iterator[ShownText]:
    if output.output_type == "stream":
        yield ShownText(f"{cell} (printed)", output.text)
    elif output.output_type == "error":
        text = "\n".join([output.ename, output.evalue, *output.traceback])
        yield ShownText(f"{cell} (an error)", text)
    else:
        is_chart = 'class="aico-lab-question' in str(output.data.get("text/html", ""))
        where = f"{cell} (a chart)" if is_chart else cell
        for value in (*output.data.values(), output.get("metadata") or ""):
            yield ShownText(where, value if isinstance(value, str) else json.dumps(value))


def readings(text: str) -> Iterator[tuple[str, str]]:
    """Yield the ways to read a text, each with the name of that way.

    Args:
        text: The text as a file holds it.
    """
    text = escaped = _COLOURS.sub("", text)
    for level in range(_DECODED + 1):
        yield f"whole {level}", text
        yield f"apart {level}", _TAG.sub(" ", text)
        yield f"joined {level}", _INSIDE_WORDS.sub("", text)
        yield f"columns {level}", " | ".join(_columns(text))
        if "\\x" in escaped:  # bytes of a key could be those of a text or of an address
            escaped = _ESCAPE.sub(_unescaped, escaped)
            yield f"bytes {level}", escaped
        decoded = _decoded(text)
        if decoded == text:
            return
        text = decoded


def _columns(text: str) -> Iterator[str]:
    """Yield the columns of a text's objects and tables, each as the text of its cells."""
    columns: dict[str, list[str]] = {}
    for match in _PAIR.finditer(text):
        columns.setdefault(match[1], []).append(match[2] or match[3] or match[4] or "")
    cells: dict[int, list[str]] = {}
    for row in _ROW.finditer(text):
        for place, cell in enumerate(_CELL.finditer(row[0])):
            cells.setdefault(place, []).append(_TAG.sub("", cell[1]))
    drawn: dict[int, list[str]] = {}
    for line in text.splitlines():
        for place, part in enumerate(_BARS.split(line) if _BARS.search(line) else ()):
            drawn.setdefault(place, []).append(_TAG.sub("", part).strip())
    for values in (*columns.values(), *cells.values(), *drawn.values()):
        yield " ".join(values)


def _decoded(text: str) -> str:
    """Undo the quoting of addresses, HTML and JSON once."""
    if "base64," in text:
        text = _BASE64.sub(_opened, text)
    if "%" in text:
        text = unquote(text)
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text:
        text = _UTF_8.sub(_of_bytes, text)
        text = _ESCAPE.sub(_unescaped, text)
        # Two escapes may be one character.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _opened(match: re.Match[str]) -> str:
    """Return the text that a base64 code holds; the code itself if it holds no text."""
    try:
        return " " + base64.b64decode(match[1]).decode()
    except (binascii.Error, UnicodeDecodeError):
        return match[0]


def _of_bytes(match: re.Match[str]) -> str:
    """Return the text of bytes as Python writes them; as they are written if they are no text."""
    try:
        return bytes.fromhex(match[0].replace("\\x", "")).decode()
    except UnicodeDecodeError:
        return match[0]


def _unescaped(match: re.Match[str]) -> str:
    code, byte, control, other = match.groups()
    if control:
        return _CONTROLS[control]
    return chr(int(code or byte, 16)) if code or byte else str(other)


def json_texts(where: str, content: bytes) -> Iterator[ShownText]:
    """Yield the text of a JSON file, whose non-ASCII characters may be escaped.

    Args:
        where: The file in words.
        content: The content of the file.
    """
    value: Any = json.loads(content)
    yield ShownText(where, json.dumps(value, ensure_ascii=False))
