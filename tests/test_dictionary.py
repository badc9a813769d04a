"""`aico-lab schema describe`: the tables for questions as they really are."""

import json
import re

import pytest

from aico_lab.etl.dictionary_lookup import ALL


def test_every_column_of_every_table_for_questions_is_described(homes, tmp_path):
    """Names, order and types are those of a snapshot."""
    with homes.open(tmp_path / "home", "none", synced=True) as lab:
        found = lab.sql(
            "SELECT CASE WHEN schema_name = 'main' THEN '' ELSE schema_name || '.' END "
            "|| table_name, column_name, data_type FROM duckdb_columns() "
            "WHERE NOT internal ORDER BY 1, column_index"
        )
        columns: dict[str, list[tuple[str, str]]] = {}
        for table, column, type_ in found.fetchall():
            columns.setdefault(table, []).append((column, type_))
    described = {one.name: [(c.name, c.type) for c in one.columns] for one in ALL}
    assert described == columns
    assert all(column.meaning for table in ALL for column in table.columns)
    times = [c for table in ALL for c in table.columns if c.name.endswith("_ms")]
    assert all(column.unit for column in times)


def test_the_command_shows_one_table_or_all_and_needs_no_home(in_process):
    assert "reply_ms" in in_process("schema", "describe", "mart.turns").stdout
    assert "reply_ms" in in_process("schema", "describe", "turns").stdout
    shown = in_process("schema", "describe", "--json")
    assert [table["name"] for table in json.loads(shown.stdout)] == [one.name for one in ALL]


def test_names_of_tables_and_schemas_have_any_case(in_process):
    """A schema alone lists its tables; a name in two schemas describes both."""
    assert "reply_ms" in in_process("schema", "describe", "Mart.TURNS").stdout
    assert in_process("schema", "describe", "main.conversations").stdout.startswith(
        "conversations:"
    )
    listed = in_process("schema", "describe", "MART").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [
        one.name for one in ALL if one.name.startswith("mart.")
    ]
    both = json.loads(in_process("schema", "describe", "messages", "--json").stdout)
    assert [one["name"] for one in both] == ["mart.messages", "raw.messages"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("turnz", "turns"), ("mrat.turns", "mart.turns"), ("quarantin", "quarantine"), ("x", "mart")],
)
def test_a_mistyped_name_is_answered_with_similar_ones_or_the_schemas(in_process, typed, meant):
    wrong = in_process("schema", "describe", typed)
    assert wrong.returncode == 2
    assert meant in wrong.stderr


def test_a_description_can_be_read_without_its_neighbours():
    """No text says "its", "the same" or "there" of something that another text names."""
    texts = [one.meaning for one in ALL] + [c.meaning for one in ALL for c in one.columns]
    for text in texts:
        assert not re.search(r"\b(the same|as above|ditto|too)\b", text), text
        assert not re.match(r"(its|it|that|of)\b", text), text
