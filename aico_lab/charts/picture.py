"""Draw a chart as a small SVG picture, which is shown where scripts do not run."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from aico_lab.charts import theme
from aico_lab.charts.labels import PARTS, drawable, in_lines, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST: Final = 500
"""The most marks of one kind in a picture; of more, some are left out at equal distances."""

_FONT: Final = theme.FONT.removeprefix("system-ui, ")
"""The fonts of a picture, which are about as wide as the fonts with which texts are measured."""

_ROOM: Final = {"left": 32, "right": 14, "top": 4, "bottom": 4}
"""Pixels around a picture, for fonts wider than those with which texts are measured."""

_NARROWEST: Final = 60
"""The least pixels of a line of a title."""

_WIDER: Final = 1.17
"""How much wider a reader's font may be: DejaVu Sans, compared with Liberation Sans. Labels and
titles have the room of letters that are larger by this factor."""

_SIZED: Final = {"axis": ("label", "title"), "legend": ("label", "title"), "header": ("label",)}
"""The texts that have this room, by their part of the theme."""

_LARGER: Final = re.compile(r'(font-size=")([\d.]+)(px")')

_LABEL: Final = 150
"""The most pixels of a label, with the letters that are larger."""

_AXES: Final = {
    "axis": {"maxExtent": 400},
    "axisY": {"titlePadding": 18},
    "axisXDiscrete": {"labelLimit": _LABEL, "titlePadding": 32},
    "axisYDiscrete": {"labelLimit": _LABEL, "titlePadding": 32},
}
"""The room for labels, also of wider fonts. Beyond `maxExtent`, 200 by default, Vega puts the title
of an axis over its labels."""

_PLACES: Final = re.compile(r'( (?:d|transform|x|y|[xy][12]|width|height|points)=")([^"]*)"')
_LONG: Final = re.compile(r"(-?\d*\.\d)\d+(?!\d*[eE])")
_FAINT: Final = re.compile(r'(opacity="\d*\.\d\d)\d+"')
_NEEDLESS: Final = re.compile(
    r' (?:aria-\w+|role|class|pointer-events|xmlns:xlink|version|clip-path)="[^"]*"'
    r'| (?:opacity|fill-opacity|stroke-opacity)="1"| stroke-miterlimit="10"| font-style="normal"'
    r'| font-weight="normal"| stroke="transparent"| stroke-width="0"| text-anchor="start"'
)
_INVISIBLE: Final = re.compile(
    r'<path[^>]* d="M0,0h0v0h0Z"[^>]*/>|<(line|text)[^>]* opacity="0"[^>]*(?:/>|>.*?</\1>)'
    r'|<defs>.*?</defs>|<path d=""[^>]*/>'
)
_MARKS: Final = re.compile(
    r'(<g class="mark-(?:symbol|rect|rule|text|arc|shape|image) role-mark[^>]*>)(.*?)(</g>)',
    re.DOTALL,
)
_MARK: Final = re.compile(r"<(?:text.*?</text>|[^>]*/>)", re.DOTALL)
_EMPTY: Final = re.compile(r"<g[^>]*></g>|<g[^>]*/>")
_PLAIN: Final = re.compile(r"<g>((?:<(?!g|/g)[^>]*>|[^<])*)</g>")


def picture(specification: dict[str, Any]) -> tuple[str, int, int, bool]:
    """Return a chart as an SVG, its width and height in pixels, and whether it has all marks.

    Args:
        specification: A Vega-Lite specification with its theme, and without a title.

    Raises:
        ValueError: The chart cannot be drawn, for example because its data are on the web.
    """
    import vl_convert

    # No base address is allowed: a chart with data on the web is refused, not fetched.
    config = dict(specification.get("config", {}))
    sizes = {}
    for part, texts in _SIZED.items():
        config[part] = dict(config.get(part, {}))
        for text in texts:
            size = config[part].get(f"{text}FontSize", 12)
            config[part][f"{text}FontSize"] = larger = round(size * _WIDER, 2)
            sizes[str(larger)] = str(size)
    for axis, own in _AXES.items():
        config[axis] = {**config.get(axis, {}), **own}
    fitting = in_lines(drawable(specification), _LABEL / _WIDER)
    roomy = {"padding": _ROOM, **fitting, "config": config}
    compiled = vl_convert.vegalite_to_vega(roomy)
    _wrap_titles(compiled, _smallest(specification, "width"), _smallest(specification, "height"))
    drawn = vl_convert.vega_to_svg(compiled, allowed_base_urls=[])
    return _slim(_LARGER.sub(lambda at: f"{at[1]}{sizes.get(at[2], at[2])}{at[3]}", drawn))


def _smallest(view: dict[str, Any], side: str) -> float:
    """Return the smallest width or height of the plots of a specification, in pixels."""
    own = view.get(side)
    children = [child for part in PARTS for child in view.get(part, ())]
    children += [view["spec"]] if "spec" in view else []
    sizes = [float(own)] if isinstance(own, int | float) else []
    return min([*sizes, *(_smallest(child, side) for child in children)], default=math.inf)


def _wrap_titles(compiled: dict[str, Any], width: float, height: float) -> None:
    """Break titles of axes that are longer than their plot is wide or high, as `draw.js` does."""
    for axis in compiled.get("axes", ()):
        room = height if axis.get("orient") in ("left", "right") else width
        if isinstance(title := axis.get("title"), str):
            lines = wrapped(title, max(room, _NARROWEST))
            axis["title"] = lines if len(lines) > 1 else title
    for mark in compiled.get("marks", ()):
        _wrap_titles(mark, width, height)


def data_uri(svg: str) -> str:
    """Return an SVG as the address of an image, for an attribute in double quotes."""
    return f"data:image/svg+xml,{quoted(svg)}"


def quoted(text: str) -> str:
    """Return a text percent-encoded for an address, but with most characters unchanged."""
    return quote(text, safe=" !$&'()*+,-./:;=?@[]_~|").replace("&", "%26")


def _slim(svg: str) -> tuple[str, int, int, bool]:
    """Return an SVG without invisible parts, its width and height, and whether it has all marks."""
    head = re.match(r'<svg[^>]* width="([\d.]+)" height="([\d.]+)"', svg)
    width, height = (round(float(side)) for side in head.groups()) if head else (0, 0)
    drawn, svg = svg, _MARKS.sub(_thinned, svg)
    is_whole = svg == drawn
    svg = _INVISIBLE.sub("", svg)
    svg = _NEEDLESS.sub("", svg)
    svg = svg.replace(f' font-family="{theme.FONT}"', "")
    svg = _FAINT.sub(r'\1"', _PLACES.sub(_rounded, svg))
    svg = _until_same(svg, lambda text: _PLAIN.sub(r"\1", _EMPTY.sub("", text)))
    opening = re.match(r"<svg[^>]*>", svg)
    at = opening.end() if opening else 0
    style = f"<style>{theme.style_of_picture(svg)}</style>"
    return f'{svg[: at - 1]} font-family="{_FONT}">{style}{svg[at:]}', width, height, is_whole


def _thinned(group: re.Match[str]) -> str:
    marks = _MARK.findall(group[2])
    if len(marks) <= _MOST:
        return group[0]
    return group[1] + "".join(marks[:: -(-len(marks) // _MOST)]) + group[3]


def _rounded(attribute: re.Match[str]) -> str:
    return f'{attribute[1]}{_LONG.sub(_short, attribute[2])}"'


def _short(number: re.Match[str]) -> str:
    return number[1].removesuffix(".0")


def _until_same(text: str, change: Callable[[str], str]) -> str:
    while (changed := change(text)) != text:
        text = changed
    return text
