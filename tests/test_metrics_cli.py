"""`aico-lab metrics`, and `lab.metrics` of a synced home."""

from __future__ import annotations

import json
import struct

import pytest

from aico_lab.errors import ConnectionIsClosed
from aico_lab.metrics.engine.catalogue import CATALOGUE
from tests.browser import visit
from tests.messages import add, at, message


@pytest.fixture(scope="module")
def synced(tmp_path_factory, homes):
    """A lab with messages of two days."""
    with homes.open(tmp_path_factory.mktemp("asked") / "home", "none") as lab:
        add(
            lab.primary,
            *(message(number) for number in range(6)),
            message(6, timestamp=at(86_400), user_id="v", conversation_id="d", channel_id="d"),
        )
        lab.sync()
        yield lab


@pytest.fixture
def asked(synced, in_process):
    """The command `metrics show` on these messages."""
    home = ("--home", str(synced.home.path))
    return lambda *arguments: in_process("metrics", "show", *arguments, *home)


def test_the_catalogue_is_listed_with_its_questions(in_process):
    shown = in_process("metrics", "list")
    assert shown.returncode == 0
    for name in CATALOGUE:
        assert f"  {name} " in shown.stdout
        assert CATALOGUE[name].question in shown.stdout
    listed = json.loads(in_process("metrics", "list", "--json").stdout)
    assert {one["name"] for one in listed} == set(CATALOGUE)


def test_a_metric_is_described_with_its_definition_source_and_columns(in_process):
    shown = in_process("metrics", "list", "reply_latency").stdout
    assert "Censoring" in shown
    assert "Hyndman and Fan" in shown
    assert "cutoff_hours=12.0" in shown
    assert "p95" in shown
    (facts,) = json.loads(in_process("metrics", "list", "reply_latency", "--json").stdout)
    assert facts["parameters"][0]["default"] == 12
    assert {"name", "type", "meaning", "unit"} == set(facts["columns"][0])


@pytest.mark.slow
def test_an_answer_is_a_table_or_one_json_value(asked, synced):
    shown = asked("overview")
    assert shown.returncode == 0
    assert "7 messages in 2 conversations" in shown.stdout
    assert shown.stderr == ""
    answer = json.loads(asked("overview", "--json", "--user", "v").stdout)
    assert answer["rows"][0]["n"] == 1
    assert answer["rows"][0]["first_day"] == "2024-03-02"
    assert answer["filters"]["user"] == ["v"]
    assert answer["generation"] == synced.generation
    assert synced.metrics.overview(user="v").pl().to_dicts()[0]["n"] == 1


@pytest.mark.slow
def test_filters_and_parameters_reach_the_metric(asked):
    answer = json.loads(
        asked(
            "reply_latency", "-p", "cutoff_hours=0.5", "--since", "2024-03-01", "--until",
            "2024-03-01T12:00:04", "--timezone", "UTC", "--role", "user", "--min-cell", "2",
            "--json",
        ).stdout
    )  # fmt: skip
    assert answer["parameters"] == {"cutoff_hours": 0.5}
    assert answer["rows"] == []
    assert answer["left_out"] == 1


@pytest.mark.slow
def test_an_answer_is_drawn_into_a_file_that_needs_no_network(asked, tmp_path):
    for suffix in ("png", "svg", "html"):
        file = tmp_path / f"drawn.{suffix}"
        file.write_text("mine")
        assert asked("week_heatmap", "--plot", str(file)).returncode == 2
        assert file.read_text() == "mine"
        shown = asked("week_heatmap", "--plot", str(file), "--force")
        assert shown.returncode == 0
        assert str(file) in shown.stderr
        assert "Drawn" not in shown.stdout
        assert file.stat().st_size > 1_000
    png = (tmp_path / "drawn.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">I", png[16:20])[0] > 1_000  # wide enough to be read
    with visit((tmp_path / "drawn.html").as_uri()) as seen:
        seen.page.locator("svg.marks, canvas").first.wait_for()
    assert seen.requests == []
    assert seen.errors == []


def test_the_suffix_of_a_picture_may_be_in_capitals(asked, tmp_path):
    """As that of any other file."""
    file = tmp_path / "drawn.SVG"
    shown = asked("week_heatmap", "--plot", str(file))
    assert shown.returncode == 0, shown.stderr
    assert "<svg" in file.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nonsense"], "There is no metric 'nonsense'"),
        (["__class__"], "There is no metric '__class__'"),
        (["repair"], "The metric 'repair' was renamed: use 'mood_recovery'"),
        (["turns", "-p", "x=1"], "turns has no parameter 'x'"),
        (["reply_latency", "-p", "sinc=3d"], "'sinc': did you mean since?"),
        (["turns", "-p", "x"], "NAME=VALUE"),
        (["turns", "-p", "since=3d"], "use --since"),
        (["turns", "-p", "min_cell=5"], "use --min-cell"),
        (["turns", "-p", "self=1"], "turns has no parameter 'self'"),
        (["reply_latency", "-p", "cutoff_hours=soon"], "cutoff_hours must be a number"),
        (["turns", "--user", "nobody"], "No message has the user 'nobody'"),
        (["turns", "--channel", "nowhere"], "No message has the channel 'nowhere'"),
        (["turns", "--timezone", "Mars/Olympus"], "There is no time zone 'Mars/Olympus'"),
        (["turns", "--since", "2024-05-02", "--until", "2024-05-01"], "ends before it begins"),
        (["turns", "--since", "soon"], "since='soon' is not a time"),
        (["turns", "--min-people", "9" * 20], "min_people must be a whole number from 1"),
        (["turns", "--min-cell", "9" * 20], "min_cell must be a whole number from 1"),
        (["languages", "-p", f"sample={'9' * 20}"], "sample must be a whole number of at most"),
        (["turns", "--plot", "drawn.gif"], "drawn.gif does not end in"),
        (["turns", "--plot", "/nowhere/drawn.png"], "cannot be written"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(asked, arguments, sentence):
    refused = asked(*arguments)
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "Traceback" not in refused.stderr


def test_before_the_first_sync_it_says_what_to_do(lab, cli):
    refused = cli("metrics", "show", "turns")
    assert refused.returncode == 1
    assert "aico-lab sync" in refused.stderr
    lab.close()
    with pytest.raises(ConnectionIsClosed):
        _ = lab.metrics
