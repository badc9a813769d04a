"""The colours and the Vega-Lite theme of charts.

Charts are drawn in the colours of the light theme. The style sheet replaces these colours in dark
mode, so a chart need not be drawn again when the reader's mode changes or the page is printed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    import altair as alt

# Okabe and Ito's palette, which people with the usual colour vision deficiencies can distinguish.
BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
GREEN: Final = "#009E73"
GREY: Final = "#9AA5B1"
PURPLE: Final = "#CC79A7"

INK: Final = "#1F2933"
MUTED: Final = "#52606D"
PALE: Final = "#CBD2D9"
LINES: Final = "#E4E7EB"
PAPER: Final = "#FFFFFF"
FONT: Final = "system-ui, Helvetica Neue, Arial, Liberation Sans, sans-serif"

WIDTH: Final = 640
"""The width of a plot, in pixels, if no column sets the width: in pictures and saved charts."""

DARK: Final = {
    BLUE: "#4F9DEB",
    VERMILION: "#F28E4B",
    GREEN: "#2FBF97",
    GREY: "#7B8794",
    PURPLE: "#D98CB8",
    INK: "#E4E7EB",
    MUTED: "#A7B3C0",
    PALE: "#52606D",
    LINES: "#323F4B",
    PAPER: "#14191F",
}
"""The colour of dark mode that replaces each colour of the light theme."""

_VARIABLES: Final = {
    "ink": INK,
    "muted": MUTED,
    "pale": PALE,
    "lines": LINES,
    "paper": PAPER,
    "blue": BLUE,
    "vermilion": VERMILION,
    "green": GREEN,
    "grey": GREY,
    "purple": PURPLE,
}
_NAMES: Final = {"white": PAPER, "black": INK, "#fff": PAPER, "#000": INK}
"""Colours that charts may write by other names."""

CONFIG: Final[dict[str, Any]] = {
    "font": FONT,
    "background": "white",
    "lineBreak": "\n",
    "padding": {"left": 4, "right": 8, "top": 4, "bottom": 4},
    "view": {
        "continuousWidth": WIDTH,
        "continuousHeight": 240,
        "discreteHeight": {"step": 28},
        "stroke": "transparent",
    },
    "title": {
        "anchor": "start",
        "color": INK,
        "fontSize": 16,
        "subtitleColor": MUTED,
        "subtitleFontSize": 13,
        "subtitlePadding": 4,
        "offset": 12,
    },
    "axis": {
        "labelColor": MUTED,
        "labelFontSize": 12,
        "titleColor": INK,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "gridColor": LINES,
        "domainColor": GREY,
        "tickColor": GREY,
    },
    "axisX": {"grid": False, "labelSeparation": 8, "labelPadding": 5},
    "axisXDiscrete": {"labelOverlap": True, "labelSeparation": 3},
    "axisYDiscrete": {"labelLimit": 180},
    "legend": {
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelLimit": 0,
        "symbolOpacity": 1,
        "orient": "top",
    },
    "header": {
        "labelColor": INK,
        "labelFontSize": 13,
        "labelFontWeight": "bold",
        "labelAnchor": "start",
        "labelOrient": "top",
        "titleFontSize": 12,
    },
    "range": {
        "category": [BLUE, VERMILION, GREEN, "#E69F00", PURPLE, "#56B4E9"],
        "heatmap": {"scheme": "blues"},
        "ramp": {"scheme": "blues"},
    },
    "mark": {"tooltip": True},
    "text": {"color": INK, "fontSize": 12},
    "bar": {"color": BLUE},
    "line": {"color": BLUE, "strokeWidth": 2},
    "area": {"color": BLUE},
    "rect": {"color": BLUE},
    "rule": {"color": BLUE},
    "point": {"color": BLUE, "filled": True, "size": 30},
}


def theme() -> alt.theme.ThemeConfig:
    """Return the theme, as Altair registers it."""
    return cast("alt.theme.ThemeConfig", {"config": CONFIG})


def variables() -> str:
    """Return the style rules that declare the colours, and replace those of drawn charts.

    JupyterLab tells its theme in an attribute of the body; elsewhere the reader's system decides.
    Paper is always light.
    """
    light = "".join(f"--aico-{name}: {colour};" for name, colour in _VARIABLES.items())
    dark = "".join(f"--aico-{name}: {DARK[colour]};" for name, colour in _VARIABLES.items())
    called = {colour: f"--aico-{name}" for name, colour in _VARIABLES.items()}
    replaced = {colour: called[colour] for colour in _VARIABLES.values()}
    replaced |= {name: called[colour] for name, colour in _NAMES.items()}
    rules = "".join(
        f'.aico-lab-plot svg [{what}="{colour}" i] {{ {what}: var({name}); }}\n'
        for colour, name in replaced.items()
        for what in ("fill", "stroke")
    )
    return (
        f":root {{ {light} --aico-scheme: light; }}\n"
        "@media screen and (prefers-color-scheme: dark) {\n"
        f":root:not(:has(body[data-jp-theme-light])) {{ {dark} --aico-scheme: dark; }} }}\n"
        "@media screen {\n"
        f':root:has(body[data-jp-theme-light="false"]) {{ {dark} --aico-scheme: dark; }} }}\n'
        f"{rules}"
    )


def style_of_picture(svg: str) -> str:
    """Return the style rules of dark mode for the colours of a picture.

    A picture knows only the mode of the reader's system.
    """
    colours = DARK | {name: DARK[colour] for name, colour in _NAMES.items()}
    by_colour = "".join(
        f"[{what}='{colour}' i]{{{what}:{dark}}}"
        for colour, dark in colours.items()
        for what in ("fill", "stroke")
        if f'{what}="{colour}"'.lower() in svg.lower()
    )
    return f"@media screen and (prefers-color-scheme:dark){{{by_colour}}}"
