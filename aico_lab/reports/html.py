"""Export an executed notebook as one self-contained HTML file.

By default nbconvert links require.js, MathJax, mermaid and widgets from a CDN. This page contains
none of them, and its content security policy makes the browser block anything that a cell's output
would load. So opening a report causes no network request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config

from aico_lab.home import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

# Vega compiles expressions, which needs unsafe-eval; saving a chart as a picture needs blob.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)

_STYLE: Final = """
body { margin: 0; background: #fff; color: #1f2933;
  font: 16px/1.6 system-ui, "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
main { max-width: 800px; margin: 0 auto; padding: 32px 24px 64px; }
h1, h2, h3 { line-height: 1.25; margin: 1.6em 0 0.5em; }
h1 { font-size: 28px; margin-top: 0; } h2 { font-size: 21px; } h3 { font-size: 17px; }
a { color: #0072b2; } a.anchor-link { display: none; }
img { max-width: 100%; }
code, pre { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
:not(pre) > code { background: #f2f5f8; border-radius: 4px; padding: 1px 4px; }
pre { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.jp-CodeCell { margin: 16px 0; }
.jp-OutputArea-output { overflow-x: auto; }
.jp-OutputArea-output[data-mime-type$="stderr"] { background: #fdf0ed; padding: 12px 16px;
  border-radius: 8px; }
.code { display: none; margin: 12px 0; padding: 12px 16px; border-radius: 8px;
  background: #f7f9fb; border: 1px solid #e4e7eb; }
#show-code:checked ~ main .code, .code.failed { display: block; }
#show-code { position: absolute; top: 14px; right: 92px; }
label[for="show-code"] { position: absolute; top: 10px; right: 16px; font-size: 13px;
  color: #52606d; }
.code .count { float: right; color: #52606d; font-size: 12px; }
table { border-collapse: collapse; font-size: 14px; margin: 12px 0; }
th, td { border-bottom: 1px solid #e4e7eb; padding: 4px 12px; text-align: right; }
.ansi-bold { font-weight: bold; }
.ansi-red-fg, .ansi-red-intense-fg { color: #b42318; }
.ansi-green-fg, .ansi-green-intense-fg { color: #00704f; }
.ansi-yellow-fg, .ansi-yellow-intense-fg { color: #8a5a00; }
.ansi-blue-fg, .ansi-blue-intense-fg { color: #005a8d; }
.ansi-magenta-fg, .ansi-magenta-intense-fg { color: #8f3d74; }
.ansi-cyan-fg, .ansi-cyan-intense-fg { color: #00697a; }
@page { margin: 14mm 12mm; }
@media print {
  #show-code, label[for="show-code"] { display: none; }
  main { max-width: none; padding: 0; }
  h1, h2, h3 { break-after: avoid; }
  .jp-OutputArea-output { overflow: visible; }
  th, td { overflow-wrap: anywhere; }
}
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
<title>{{ resources.metadata.name | escape_html }}</title>
{% for css in resources.inlining.css %}<style>{{ css }}</style>{% endfor %}
<style>"""
    + _STYLE
    + """</style>
</head>
{%- endblock header -%}
{%- block body_header -%}
<body>
<input type="checkbox" id="show-code"><label for="show-code">Show code</label>
<main class="jp-Notebook">
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
</body>
{%- endblock body_footer -%}
{%- block footer -%}
</html>
{%- endblock footer -%}
"""
)


def export_html(notebook_path: Path, html_path: Path, *, title: str) -> None:
    """Write a notebook as an HTML page with text and results; a switch shows the code.

    Args:
        notebook_path: The executed notebook.
        html_path: The page's path; an existing page is replaced atomically.
        title: The page's title.
    """
    notebook = nbformat.read(notebook_path, as_version=4)  # type: ignore[no-untyped-call]
    notebook.metadata.pop("widgets", None)  # need a kernel, and a script from the network
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        config=Config({"CSSHTMLHeaderPreprocessor": {"style": "default"}}),
        raw_template=_TEMPLATE,
        exclude_output_prompt=True,
        require_js_url="",
        mathjax_url="",
        mermaid_js_url="",
        mermaid_layout_elk_js_url="",
    )
    page, _resources = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    write_atomically(html_path, page.encode())
