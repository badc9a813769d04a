"""A query reads the snapshot, and neither destroys, reads nor sends anything else."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import duckdb
import pyarrow as pa
import pytest

from aico_lab.adapters.duckdb import DuckDBAdapter, translated
from aico_lab.adapters.duckdb_confined import DENIED, check_statements
from aico_lab.config import usual_key_file
from aico_lab.errors import InvalidStatement, NotPermitted
from aico_lab.lab import Lab
from tests.messages import add, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Homes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("confined")


@pytest.fixture(scope="module")
def asked(folder: Path, homes: Homes) -> Iterator[Lab]:
    """A lab with a snapshot in a file, and a snapshot with changes still in its log."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patched.setenv("HOME", str(folder))
        with homes.open(folder / "home") as lab:
            add(lab.primary, *map(message, range(2000)))
            lab.sync()
            add(lab.primary, message(2000))
            lab.sync()
            (folder / "note.txt").write_text("a file beside")
            yield lab


@pytest.fixture
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A local port, and the data sent to it."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        received.append(connection.recv(1000))

        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], received


def everything(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return the files below a folder with their modes."""
    return {
        file: (file.read_bytes() if file.is_file() else b"", file.stat().st_mode)
        for file in folder.rglob("*")
        if "-shm" not in file.name
    }


# Of the placeholders, {snapshot} is the file that is read, and {spill} the folder for what does not
# fit into memory: DuckDB's own switch leaves those two open to every statement.
WRITING = """
COPY (SELECT 1) TO '{home}/aico.db'
COPY (SELECT 1) TO '{home}/aico.db' (FORMAT csv, USE_TMP_FILE false)
COPY (SELECT 1) TO '{snapshot}' (FORMAT csv, USE_TMP_FILE false)
COPY (SELECT 1) TO '{snapshot}.wal' (FORMAT csv, USE_TMP_FILE false)
COPY (SELECT 1) TO '{attached}' (FORMAT csv, USE_TMP_FILE false)
COPY (SELECT 1 AS a) TO '{attached}' (FORMAT csv, PER_THREAD_OUTPUT)
COPY (SELECT 1) TO '{spill}/x.csv'
COPY (SELECT 1 AS a) TO '{spill}' (FORMAT csv, PER_THREAD_OUTPUT)
COPY conversations TO '{folder}/x.parquet' (FORMAT parquet)
COPY (SELECT 1 AS a) TO '{folder}/parts' (FORMAT csv, PARTITION_BY (a), WRITE_PARTITION_COLUMNS)
COPY (SELECT 1) TO '/dev/stdout'
COPY (SELECT 1) TO 's3://bucket/x.csv'
COPY (SELECT 1) TO 'http://127.0.0.1:{port}/x.csv'
EXPLAIN ANALYZE COPY (SELECT 1) TO '{spill}/x.csv'
explain (analyze, format json) COPY (SELECT 1) TO '{spill}/x.csv'
EXPLAIN /* */ ANALYZE COPY (SELECT 1) TO '{spill}/x.csv'
PREPARE p AS COPY (SELECT 1) TO '{spill}/x.csv'
EXECUTE p
SELECT 1; COPY (SELECT 1) TO '{folder}/x.csv'
/* */ COPY (SELECT 1) TO '{folder}/x.csv'
EXPORT DATABASE '{folder}/exported'
IMPORT DATABASE '{folder}/exported'
ATTACH '{folder}/new.duckdb' AS own
ATTACH '{spill}/new.duckdb' AS own
ATTACH '{home}/aico.db' AS own (TYPE sqlite)
ATTACH ':memory:' AS own
ATTACH 'http://127.0.0.1:{port}/x.duckdb' AS own
DETACH lab
COPY FROM DATABASE lab TO memory
CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b', ENDPOINT '127.0.0.1:{port}'); FROM 's3://b/x.csv'
CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')
CREATE SECRET s (TYPE http, BEARER_TOKEN 'a')
SELECT 1; /* */ create /* */ OR{space}REPLACE /**/ TEMPORARY SECRET IF NOT EXISTS s (TYPE http)
EXPLAIN CREATE SECRET (TYPE http, BEARER_TOKEN 'a')
INSTALL spatial
FORCE INSTALL httpfs FROM 'http://127.0.0.1:{port}'
UPDATE EXTENSIONS
LOAD '{folder}/note.txt'
LOAD sqlite_scanner
CHECKPOINT
FORCE CHECKPOINT lab
FROM enable_logging()
FROM system.main.enable_logging(storage='file', storage_path='{folder}/logs')
FROM enable_logging(storage='file', storage_path='{folder}/logs')
CALL enable_logging('QueryLog', storage='file', storage_path='{folder}/logs')
FROM enable_profiling()
FROM "ENABLE_profiling" /* */ (format='json', save_location='{folder}/profile.json')
FROM{space}enable_profiling{space}(format='json', save_location='{folder}/profile.json')
FROM query('FROM enable_' || 'profiling(format=''json'', save_location=''{folder}/p.json'')')
CREATE TEMP MACRO m(f) AS TABLE FROM query(f); FROM m('FROM enable_' || 'logging()')
FROM json_execute_serialized_sql(json_serialize_sql('FROM enable_' || 'profiling()'))
PRAGMA json_execute_serialized_sql(json_serialize_sql('FROM enable_profiling()'))
FROM disable_profiling()
FROM disable_logging()
FROM truncate_duckdb_logs()
FROM checkpoint()
FROM force_checkpoint()
SELECT write_log('said')
CREATE TABLE raw.mine AS SELECT 1
DELETE FROM raw.messages
INSERT INTO raw.users SELECT * FROM raw.users
UPDATE raw.messages SET content = ''
DROP TABLE raw.messages
ALTER TABLE raw.messages DROP COLUMN content
CREATE OR REPLACE VIEW conversations AS SELECT 1
""".strip().splitlines()

READING = """
SELECT * FROM read_text('{key}')
SELECT * FROM read_text('/etc/passwd')
SELECT * FROM read_text('{folder}/*')
SELECT * FROM read_blob('{folder}/note.txt')
SELECT * FROM read_csv('{folder}/note.txt')
SELECT * FROM read_csv_auto('{folder}/note.txt')
SELECT * FROM sniff_csv('{folder}/note.txt')
SELECT * FROM read_json('{folder}/note.txt')
SELECT * FROM read_ndjson_objects('{folder}/note.txt')
SELECT * FROM read_parquet('{folder}/note.txt')
SELECT * FROM parquet_metadata('{folder}/note.txt')
SELECT * FROM read_duckdb('{home}/warehouse/writer.duckdb')
SELECT * FROM glob('{folder}/*')
SELECT * FROM glob('/etc/*')
FROM '{folder}/note.txt'
FROM '{folder}/note.csv'
SELECT * FROM sqlite_scan('{home}/aico.db', 'messages')
SELECT * FROM read_text('http://127.0.0.1:{port}/' || (SELECT min(content) FROM conversations))
SELECT * FROM read_text('http://127.0.0.1:{port}/said')
SELECT * FROM read_text('s3://bucket/said')
FROM 'https://127.0.0.1:{port}/said.parquet'
CREATE TEMP TABLE t (x VARCHAR); COPY t FROM '{folder}/note.txt'
CREATE TEMP MACRO m(f) AS TABLE FROM read_text(f); FROM m('{key}')
SELECT * FROM query('SELECT * FROM read_text(''{key}'')')
SELECT * FROM query_table('{folder}/note.csv')
EXPLAIN ANALYZE SELECT * FROM read_text('{key}')
SUMMARIZE FROM read_text('{key}')
DESCRIBE FROM read_csv('{folder}/note.txt')
PREPARE p AS SELECT * FROM read_text(?)
SELECT getenv('HOME')
FROM duckdb_extensions()
SELECT * FROM frame
SELECT * FROM query
SELECT * FROM self
""".strip().splitlines()

SETTING = """
SET enable_external_access = true
RESET enable_external_access
SET GLOBAL enable_external_access = true
PRAGMA enable_external_access = true
SET lock_configuration = false
RESET lock_configuration
SET temp_file_encryption = false
SET temp_directory = '{folder}'
SET allowed_directories = ['/']
SET allowed_paths = ['{key}']
SET memory_limit = '1TB'
SET max_temp_directory_size = '1TB'
SET allow_unsigned_extensions = true
SET autoload_known_extensions = true
SET autoinstall_known_extensions = true
SET custom_extension_repository = 'http://127.0.0.1:{port}'
SET extension_directory = '{folder}'
SET secret_directory = '{folder}'
SET allow_persistent_secrets = true
SET home_directory = '{folder}'
SET http_proxy = '127.0.0.1:{port}'
SET s3_endpoint = '127.0.0.1:{port}'
SET force_mbedtls_unsafe = true
SET log_query_path = '{folder}/log'
SET profiling_output = '{folder}/profile'
PRAGMA enable_profiling = 'json'
PRAGMA profiling_output = '{folder}/profile'
SET python_enable_replacements = true
SET python_scan_all_frames = true
SET TimeZone = 'Europe/Berlin'
SET threads = 1
""".strip().splitlines()


@pytest.fixture(params=[*WRITING, *READING, *SETTING])
def query(request, asked: Lab, folder: Path, listener) -> str:
    """One query with its placeholders filled in."""
    (spill,) = asked.sql("SELECT current_setting('temp_directory')").fetchone()
    (attached,) = asked.sql("SELECT path FROM duckdb_databases() WHERE path IS NOT NULL").fetchone()
    Path(spill).mkdir(exist_ok=True)  # as if something had been spilled already
    return request.param.format(
        home=asked.home.path,
        folder=folder,
        snapshot=max(asked.home.snapshots.glob("*.duckdb")),
        attached=attached,
        spill=spill,
        key=usual_key_file(asked.home_id),
        port=listener[0],
        space="\u00a0",
    )


def test_a_query_reaches_nothing_but_the_snapshot(asked: Lab, folder: Path, listener, query: str):
    """It is refused, nothing is written or sent, and the next query works."""
    frame = pa.table({"x": [1]})
    before = everything(folder)
    with pytest.raises((NotPermitted, InvalidStatement)), translated("The snapshot"):
        asked.sql(query).fetchall()
    assert everything(folder) == before
    assert listener[1] == []
    assert asked.sql("SELECT count(*) FROM conversations").fetchone() == (2001,)
    del frame


READERS = """
duckdb_approx_database_count duckdb_columns duckdb_connection_count duckdb_constraints
duckdb_coordinate_systems duckdb_databases duckdb_dependencies duckdb_extensions
duckdb_external_file_cache duckdb_functions duckdb_indexes duckdb_keywords duckdb_log_contexts
duckdb_logs duckdb_logs_parsed duckdb_memory duckdb_optimizers duckdb_prepared_statements
duckdb_profiling_settings duckdb_schemas duckdb_secret_types duckdb_secrets duckdb_sequences
duckdb_settings duckdb_table_sample duckdb_tables duckdb_temporary_files duckdb_types
duckdb_variables duckdb_views generate_series glob histogram histogram_values icu_calendar_names
json_each json_tree parquet_bloom_probe parquet_file_metadata parquet_full_metadata
parquet_kv_metadata parquet_metadata parquet_scan parquet_schema pg_timezone_names
pragma_collations pragma_database_size pragma_metadata_info pragma_platform pragma_show
pragma_storage_info pragma_table_info pragma_user_agent pragma_version query_table range read_blob
read_csv read_csv_auto read_duckdb read_json read_json_auto read_json_objects
read_json_objects_auto read_ndjson read_ndjson_auto read_ndjson_objects read_parquet read_text
repeat repeat_row sniff_csv summary test_all_types test_vector_types unnest which_secret
"""
"""Table functions that only read; those that read files are refused by DuckDB itself."""

PRAGMAS = """
all_profiling_output collations database_list database_size extension_versions functions
metadata_info platform show show_databases show_tables show_tables_expanded storage_info table_info
user_agent version
"""
"""Pragmas that DuckDB replaces by a query; `check_statements` refuses all others."""


def test_every_function_of_duckdb_was_decided_on(asked: Lab):
    """A new version of DuckDB may bring another that does more than read."""
    functions = {
        name
        for (name,) in asked.sql(
            "SELECT function_name FROM duckdb_functions() WHERE schema_name = 'main' AND "
            "function_type IN ('table', 'table_macro') AND (internal OR database_name = 'system')"
        ).fetchall()
    }
    assert functions - DENIED == set(READERS.split())
    assert {"which_secret", "range"} <= functions


def test_every_pragma_of_duckdb_was_decided_on(asked: Lab):
    """With and without an argument."""
    connection = asked.storage.reader.connection()
    pragmas = asked.sql(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'pragma'"
    ).fetchall()
    allowed = set()
    for (name,) in pragmas:
        for pragma in (f"PRAGMA {name}", f"PRAGMA {name}('t')", f"PRAGMA {name}('lab', 'memory')"):
            with contextlib.suppress(NotPermitted, duckdb.Error):
                check_statements(connection, pragma)
                allowed.add(name)
    assert allowed <= set(PRAGMAS.split())


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'FROM query(1)', \"query\" FROM (SELECT 1 AS query)",
        "SELECT 1 -- checkpoint()",
        "SELECT count(*) FROM conversations WHERE content LIKE '%enable_logging%'",
    ],
)
def test_a_word_is_not_a_call(asked: Lab, query: str):
    """Nor is a text, a comment or the name of a column."""
    assert asked.sql(query).fetchall()


def test_what_is_refused_is_told_with_the_way_out(asked: Lab, folder: Path):
    """One message for files, one for settings, whoever refuses."""
    for query in (f"COPY (SELECT 1) TO '{folder}/x.csv'", f"FROM read_text('{folder}/note.txt')"):
        with pytest.raises(NotPermitted, match=r"--output FILE.*external_access=True"):
            asked.sql(query)
    with pytest.raises(NotPermitted, match=r"enable_profiling\(\).*external_access=True"):
        asked.sql("FROM enable_profiling()")
    with pytest.raises(NotPermitted, match=r"settings.*external_access=True"):
        asked.sql("SET threads = 1")


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELECT count(*) FROM conversations", [(2001,)]),
        ("FROM (VALUES (1), (2)) AS t(x) ORDER BY x", [(1,), (2,)]),
        ("CREATE TEMP TABLE seen AS SELECT 7 AS x; FROM seen", [(7,)]),
        ("CREATE TEMP TABLE secret AS SELECT 8 AS x; FROM secret", [(8,)]),
        ("CREATE OR REPLACE TEMP MACRO twice(x) AS 2 * x; SELECT twice(3)", [(6,)]),
        ("SET VARIABLE v = 5; SELECT getvariable('v')", [(5,)]),
        ("USE memory; USE lab; SELECT 1", [(1,)]),
        ("PIVOT (SELECT 'a' AS k, 1 AS v) ON k USING sum(v)", [(1,)]),
        ("SELECT count(*) > 20 FROM (DESCRIBE raw.messages) WHERE true OR null", [(False,)]),
        ("SELECT current_setting('TimeZone')", [("UTC",)]),
        ("SELECT '{\"a\": 1}'::JSON ->> 'a', TIMESTAMPTZ '2024-01-01 00:00:00+00'::VARCHAR",
         [("1", "2024-01-01 00:00:00+00")]),
        ("SELECT count(*) FROM duckdb_secrets() WHERE persistent", [(0,)]),
        ("SELECT * FROM duckdb_settings() WHERE value LIKE '%' || 'ENCRYPTION_KEY' || '%'", []),
    ],
)  # fmt: skip
def test_questions_have_their_answers(asked: Lab, query: str, answer: list[tuple[object, ...]]):
    """Also for queries that use temporary objects in memory."""
    assert asked.sql(query).fetchall() == answer


@pytest.mark.parametrize(
    "query",
    [
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE FROM conversations",
        "explain (format json) SELECT 1",
        "SHOW ALL TABLES",
        "SUMMARIZE raw.users",
    ],
)
def test_a_query_can_be_explained(asked: Lab, query: str):
    """Tables can be described, too."""
    assert asked.sql(query).fetchall()


def test_values_are_given_apart_from_the_query(asked: Lab):
    """By position or by name, so that no text needs quoting."""
    quoted = "it's; COPY (SELECT 1) TO 'x'"
    assert asked.sql("SELECT ? || ?", [quoted, "!"]).fetchone() == (f"{quoted}!",)
    one = asked.sql("SELECT $a + $b AS sum", {"a": 1, "b": 2})
    assert one.pl().to_dicts() == [{"sum": 3}]
    with pytest.raises(InvalidStatement):
        asked.sql("SELECT ?", [])


@pytest.mark.slow
def test_the_metrics_and_the_proof_are_asked_the_same_way(asked: Lab):
    """These queries are our own."""
    assert asked.verify().ok
    assert len(asked.metrics.overview())


def test_half_of_the_memory_and_of_the_disk_are_left_to_others(asked: Lab):
    """DuckDB's defaults are four fifths of the memory and nine tenths of the disk."""
    row = asked.sql(
        "SELECT current_setting('memory_limit'), current_setting('max_temp_directory_size')"
    ).fetchone()
    memory, disk = (
        float(text.split()[0]) * 1024 ** "_KMGT".index(text.split()[1][0]) for text in row
    )
    everything_there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory < 0.51 * everything_there
    free = os.statvfs(asked.home.path)
    assert disk < 0.6 * free.f_bavail * free.f_frsize


@pytest.mark.slow
def test_what_is_spilled_is_encrypted_and_goes_again(asked: Lab, tmp_path: Path):
    """DuckDB itself can still write to the temporary folder."""
    adapter = DuckDBAdapter(
        max(asked.home.snapshots.glob("*.duckdb")),
        asked.storage.keys.duckdb(),
        read_only=True,
        temporary=tmp_path,
        memory_limit="240MB",
        confined=True,
    )
    with adapter.connect() as connection:
        answer = connection.sql(
            "SELECT repeat('nobody shall read this', 20) || range AS x FROM range(600_000) "
            "ORDER BY 1 DESC"
        )
        assert answer.fetchone()
        spilled = list(tmp_path.rglob("*.tmp"))
        assert sum(file.stat().st_size for file in spilled) > 1 << 20
        assert not any(b"nobody shall read" in file.read_bytes() for file in spilled)
        del answer
    assert [path for path in tmp_path.rglob("*") if path.suffix != ".lock"] == []


def test_who_says_so_lets_queries_reach_further(asked: Lab, folder: Path, tmp_path: Path):
    """The same queries work, but still see no key and cannot change the snapshot."""
    key = folder / "key"
    key.touch(0o600)
    key.write_bytes(base64.urlsafe_b64encode(asked.storage.keys.credential))
    with Lab.open(asked.home.path, key_file=key, external_access=True) as lab:
        lab.sql("SET threads = 1")
        lab.sql(f"COPY (SELECT 1 AS one) TO '{tmp_path}/x.csv'")
        assert (tmp_path / "x.csv").read_text() == "one\n1\n"
        assert lab.sql(f"SELECT content FROM read_text('{folder}/note.txt')").fetchone() == (
            "a file beside",
        )
        with pytest.raises(NotPermitted, match="read-only"):
            lab.sql("DELETE FROM raw.messages")


@pytest.mark.parametrize("ending", ["", ".wal"])
def test_duckdb_itself_cannot_write_over_the_snapshot(asked: Lab, folder: Path, ending: str):
    """Even if no statement is refused first: the name that DuckDB knows is removed."""
    connection = asked.storage.reader.connection()
    (attached,) = connection.execute(
        "SELECT path FROM duckdb_databases() WHERE path IS NOT NULL"
    ).fetchone()
    before = everything(folder / "home" / "warehouse")
    snapshot = max(asked.home.snapshots.glob("*.duckdb"))
    for file in (attached, snapshot):
        for options in ("USE_TMP_FILE false", "USE_TMP_FILE true", "PER_THREAD_OUTPUT true"):
            with pytest.raises(duckdb.Error):
                connection.execute(f"COPY (SELECT 1) TO '{file}{ending}' (FORMAT csv, {options})")
    assert everything(folder / "home" / "warehouse") == before


def test_a_snapshot_is_read_where_the_disk_knows_no_links(asked: Lab, monkeypatch):
    """It is opened by its own name; statements that write are still refused."""
    monkeypatch.setattr(os, "link", Mock(side_effect=OSError))
    adapter = DuckDBAdapter(
        max(asked.home.snapshots.glob("*.duckdb")),
        asked.storage.keys.duckdb(),
        read_only=True,
        temporary=asked.home.temporary,
        confined=True,
    )
    with adapter.connect() as connection:
        count = connection.execute("SELECT count(*) FROM conversations").fetchone()
    assert count == (2001,)


def test_nothing_is_left_of_opening_a_snapshot(asked: Lab):
    """Neither the second name nor a second link, which would keep disk space in use."""
    asked.sql("SELECT 1")
    snapshot = max(asked.home.snapshots.glob("*.duckdb"))
    links = [file for file in asked.home.path.rglob("*") if file.samefile(snapshot)]
    assert snapshot.stat().st_nlink == len(links)
    assert all(file.parent == asked.home.snapshots for file in links)
