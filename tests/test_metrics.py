"""What holds for every metric of the catalogue, whatever it measures."""

from __future__ import annotations

import inspect
import pydoc
import re
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest
import vl_convert
from hypothesis import given, settings

from aico_lab.errors import InvalidValue, NeverSynced, UnknownName
from aico_lab.metrics.engine.answer import SHOWN, TYPES
from aico_lab.metrics.engine.asking import compile_query
from aico_lab.metrics.engine.catalogue import CATALOGUE, FORMER_NAMES, MODULES
from aico_lab.metrics.engine.filters import Filters
from aico_lab.metrics.engine.metric import PEOPLE, Column, Parameter, RoleFilter, metric
from aico_lab.metrics.engine.talk import Talk
from aico_lab.metrics.lab_metrics import FILTERS, Metrics
from tests.effort import examples
from tests.talks import said, shuffled, talk, talks, world

EVERY = list(CATALOGUE)

A_DAY = talk(
    said(0, content="Are you there?"),
    said(4, "assistant", "I am here, as always.", user=None, sentiment=0.6),
    said(60, content="that is sad", sentiment=-0.5),
    said(75, "assistant", "why?", user=None, sentiment=None),
    said(90, content="I do not know", sentiment=0.2),
    said(90_000, conversation="d", user="w", content="good morning"),
)


@pytest.fixture(scope="module")
def nobody():
    with world(talk()) as made:
        yield made


@pytest.fixture(scope="module")
def a_day():
    with world(A_DAY) as made:
        yield made


def has_declared_types(answer):
    assert answer.pl().schema == {c.name: TYPES[c.type] for c in answer.metric.columns}
    assert answer.arrow().schema.names == answer.pl().columns
    return True


def drawing(answer):
    """The chart, as a reader would see it: that a specification can be made does not say it can."""
    specification = answer.plot().to_dict()
    return vl_convert.vegalite_to_png(specification, allowed_base_urls=[])


def assert_equal(one, other, what=""):
    left, right = one.pl(), other.pl()
    assert left.height == right.height, what
    for column in left.columns:
        if left[column].dtype == pl.Float64:
            a, b = (f[column].fill_null(float("nan")).to_list() for f in (left, right))
            assert a == pytest.approx(b, rel=1e-9, abs=1e-12, nan_ok=True), (what, column)
        else:
            assert left[column].to_list() == right[column].to_list(), (what, column)


def test_every_domain_of_the_source_document_has_metrics():
    assert {CATALOGUE[name].domain for name in EVERY} == {
        "conversation", "interaction", "time", "personality", "usage"
    }  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_the_meaning_of_a_column_is_understood_without_its_neighbours(name):
    """Listings and reports show it alone, so a pronoun would have no noun."""
    pronoun = re.compile(r"\b(it|its|they|them|their|these|those|what)\b")
    for column in CATALOGUE[name].columns:
        assert not pronoun.search(column.meaning), (column.name, column.meaning)


@pytest.mark.parametrize("name", EVERY)
def test_it_says_what_it_answers_how_and_from_where(name):
    metric = CATALOGUE[name]
    assert name not in FORMER_NAMES
    assert metric.question.endswith("?")
    assert len(metric.definition.split()) >= 8
    assert metric.source
    assert all(column.meaning for column in metric.columns)
    numbers = [c for c in metric.columns if c.type == "number"]
    ends = {c.name for c in numbers if c.name.endswith(("_low", "_high"))}
    assert {end.rpartition("_")[0] for end in ends} <= {c.name for c in numbers}


@pytest.mark.parametrize("name", EVERY)
def test_without_messages_the_answer_is_typed_and_tells_nothing(nobody, name):
    answer = nobody.ask(name)
    assert has_declared_types(answer)
    measured = [c.name for c in answer.metric.columns if c.type == "number"]
    assert all(answer.pl()[column].drop_nulls().is_empty() for column in measured)
    assert answer.pl()["n"].sum() == 0
    assert "table" in answer._repr_html_()
    answer.plot().to_dict()


@pytest.fixture(scope="module", params=["user", "assistant", "system"])
def one(request):
    with world(talk(said(0, request.param))) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_single_message_is_enough(one, name):
    answer = one.ask(name)
    assert has_declared_types(answer)
    assert answer.finding
    assert drawing(answer).startswith(b"\x89PNG")
    ends = [c.name for c in answer.metric.columns if c.name.endswith(("_low", "_high"))]
    assert all(answer.pl()[end].drop_nulls().is_empty() for end in ends)


@pytest.fixture(scope="module")
def mute():
    with world(A_DAY.with_columns(sentiment_score=pl.lit(None, pl.Float64))) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_without_any_sentiment_nothing_is_made_up(mute, name):
    answer = mute.ask(name)
    assert has_declared_types(answer)
    assert answer.finding
    assert drawing(answer).startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_it_shows_and_draws_itself(a_day, name):
    answer = a_day.ask(name)
    html = answer._repr_html_()
    assert answer.metric.question.replace("'", "&#x27;") in html
    assert "snapshot 7" in html
    assert answer.finding in str(answer)
    drawn = answer.plot().to_dict()
    titles = drawn["title"]["text"]  # one line, or several
    shown = (titles if isinstance(titles, str) else " ".join(titles)).replace("\u00a0", " ")
    assert shown in (answer.finding, answer.metric.question)
    assert answer.df().shape == answer.pl().shape
    assert str(a_day.messages["content"][2]) not in html  # an answer quotes nobody


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_it_is_compiled_once_for_all_data(name):
    """A question that is asked again after a sync is not compiled again: it may not need to be."""
    parameters = tuple(sorted(CATALOGUE[name].check({}).items()))
    filters = Filters(since="2024-03-01", timezone="Europe/Berlin")
    day = 86_400_000
    queries = {
        compile_query.__wrapped__(name, Talk(filters, day, last * day), parameters)
        for last in (10, 11, 12)
    }
    assert len(queries) == 1
    assert Talk(filters, 0, day) == Talk(filters, day, 3 * day)


@pytest.mark.slow
@settings(max_examples=examples(7))
@given(talks())
def test_the_order_in_which_rows_are_stored_does_not_matter(messages):
    with world(messages) as stored, world(shuffled(messages)) as mixed:
        for name in EVERY:
            assert_equal(stored.ask(name), mixed.ask(name), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_filters_restrict_every_metric(a_day, name):
    nothing = a_day.ask(name, filters={"since": "2030-01-01"})
    assert has_declared_types(nothing)
    assert nothing.pl()["n"].sum() == 0
    for filters in (
        {"since": "2024-03-31", "until": "2024-03-31"},
        {"user": "u"},
        {"user": ("u", "w"), "channel": "d"},
        {"timezone": "Asia/Kathmandu"},
    ):
        assert has_declared_types(a_day.ask(name, filters=filters))
    if CATALOGUE[name].role is RoleFilter.REFUSED:
        with pytest.raises(InvalidValue, match="leave out the role"):
            a_day.ask(name, filters={"role": "user"})
    else:
        answer = a_day.ask(name, filters={"role": "user"})
        if "role" in answer.pl().columns:
            assert set(answer.pl()["role"]) <= {"user"}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_rows_that_rest_on_little_are_left_out_and_counted(a_day, name):
    everything = a_day.ask(name)
    small = everything.pl().filter(pl.col("n").is_between(1, 2)).height
    answer = a_day.ask(name, filters={"min_cell": 3})
    assert answer.left_out == small
    assert answer.pl().height == everything.pl().height - small
    assert answer.pl().filter(pl.col("n").is_between(1, 2)).is_empty()
    assert ("left out" in answer.caption) == (small > 0)


@pytest.mark.parametrize("name", EVERY)
def test_parameters_of_the_wrong_type_are_refused_in_a_sentence(a_day, name):
    with pytest.raises(UnknownName, match=f"{name} has no parameter 'nonsense'"):
        a_day.ask(name, nonsense=1)
    for parameter in CATALOGUE[name].parameters:
        bad = "nonsense" if parameter.type is not str or parameter.choices else None
        for value in (bad, "\udcff"):  # a byte of the command line
            with pytest.raises(InvalidValue, match=parameter.name):
                a_day.ask(name, **{parameter.name: value})
        if parameter.type is not str:
            with pytest.raises(InvalidValue, match=r"\w"):
                a_day.ask(name, **{parameter.name: -1})


@pytest.mark.slow
def test_text_of_the_command_line_is_read_as_the_type(a_day):
    one = a_day.ask("reply_latency", cutoff_hours="0.5")
    assert one.parameters == {"cutoff_hours": 0.5}
    assert_equal(one, a_day.ask("reply_latency", cutoff_hours=0.5))


def test_a_metric_stands_in_the_folder_of_its_domain():
    for domain, modules in MODULES.items():
        for name, module in modules.items():
            metric = CATALOGUE[name]
            assert metric.domain == domain
            assert metric.expression.__module__ == f"aico_lab.metrics.{domain}.{module}"
    assert [metric.name for metric in CATALOGUE.by_domain()[0]] == EVERY


@pytest.mark.parametrize("domain", MODULES)
def test_the_folder_of_a_domain_reads_like_the_catalogue(domain):
    """What is not a metric is in `engine`, or a part that is named after its metric."""
    metrics = set(MODULES[domain].values())
    folder = Path(import_module(f"aico_lab.metrics.{domain}").__file__).parent
    there = {path.stem for path in folder.glob("[!_]*.py")}
    parts = there - metrics
    assert metrics <= there
    assert all(part.startswith(tuple(f"{metric}_" for metric in metrics)) for part in parts), parts


def test_filters_are_the_same_everywhere():
    general = inspect.signature(Filters).parameters
    assert list(FILTERS) == list(general)


@pytest.mark.parametrize("name", EVERY)
def test_help_names_parameters_filters_and_columns(a_day, name):
    """In `help()`, and in the signature that notebooks show."""
    asked = getattr(Metrics(a_day, timezone="UTC"), name)
    metric = CATALOGUE[name]
    takes = list(inspect.signature(asked).parameters)
    filters = [one for one in FILTERS if one != "role" or metric.role is not RoleFilter.REFUSED]
    assert takes == [*(parameter.name for parameter in metric.parameters), *filters]
    shown = pydoc.render_doc(asked, renderer=pydoc.plaintext)
    for word in (*takes, *(column.name for column in metric.columns), metric.question):
        assert word in shown
    assert f"{name}(*, " in shown
    assert repr(asked) == f"{name}(): {metric.question}"
    assert repr(asked) in shown  # whole


def test_an_answer_and_the_catalogue_show_themselves_at_a_prompt(a_day):
    metrics = Metrics(a_day, timezone="UTC")
    answer = metrics.turns()
    assert repr(answer) == str(answer)
    assert " role " in repr(answer)
    assert "DataFrame" not in repr(answer)
    assert repr(metrics).count("\n  ") == len(EVERY)


def test_metrics_that_do_not_exist_are_missing_as_in_any_mapping(a_day):
    """`get`, `hasattr` and `getattr` with a default work; the message is not quoted."""
    metrics = Metrics(a_day, timezone="UTC")
    assert metrics.get("x") is None
    assert metrics.get("turns").metric is CATALOGUE["turns"]
    assert not hasattr(metrics, "x")
    assert hasattr(metrics, "turns")
    for error, use in ((KeyError, metrics.__getitem__), (AttributeError, metrics.__getattr__)):
        with pytest.raises(error) as refused:
            use("turnz")
        assert isinstance(refused.value, UnknownName)
        assert str(refused.value) == "There is no metric 'turnz': did you mean turns?"


def test_a_lab_names_its_metrics(a_day):
    metrics = Metrics(a_day, timezone="Europe/Berlin")
    assert set(EVERY) <= set(dir(metrics))
    assert metrics.turns().filters.timezone == "Europe/Berlin"
    assert metrics.turns(timezone="UTC").filters.timezone == "UTC"
    assert metrics.turns(user=["u"]).filters.users == ("u",)
    assert "reply_latency" in metrics._repr_html_()
    assert metrics.turns.__doc__.startswith(CATALOGUE["turns"].question)
    with pytest.raises(UnknownName, match="There is no metric 'turnz': did you mean turns"):
        metrics.turnz()
    with pytest.raises(UnknownName, match="'repair' was renamed: use 'mood_recovery'"):
        metrics.repair  # noqa: B018
    with pytest.raises(UnknownName, match="No message has the user 'x'"):
        metrics.turns(user="x")
    with pytest.raises(UnknownName, match="No message has the channel 'x'"):
        metrics.turns(channel=["d", "x"])
    with pytest.raises(InvalidValue, match="one id or a list"):
        metrics.turns(user=[])


def test_long_answers_show_their_beginning(a_day):
    answer = a_day.ask("week_heatmap")
    assert len(answer) == 168
    assert f"and {168 - SHOWN} more rows" in str(answer)
    assert answer._repr_html_().count("<tr>") == SHOWN + 1


def test_a_declaration_that_is_not_complete_is_an_error_of_the_program():
    def declare(columns, parameters=()):
        return metric(
            domain="usage", question="?", source="none", columns=columns, parameters=parameters,
            finding=lambda _rows: "", chart=lambda _answer: None,
        )  # fmt: skip

    def one(_talk, *, top):
        """What it is."""

    things = [Column("n", "integer", "things"), PEOPLE]
    top = Parameter("top", int, 3, "How many are shown.")
    assert declare(things, [top])(one).definition == "What it is."
    for missing, kept in (("n", things[1:]), ("people", things[:1])):
        with pytest.raises(ValueError, match=f"no column {missing},"):
            declare(kept, [top])(one)
    with pytest.raises(ValueError, match=r"\['top'\], but declares other parameters"):
        declare(things)(one)


def test_a_snapshot_of_another_version_is_not_asked():
    """A word, or a turn, may have been something else in it."""
    with world(talk(said(0))) as old:
        old.connection().execute("COMMENT ON VIEW conversations IS 'another'")
        with pytest.raises(NeverSynced, match=r"another version.*run `aico-lab sync`"):
            old.ask("turns")
