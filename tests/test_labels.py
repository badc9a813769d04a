"""Long labels with emoji are cut between visible characters, wherever a label is cut."""

from __future__ import annotations

import altair as alt
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aico_lab.charts import figure
from aico_lab.charts.labels import drawable, shortened

NAMES = (
    "<img src=x onerror=alert(2)> 😀🎉 Party",
    "x" * 24 + "😀" * 14,
    "W" * 12 + " 😀 WWWW",
    "👩‍👩‍👧‍👦" * 12,
    "🇩🇪🇫🇷" * 9,
    "👍🏽" * 15,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channel", ["x", "y", "row", "column", "color"])
def test_a_chart_with_long_names_with_emoji_is_drawn(name, channel):
    rows = pl.DataFrame({"who": [name, "ada"], "n": [1, 2]})
    chart = alt.Chart(rows).mark_point().encode(**{channel: "who:N", "size": "n:Q"})
    assert "<img" in figure(chart).text
    layered = alt.layer(chart) if channel in "xy" else chart
    assert "<img" in figure(layered).text


@given(st.text(st.sampled_from("aW 😀é👍🏽\u200d👩👧🇩🇪"), max_size=60), st.integers(40, 200))
@example("\u200d W🇩", 40)
@settings(max_examples=200)
def test_a_cut_text_is_a_beginning_that_fits(text, room):
    cut = shortened(text, room)
    if cut == text:
        return
    assert cut.endswith("…")
    kept = cut[:-1]
    assert text.startswith(kept)
    rest = text[len(kept) :]
    assert not kept or not rest.startswith(("\u200d", "🏽"))
    assert not kept.endswith("\u200d") or rest.startswith(" ")  # joined to a blank, which is cut
    assert len(shortened(text, room + 20)) >= len(cut)


def test_short_and_plain_labels_stay_as_they_are():
    spec = {"data": {"values": [{"a": "😀"}, {"a": "x" * 80}]}, "encoding": {"y": {"field": "a"}}}
    assert drawable(spec) is spec
