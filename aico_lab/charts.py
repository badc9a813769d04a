"""Draw Altair charts in JupyterLab and in exported HTML without network access.

JupyterLab ships an older Vega-Lite than Altair writes, and Altair's own renderers load Vega-Lite
from a CDN. Here a notebook contains the JavaScript once, as the output of `enable()`, and each
chart is a picture that a script replaces by the interactive chart. Where scripts do not run (in an
untrusted notebook or a mail program), the picture stays.

Altair takes a second to import, so it is imported only when something is drawn.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import altair as alt

NAME: Final = "aico_lab"

# Okabe and Ito's palette, which people with the usual colour vision deficiencies can distinguish.
BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
GREEN: Final = "#009E73"
GREY: Final = "#9AA5B1"

_INK: Final = "#1F2933"
_MUTED: Final = "#52606D"
_FONT: Final = "system-ui, Helvetica Neue, Arial, Liberation Sans, sans-serif"
_PICTURE_SCALE: Final = 2  # sharp on high-density screens and on paper

# The drawing script, bundled with Vega. A chart's own script may run before or after it (cells are
# run, moved and re-run in any order), so charts wait in a list until the drawer replaces the list.
# The action "Open in the Vega editor" is disabled, since it would send the data to a web site.
_DRAWER: Final = """
const draw = async (host) => {
  const picture = host.querySelector("img");
  const view = document.createElement("div");
  view.style.color = "initial";
  host.append(view);
  try {
    const spec = JSON.parse(host.querySelector('script[type="application/json"]').textContent);
    const actions = {export: true, source: false, compiled: false, editor: false};
    await vegaEmbed(view, spec, {mode: "vega-lite", renderer: "svg", actions});
    picture.remove();
  } catch (error) {
    view.remove();
    console.error(error);
  }
};
const waiting = window.aicoLabCharts || [];
if (Array.isArray(waiting)) {
  window.aicoLabCharts = {push: draw};
  waiting.forEach(draw);
}
"""

# Charts that are wider than their container or higher than a printed page are scaled down.
_STYLE: Final = """
.aico-lab-chart .vega-embed { display: block; max-width: 100%; box-sizing: border-box; }
.aico-lab-chart svg.marks { max-width: 100%; height: auto; }
@media print {
  .aico-lab-chart { break-inside: avoid; }
  .aico-lab-chart .vega-embed { padding-right: 0 !important; }
  .aico-lab-chart .vega-embed details { display: none; }
  .aico-lab-chart svg.marks, .aico-lab-chart > img { max-height: 24cm; object-fit: contain; }
}
"""

_QUEUE: Final = (
    "(window.aicoLabCharts = window.aicoLabCharts || []).push(document.currentScript.parentElement)"
)


@dataclass(frozen=True)
class Html:
    """A fragment of HTML that notebooks display."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


def enable() -> None:
    """Make all charts of this notebook draw offline.

    Call it once, in the first code cell: each call adds a copy of the JavaScript (0.9 MB) to the
    output of its cell.
    """
    import altair as alt
    import vl_convert
    from IPython.core.getipython import get_ipython

    alt.theme.register(NAME, enable=True)(_theme)
    alt.renderers.register(NAME, _render)
    alt.renderers.enable(NAME)
    if (shell := get_ipython()) is not None:  # a plain script has no outputs
        vega_lite = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
        bundle = vl_convert.javascript_bundle(_DRAWER, vl_version=vega_lite)
        # In a function, since names can be declared only once and the cell may be run again.
        script = f"<script>(() => {{\n{bundle}\n}})()</script>"
        shell.display_pub.publish(
            {"text/html": f"<style>{_STYLE}</style>{script}", "text/plain": "Charts are ready."}
        )


def tiles(figures: Mapping[str, object]) -> Html:
    """Return headline figures side by side, as HTML.

    Args:
        figures: The value of each label; None is shown as a dash.
    """
    cells = "".join(
        '<div style="padding: 12px 16px; border-radius: 8px;'
        f' background: #F2F5F8; color: {_INK}; border-left: 4px solid {BLUE};">'
        '<div style="font-size: 22px; line-height: 1.25; font-weight: 600; white-space: nowrap;">'
        f"{'–' if value is None else escape(str(value))}</div>"  # noqa: RUF001
        f'<div style="font-size: 13px; color: {_MUTED};">{escape(label)}</div></div>'
        for label, value in figures.items()
    )
    style = (
        "display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px;"
        f" max-width: 760px; font-family: {_FONT};"
    )
    return Html(f'<div class="mathjax_ignore" style="{style}">{cells}</div>')


def _render(spec: dict[str, Any], **_options: Any) -> dict[str, str]:
    """Return the notebook output of a Vega-Lite specification, by MIME type."""
    import vl_convert

    title = _title(spec)
    datasets = spec.get("datasets", {})
    if datasets and not any(datasets.values()):
        sentence = f"“{title}” has nothing to draw: no rows match."
        return {"text/plain": sentence, "text/html": f"<p><em>{escape(sentence)}</em></p>"}
    spec = {"description": title, **spec}  # Vega uses it as the chart's accessible name
    # No base address is allowed: a chart with data on the web is refused, not fetched.
    picture = vl_convert.vegalite_to_png(spec, scale=_PICTURE_SCALE, allowed_base_urls=[])
    width, height = (side // _PICTURE_SCALE for side in struct.unpack(">II", picture[16:24]))
    source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    html = (
        '<div class="aico-lab-chart" style="background: white;">'
        f'<img alt="{escape(spec["description"])}" src="{source}" width="{width}"'
        f' height="{height}" style="max-width: 100%; height: auto;">'
        f'<script type="application/json">{_json_for_html(spec)}</script>'
        f"<script>{_QUEUE}</script></div>"
    )
    return {"text/plain": f"Chart: {title}", "text/html": html}


def _title(spec: Mapping[str, Any]) -> str:
    title = spec.get("title", "Chart")
    text = title.get("text", "Chart") if isinstance(title, dict) else title
    return " ".join(text) if isinstance(text, list) else str(text)


def _json_for_html(value: object) -> str:
    """Return JSON without `<`, so that no text in it can close the script element."""
    return json.dumps(value).replace("<", "\\u003c")


def _theme() -> alt.theme.ThemeConfig:
    return {
        "config": {
            "font": _FONT,
            "background": "white",
            "padding": {"left": 4, "right": 12, "top": 8, "bottom": 8},
            "view": {"continuousWidth": 640, "continuousHeight": 240, "stroke": "transparent"},
            "title": {
                "anchor": "start",
                "color": _INK,
                "fontSize": 16,
                "subtitleColor": _MUTED,
                "subtitleFontSize": 13,
                "subtitlePadding": 4,
                "offset": 12,
            },
            "axis": {
                "labelColor": _MUTED,
                "labelFontSize": 12,
                "titleColor": _INK,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
                "titlePadding": 8,
                "gridColor": "#E4E7EB",
                "domainColor": GREY,
                "tickColor": GREY,
            },
            "axisX": {"grid": False, "labelSeparation": 8},
            "legend": {
                "labelFontSize": 12,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
                "titlePadding": 8,
                "labelLimit": 0,
                "orient": "top",
            },
            "header": {
                "labelFontSize": 13,
                "labelFontWeight": "bold",
                "labelAnchor": "start",
                "labelOrient": "top",
                "titleFontSize": 12,
            },
            "range": {"category": [BLUE, VERMILION, GREEN, "#E69F00", "#CC79A7", "#56B4E9"]},
            "mark": {"tooltip": True},
            "bar": {"color": BLUE},
            "line": {"color": BLUE, "strokeWidth": 2},
            "point": {"color": BLUE, "filled": True, "size": 30},
        },
    }
