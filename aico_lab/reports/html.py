"""Export an executed notebook as one self-contained HTML file.

By default nbconvert links require.js, MathJax, mermaid and widgets from a CDN. This page contains
none of them, and its content security policy makes the browser block anything that a cell's output
would load. So opening a report causes no network request.
"""

from __future__ import annotations

import itertools
import re
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config

from aico_lab.home.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

# Vega compiles expressions, which needs unsafe-eval; saving a chart as a picture needs blob.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


_STYLE: Final = _read("page.css")

_SCRIPT: Final = _read("contents.js")

# The source of a failed cell is always shown.
_TEMPLATE: Final = (
    """
{%- extends 'base.html.j2' -%}
{%- block header -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content=\""""
    + _POLICY
    + """\">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ resources.metadata.page_title | escape_html }}</title>
{% for css in resources.inlining.css %}<style>{{ css }}</style>{% endfor %}
<style>"""
    + _STYLE
    + """</style>
</head>
{%- endblock header -%}
{%- block body_header -%}
<body>
<a class="skip" href="#content">Skip to the content</a>
<header><p>{{ resources.metadata.name | escape_html }}</p>
<p class="switch"><input type="checkbox" id="show-code">
<label for="show-code">Show code</label></p>
</header>
{{ resources.metadata.contents_here }}
<main id="content" class="jp-Notebook" tabindex="-1">
{%- endblock body_header -%}
{%- block input_group -%}
{%- set failed = cell.outputs | selectattr('output_type', 'equalto', 'error') | list -%}
<div class="code{{ ' failed' if failed }}">
{%- if cell.execution_count %}<span class="count">[{{ cell.execution_count }}]</span>{% endif -%}
{{ cell.source | highlight_code(metadata=cell.metadata) | clean_html }}
</div>
{%- endblock input_group -%}
{%- block body_footer -%}
</main>
</div>
{{ resources.metadata.script }}
</body>
{%- endblock body_footer -%}
{%- block footer -%}
</html>
{%- endblock footer -%}
"""
)

_CONTENTS_HERE: Final = "<!-- contents -->"
_FEWEST: Final = 3
"""The fewest headings of a page with a table of contents."""

# Scripts are matched, too, because they may contain the text of headings.
_HEADING: Final = re.compile(
    r"<script.*?</script>|<h(?P<level>[1-3])(?P<attributes>[^>]*)>(?P<text>.*?)</h[1-3]>",
    re.DOTALL,
)
_ID: Final = re.compile(r'\bid="([^"]*)"')
_TAG: Final = re.compile(r"<[^>]*>")
# Cells and outputs, which nbconvert makes stops of the Tab key although they take no input.
_STOP: Final = re.compile(r'(<div class="jp-[^>]*?) tabindex="0"')


def export_html(notebook_path: Path, html_path: Path, *, title: str) -> None:
    """Write a notebook as an HTML page with text and results; a switch shows the code.

    A table of contents, of headings from the second level on, stays visible while the page scrolls.

    Args:
        notebook_path: The executed notebook.
        html_path: The page's path; an existing page is replaced atomically.
        title: The line at the top, and the page's title unless an output of the notebook has one;
            see `first_screen.Fragment`.
    """
    notebook = nbformat.read(notebook_path, as_version=4)  # type: ignore[no-untyped-call]
    notebook.metadata.pop("widgets", None)  # need a kernel, and a script from the network
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        config=Config({"CSSHTMLHeaderPreprocessor": {"style": "default"}}),
        raw_template=_TEMPLATE,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        require_js_url="",
        mathjax_url="",
        mermaid_js_url="",
        mermaid_layout_elk_js_url="",
    )
    names = {
        "name": title,
        "page_title": _own_title(notebook) or title,
        "contents_here": _CONTENTS_HERE,
        "script": f"<script>(() => {{{_SCRIPT}}})()</script>",
    }
    page, _resources = exporter.from_notebook_node(notebook, {"metadata": names})
    page, headings = _name_headings(_STOP.sub(r"\1", page))
    page = page.replace(_CONTENTS_HERE, _contents(headings), 1)
    write_atomically(html_path, page.encode())


def _name_headings(page: str) -> tuple[str, list[tuple[int, str, str]]]:
    """Return a page in which every heading has an id, and level, id and HTML of each heading."""
    found: list[tuple[int, str, str]] = []

    def name(match: re.Match[str]) -> str:
        if not match["level"]:
            return match[0]
        text = _TAG.sub("", match["text"]).strip()
        given = _ID.search(match["attributes"])
        names = {one for _, one, _ in found}
        # As nbconvert does, so that a notebook's own links to its headings lead there.
        wanted = given[1] if given else text.replace(" ", "-").replace('"', "")
        own = next(n for n in _numbered(wanted) if n not in names)
        found.append((int(match["level"]), own, text))
        attributes = _ID.sub("", match["attributes"])
        return f'<h{match["level"]} id="{own}"{attributes}>{match["text"]}</h{match["level"]}>'

    return _HEADING.sub(name, page), found


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in itertools.count(2):
        yield f"{name}-{number}"


def _own_title(notebook: nbformat.NotebookNode) -> str:
    """Return the title that an output gives its page; empty if none does."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            title = output.get("metadata", {}).get("text/html", {}).get("title")
            if isinstance(title, str) and title:
                return title
    return ""


def _contents(headings: list[tuple[int, str, str]]) -> str:
    """Return the table of contents, and the beginning of the columns of the page.

    Args:
        headings: The level, the id and the HTML of each heading.
    """
    listed = [heading for heading in headings if heading[0] > 1]
    if len(listed) < _FEWEST:
        return '<div class="columns">'
    links = "".join(
        f'<li class="h{level}"><a href="#{quote(unescape(name))}">{text}</a></li>'
        for level, name, text in listed
    )
    return (
        '<div class="columns two"><nav class="contents" aria-label="Contents">'
        '<input type="checkbox" id="show-contents"> <label for="show-contents">Contents</label>'
        f"<ol>{links}</ol></nav>"
    )
