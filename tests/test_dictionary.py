"""`aico-lab schema describe`: the tables for questions as they really are."""

import json

from aico_lab.etl.dictionary import TABLES
from aico_lab.lab import Lab


def test_every_column_of_every_table_for_questions_is_described(tmp_path):
    """Names, order and types are those of a snapshot."""
    with Lab.create(tmp_path / "home", key_file=tmp_path / "key") as lab:
        lab.sync()
        found = lab.sql(
            "SELECT CASE WHEN schema_name = 'main' THEN '' ELSE schema_name || '.' END "
            "|| table_name, column_name, data_type FROM duckdb_columns() "
            "WHERE NOT internal AND schema_name IN ('main', 'mart') ORDER BY 1, column_index"
        )
        columns: dict[str, list[tuple[str, str]]] = {}
        for table, column, type_ in found.fetchall():
            columns.setdefault(table, []).append((column, type_))
    described = {one.name: [(c.name, c.type) for c in one.columns] for one in TABLES}
    assert described == columns
    assert all(column.meaning for table in TABLES for column in table.columns)
    times = [c for table in TABLES for c in table.columns if c.name.endswith("_ms")]
    assert all(column.unit for column in times)


def test_the_command_shows_one_table_or_all_and_needs_no_home(in_process):
    assert "reply_ms" in in_process("schema", "describe", "mart.turns").stdout
    assert "reply_ms" in in_process("schema", "describe", "turns").stdout
    shown = in_process("schema", "describe", "--json")
    assert [table["name"] for table in json.loads(shown.stdout)] == [one.name for one in TABLES]
    wrong = in_process("schema", "describe", "turnz")
    assert wrong.returncode == 2
    assert "mart.turns" in wrong.stderr
