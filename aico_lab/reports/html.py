"""Export an executed notebook as one self-contained HTML file.

By default nbconvert links require.js, MathJax, mermaid and widgets from a CDN. This page contains
none of them, and its content security policy makes the browser block anything that a cell's output
would load. So opening a report causes no network request.
"""

from __future__ import annotations

import itertools
import re
from html import unescape
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config

from aico_lab.home import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Vega compiles expressions, which needs unsafe-eval; saving a chart as a picture needs blob.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2933; --muted: #52606d; --line: #d5dae0;
  --soft: #f2f5f8; --link: #005a8d; --failed: #fdf0ed; --failed-ink: #7a271a; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #14191f; --ink: #e4e7eb; --muted: #a7b3c0; --line: #3a434d; --soft: #20272f;
    --link: #7cc4f0; --failed: #3b1d18; --failed-ink: #ffc9bd; }
}
html { scroll-padding-top: 16px; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
main:focus { outline: none; }
.skip { position: absolute; left: -10000px; }
.skip:focus { left: 8px; top: 8px; z-index: 20; padding: 8px 12px; background: var(--paper); }
body > header { display: flex; gap: 4px 16px; justify-content: space-between; flex-wrap: wrap;
  padding: 8px 24px; font-size: 13px; color: var(--muted); border-bottom: 1px solid var(--line); }
body > header p { margin: 0; }
body > header label { cursor: pointer; padding: 4px 0; }
.columns { margin: 0 auto; max-width: 1000px; }
main { display: block; min-width: 0; padding: 24px 24px 64px; }
h1, h2, h3 { line-height: 1.25; margin: 1.6em 0 0.5em; overflow-wrap: anywhere; }
h1 { font-size: 28px; margin-top: 0; } h2 { font-size: 22px; } h3 { font-size: 17px; }
h2 { border-top: 1px solid var(--line); padding-top: 1em; margin-top: 1.8em; }
main p, main li { max-width: 75ch; overflow-wrap: break-word; }
.contents { font-size: 14px; line-height: 1.4; }
.contents ol { list-style: none; margin: 0; padding: 0; }
.contents a { display: block; padding: 6px 10px; border-radius: 6px; text-decoration: none;
  color: var(--ink); overflow-wrap: anywhere; }
.contents a:hover, .contents a[aria-current] { background: var(--soft); }
.contents a[aria-current] { font-weight: 600; }
.contents .h3 { padding-left: 12px; }
@media screen and (max-width: 1099px) {
  html { scroll-padding-top: 60px; }
  .contents { position: sticky; top: 0; z-index: 10; background: var(--paper);
    border-bottom: 1px solid var(--line); padding: 8px 24px; }
  .contents label { cursor: pointer; font-weight: 600; padding: 4px 12px 4px 2px; }
  #show-contents { appearance: none; margin: 0 2px; border-radius: 4px; cursor: pointer; font: inherit; }
  #show-contents::before { content: "☰"; }
  #show-contents:checked::before { content: "✕"; }
  .contents ol { display: none; max-height: 70vh; overflow-y: auto; padding-top: 6px; }
  #show-contents:checked ~ ol { display: block; }
  .contents a { padding: 10px; }
}
@media screen and (min-width: 1100px) {
  .columns.two { display: grid; grid-template-columns: 224px minmax(0, 1fr); max-width: 1240px; }
  .contents { position: sticky; top: 0; align-self: start; max-height: 100vh; overflow-y: auto;
    box-sizing: border-box; padding: 28px 0 24px 16px; }
  .contents input, .contents label { display: none; }
}
@media screen and (min-width: 1600px) {
  .columns.two { max-width: 1800px; }
  .jp-OutputArea:has(> .jp-OutputArea-child .aico-lab-chart) { display: grid; gap: 32px 40px;
    grid-template-columns: repeat(2, minmax(0, 1fr)); align-items: start; }
  .jp-OutputArea-child:not(:has(.aico-lab-chart)) { grid-column: 1 / -1; }
  .jp-OutputArea-child:has(figure) + .jp-OutputArea-child { margin-top: 0; }
}
@media (max-width: 480px) {
  body > header, .contents { padding-left: 16px; padding-right: 16px; }
  main { padding: 20px 16px 48px; }
  h1 { font-size: 24px; } h2 { font-size: 20px; }
}
img { max-width: 100%; height: auto; }
code, pre { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
:not(pre) > code { background: var(--soft); border-radius: 4px; padding: 1px 4px;
  overflow-wrap: anywhere; }
pre { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.jp-CodeCell { margin: 12px 0; }
.jp-CodeCell.jp-mod-noOutputs { margin: 0; }
.jp-OutputArea-output { overflow-x: auto; }
.jp-OutputArea-child:has(figure) + .jp-OutputArea-child { margin-top: 28px; }
.jp-OutputArea-output:has(.aico-lab-chart) { overflow: visible; }
.jp-OutputArea-output[data-mime-type$="stderr"] { background: var(--failed);
  color: var(--failed-ink); padding: 12px 16px; border-radius: 8px; }
.code { display: none; margin: 12px 0; padding: 12px 16px; border-radius: 8px; color-scheme: light;
  background: #f7f9fb; color: #1f2933; border: 1px solid var(--line); }
body:has(#show-code:checked) .code, .code.failed { display: block; }
.code .count { float: right; color: #52606d; font-size: 12px; }
table { border-collapse: collapse; font-size: 14px; margin: 12px 0; }
th, td { border-bottom: 1px solid var(--line); padding: 4px 12px; text-align: right; }
.ansi-bold { font-weight: bold; }
.jp-OutputArea-output pre { --red: #b42318; --green: #00704f; --yellow: #8a5a00; --blue: #005a8d;
  --magenta: #8f3d74; --cyan: #00697a; }
@media screen and (prefers-color-scheme: dark) {
  .jp-OutputArea-output pre { --red: #ffb4a8; --green: #6fdcb5; --yellow: #f2c46b; --blue: #7cc4f0;
    --magenta: #eaa6d3; --cyan: #6fd3e3; }
}
.ansi-red-fg, .ansi-red-intense-fg { color: var(--red); }
.ansi-green-fg, .ansi-green-intense-fg { color: var(--green); }
.ansi-yellow-fg, .ansi-yellow-intense-fg { color: var(--yellow); }
.ansi-blue-fg, .ansi-blue-intense-fg { color: var(--blue); }
.ansi-magenta-fg, .ansi-magenta-intense-fg { color: var(--magenta); }
.ansi-cyan-fg, .ansi-cyan-intense-fg { color: var(--cyan); }
@page { margin: 14mm 12mm; }
@media print {
  :root { color-scheme: light; }
  .skip, .contents, .switch { display: none; }
  body { font-size: 11pt; }
  body > header { padding: 0 0 4mm; border: 0; }
  .columns { max-width: none; }
  main { padding: 0; }
  h1, h2, h3, .jp-OutputArea-child:has(> .jp-RenderedMarkdown) { break-after: avoid; }
  p, li { orphans: 3; widows: 3; }
  .jp-OutputArea-output { overflow: visible; }
  th, td { overflow-wrap: anywhere; }
}
"""

# Marks the section that is being read, and closes the menu of a narrow screen after a choice. The
# contents work without it.
_SCRIPT: Final = """
const box = document.getElementById("show-contents");
if (!box) return;
const links = [...document.querySelectorAll(".contents a")];
for (const link of links) link.addEventListener("click", () => { box.checked = false; });
document.addEventListener("keydown", event => { if (event.key === "Escape") box.checked = false; });
const headings = links.map(link => document.getElementById(decodeURIComponent(link.hash.slice(1))));
const mark = () => {
  const read = headings.filter(one => one.getBoundingClientRect().top < innerHeight / 3).length;
  links.forEach((link, at) => at === read - 1
    ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
};
let due = 0;
addEventListener("scroll", () => {
  cancelAnimationFrame(due);
  due = requestAnimationFrame(mark);
}, {passive: true});
mark();
"""

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
<p class="switch"><input type="checkbox" id="show-code"> <label for="show-code">Show code</label></p>
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
"""The fewest headings that need a table of contents."""

# Scripts are matched, too, because they may contain the text of headings.
_HEADING: Final = re.compile(
    r"<script.*?</script>|<h(?P<level>[1-3])(?P<attributes>[^>]*)>(?P<text>.*?)</h[1-3]>",
    re.DOTALL,
)
_ID: Final = re.compile(r'\bid="([^"]*)"')
_TAG: Final = re.compile(r"<[^>]*>")
# Cells and outputs, where nbconvert lets the Tab key stop although nothing can be done there.
_STOP: Final = re.compile(r'(<div class="jp-[^>]*?) tabindex="0"')


def export_html(notebook_path: Path, html_path: Path, *, title: str) -> None:
    """Write a notebook as an HTML page with text and results; a switch shows the code.

    The page has a table of its headings, from the second level on, which stays in reach.

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
    """Give every heading of a page an id; return the page, and level, id and HTML of each."""
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
