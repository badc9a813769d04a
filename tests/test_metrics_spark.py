"""Every metric's expression gives the same rows on Spark as on DuckDB.

`AICO_LAB_TEST_SPARK=spark://host:port` asks a running cluster, which must see this machine's files;
without it Spark runs in this process.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import ibis
import polars as pl
import polars.selectors as cs
import pytest

from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.metrics.engine.filters import Filters
from aico_lab.metrics.engine.metric import RoleFilter
from aico_lab.metrics.engine.talk import VIEWS, Talk
from aico_lab.sources import chitchat
from tests.talks import OTHERS, World, talk
from tests.talks_by_hand import real_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    Ask = Callable[[str], pl.DataFrame]

pytestmark = [
    pytest.mark.slow,
    # PySpark leaves the sockets on which it hears of results to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
pytest.importorskip("pyspark")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java", allow_module_level=True)

EVERY = list(CATALOGUE)
TABLES = ("messages", "turns", "sessions", "daily", *VIEWS)
MESSAGES = 8_000
MASTER = os.environ.get("AICO_LAB_TEST_SPARK", "local[2]")


def at(moment: datetime, number: int) -> dict[str, Any]:
    """A message of a person who is up all night."""
    return {
        "channel_id": "night",
        "conversation_id": "night",
        "user_id": "owl",
        "role": "assistant" if number % 3 else "user",
        "content": "Is anybody else awake? I am not sure.",
        "timestamp": moment,
        "sentiment_score": 0.1,
        "response_time": None,
    }


def messages() -> pl.DataFrame:
    """Real ones, some around changes of clocks, and one at each end of the calendar."""
    begins = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    # Lord Howe's clocks leapt on the 6th of October 2018 (UTC), Berlin's fell back on the 28th.
    nights = [datetime(2018, 10, day, tzinfo=UTC) + timedelta(minutes=29 * n)
              for day in (6, 27) for n in range(80)]  # fmt: skip
    real = real_messages(MESSAGES)
    night = talk(*(at(moment, number) for number, moment in enumerate([*begins, *nights])))
    return pl.concat([real, night.with_columns(pl.col("id") + MESSAGES)])


def feedback() -> pl.DataFrame:
    ratings = [record for batch in chitchat.read(limit=MESSAGES) for record in batch.feedback]
    rows = [
        (r.event_id, r.user_id, r.conversation_id, r.message_id, r.kind, r.name, r.value,
         datetime.fromisoformat(r.timestamp), None)
        for r in ratings
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=OTHERS["feedback_events"], orient="row")


def profiles(people: list[str]) -> pl.DataFrame:
    """A version for everybody, the next one, and some people's own."""
    first, second = datetime(2018, 1, 1, tzinfo=UTC), datetime(2018, 5, 10, tzinfo=UTC)
    common = {"warmth": 0.2, "wit": 1}, {"warmth": 0.9, "wit": 2.5}
    rows: list[tuple[Any, ...]] = [
        ("v1", None, 1, json.dumps(common[0]), first, second, None),
        ("v2", None, 2, json.dumps(common[1]), second, None, None),
    ]
    rows += [
        (f"own {who}", who, 1, json.dumps({"warmth": number % 10 / 10}), first, None, None)
        for number, who in enumerate(people[::5])
    ]
    return pl.DataFrame(rows, schema=OTHERS["personality_profiles"], orient="row")


def preferences(people: list[str]) -> pl.DataFrame:
    begins = datetime(2018, 4, 20, tzinfo=UTC)
    rows = [
        (step * len(people) + number, who, key, None, json.dumps((number * step) % 3), moment)
        for step in range(4)
        for number, who in enumerate(people)
        for key in ("tone",)
        for moment in (begins + timedelta(days=step * (number % 5 + 1)),)
    ]
    return pl.DataFrame(rows, schema=OTHERS["preference_changes"], orient="row")


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    spoken = messages()
    people = spoken["user_id"].drop_nulls().unique().sort().to_list()
    stored = World(
        spoken,
        feedback_events=feedback(),
        personality_profiles=profiles(people),
        preference_changes=preferences(people),
    )
    yield stored
    stored.close()


@pytest.fixture(scope="module")
def spark(made: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The same tables in Spark, whose driver no other machine can reach."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    folder = tmp_path_factory.mktemp("spark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        settings = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.memory": "1g",
            "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={folder} -XX:TieredStopAtLevel=1",
            "spark.local.dir": str(folder / "local"),
            "spark.log.level": "OFF",
            "spark.sql.catalogImplementation": "in-memory",
            "spark.sql.shuffle.partitions": "2",
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        }
        builder = SparkSession.builder.master(MASTER)
        for name, value in settings.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
    session.sql("CREATE DATABASE mart")
    for table in TABLES:
        file = folder / f"{table}.parquet"
        made.connection().execute(f"COPY (SELECT * FROM mart.{table}) TO '{file}'")
        session.sql(f"CREATE TABLE mart.{table} USING parquet LOCATION '{file}'")
    ibis.pyspark.connect(session)  # which makes its settings, such as the time zone
    yield session
    gateway = session.sparkContext._gateway
    session.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()  # for which Java waits
    gateway.proc.wait(60)
    SparkContext._gateway = SparkContext._jvm = None
    gc.collect()  # their sockets, before the next module's warnings are errors


def question(made: World, name: str, filters: Filters, **parameters: Any) -> Any:
    """Give a metric's expression, as it is asked of these messages."""
    first_ms, last_ms, years = (
        made.connection()
        .execute(
            "SELECT min(ts_ms), max(ts_ms), "
            "list_sort(list(DISTINCT year(make_timestamp(ts_ms * 1000)))) FROM mart.messages"
        )
        .fetchall()[0]
    )
    metric = CATALOGUE[name]
    asked = Talk(filters, first_ms, last_ms, by_side=metric.role == "input", years=tuple(years))
    return metric.expression(asked, **metric.check(parameters))


def comparable(table: pa.Table, hashed: str | None) -> pl.DataFrame:
    """Give rows in an order of their own; a sum of integers is a decimal for DuckDB."""
    rows = pl.DataFrame(table).with_columns((cs.decimal() | cs.integer()).cast(pl.Int64))
    inexact = [name for name in rows.columns if rows[name].dtype == pl.Float64]
    exact = [name for name in rows.columns if name not in {*inexact, hashed}]
    rows = rows.sort(*exact, *(pl.col(name).round(6) for name in inexact), nulls_last=True)
    # Engines have hashes of their own: what is compared is which are the same.
    if hashed:
        rows = rows.with_columns(pl.int_range(pl.len()).first().over(hashed).alias(hashed))
    return rows


HASHED = {"lexical_diversity": "word"}


def assert_equal_on_both(made: World, spark: Any, name: str, filters: Filters, **more: Any) -> int:
    """Compare the rows, and give how many there are."""
    expression = question(made, name, filters, **more)
    on_duckdb, on_spark = (
        str(ibis.to_sql(expression, dialect=dialect)) for dialect in ("duckdb", "pyspark")
    )
    hashed = HASHED.get(name)
    expected = comparable(made.connection().execute(on_duckdb).to_arrow_table(), hashed)
    found = comparable(spark.sql(on_spark).toArrow(), hashed)
    assert found.schema == expected.schema
    assert found.height == expected.height
    for column in expected.columns:
        one, other = found[column].to_list(), expected[column].to_list()
        if expected[column].dtype == pl.Float64:
            assert [x is None for x in one] == [x is None for x in other], column
            one, other = ([0.0 if x is None else x for x in side] for side in (one, other))
            assert one == pytest.approx(other, rel=1e-9, abs=1e-12, nan_ok=True), column
        else:
            assert one == other, column
    return expected.height


@pytest.mark.parametrize("name", EVERY)
def test_a_metric_is_the_same_on_spark(made, spark, name):
    assert assert_equal_on_both(made, spark, name, Filters(timezone="Europe/Berlin")) > 0


FILTERS = {
    "days": Filters(since="2018-04-20", until="2018-05-10"),
    "moments": Filters(
        since="2018-04-20T12:30", until="2018-11-01T00:00", timezone="Europe/Berlin"
    ),
    "zone": Filters(since="2018-10-01", timezone="Australia/Lord_Howe"),
    "people": Filters(user=("owl",), timezone="America/St_Johns"),
    "channel": Filters(channel="night", since="520w"),
    "side": Filters(role="assistant", timezone="Asia/Kathmandu"),
}


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize(
    "name", ["daily_activity", "week_heatmap", "sessions", "preference_changes"]
)
def test_filters_are_the_same_on_spark(made, spark, name, filters):
    if filters.role and CATALOGUE[name].role is RoleFilter.REFUSED:
        filters = Filters(timezone=filters.timezone)
    assert_equal_on_both(made, spark, name, filters)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("seasonality", {"cycle": "day"}),
        ("retention", {"period": "month"}),
        ("trend", {"measure": "users", "period": "day"}),
        ("change_points", {"measure": "sentiment"}),
        ("sessions", {"gap_minutes": 7.5}),
    ],
)
def test_parameters_are_the_same_on_spark(made, spark, name, parameters):
    zone = Filters(timezone="Australia/Lord_Howe")
    assert assert_equal_on_both(made, spark, name, zone, **parameters) > 0
