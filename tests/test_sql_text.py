"""The text of SQL: its tokens, what a statement does, and which values it needs."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aico_lab.adapters.libsql_statements import cast_wide, kind_of, parameters_of
from aico_lab.adapters.sql_text import TOKEN, folded, named, normalised, quoted, tokens
from aico_lab.errors import InvalidStatement

PIECES = [*"'\"`[]?;\n é().", "--", "/*", "*/", "?12", ":a", "$b", "a$b", "1e5"]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join))
def test_every_text_is_a_sequence_of_tokens(sql):
    assert "".join(token[0] for token in TOKEN.finditer(sql)) == sql


def test_words_are_in_lower_case_and_what_is_quoted_is_not():
    sql = "SELECT\n `A``b`, 'It''s', \"X\" -- a comment; with 'a quote\n/* ? */ FROM [T 1]"
    assert list(tokens(sql)) == ["select", "`A``b`", ",", "'It''s'", ",", '"X"', "from", "[T 1]"]
    assert normalised("A  --b\n(C)") == normalised("a(c)") == "a ( c )"
    assert list(tokens("x /* never closed")) == ["x"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)


@given(TEXTS, TEXTS)
def test_names_are_the_same_for_us_when_they_are_for_sqlite(one, other):
    """It ignores the case of ASCII letters alone."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for a, b in ((one, other), (one, one.upper()), (one, one.lower()), (one, one.swapcase())):
            same = connection.execute("SELECT ? = ? COLLATE NOCASE", [a, b]).fetchone()
            assert (folded(a) == folded(b)) == bool(same[0])


@pytest.mark.parametrize("name", ["a", "two words", 'a"b', "É", "select"])
def test_a_quoted_name_stands_for_itself(name):
    assert named(quoted(name)) == folded(name)
    assert next(tokens(quoted(name))) == quoted(name)


@pytest.mark.parametrize(
    ("token", "name"),
    [("`A``b`", "a`b"), ("'It''s'", "it's"), ("[T 1]", "t 1"), ("T", "t"), ('""', "")],
)
def test_a_token_stands_for_a_name(token, name):
    assert named(token) == name


KINDS = {
    "read": [
        "SELECT 1", "select 1", " ;\n SELECT 1", "/* INSERT */ SELECT 1", "-- x\nSELECT 1",
        "VALUES (1)", "EXPLAIN DELETE FROM t", "PRAGMA table_info(t)", "PRAGMA journal_mode",
        "WITH a AS (SELECT 1), b AS (DELETE FROM t) SELECT * FROM a",
        "WITH a AS (SELECT (1)) VALUES (1)",
    ],
    "write": [
        "INSERT INTO t VALUES (1)", "UPDATE t SET a = 1",
        "DELETE FROM t", "REPLACE INTO t SELECT 1",
        "CREATE TABLE t (a)", "DROP TABLE t", "ALTER TABLE t ADD b",
        "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
        "WITH a AS (SELECT ')' || (SELECT 1)) DELETE FROM t",
    ],
    "control": ["BEGIN IMMEDIATE", "COMMIT", "END", "ROLLBACK TO a", "SAVEPOINT a", "RELEASE a"],
    "setting": [
        "PRAGMA foreign_keys = OFF", "pragma main.journal_mode=delete", 'PRAGMA "busy_timeout"(5)',
        "/* x */ PRAGMA temp_store = 1", "PRAGMA [cache_size] = 1", "PRAGMA recursive_triggers=0",
        "PRAGMA wal_autocheckpoint = 1",
    ],
    "other": ["VACUUM", "", "WITH a AS (SELECT 1)", "ATTACH 'x' AS y", "nonsense"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "sql"), [(kind, sql) for kind in KINDS for sql in KINDS[kind]])
def test_a_statement_is_known_by_what_it_does(kind, sql):
    assert kind_of(sql) == kind


TRIGGER = "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END"


@pytest.mark.parametrize(
    ("sql", "number"),
    [
        ("SELECT 1", 0), ("SELECT ?, ?", 2), ("SELECT ?2", 2), ("SELECT ?2, ?", 3),
        ("SELECT '?', \"?\", `?`, [?] -- ?\n/* ? */", 0), ("SELECT ? ; -- the end ?", 1),
        (TRIGGER, 0), (f"{TRIGGER} ;", 0), (f"EXPLAIN {TRIGGER}", 0),
        ("CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END", 0),
    ],
)  # fmt: skip
def test_the_values_that_a_statement_needs_are_counted(sql, number):
    assert parameters_of(sql) == number


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", f"{TRIGGER}; SELECT 1", "SELECT 1; x"])
def test_only_one_statement_is_taken(sql):
    with pytest.raises(InvalidStatement, match=r"^There is text .*: run one at a time\.$"):
        parameters_of(sql)


@pytest.mark.parametrize("sql", ["SELECT :a", "SELECT @a", "SELECT $a"])
def test_parameters_have_no_names(sql):
    with pytest.raises(InvalidStatement, match=r"^Named parameters .*: use \? for each value\.$"):
        parameters_of(sql)


def test_wide_integers_are_cast_where_their_placeholders_are():
    sql = "SELECT ?, '?', ?3, ? -- ?"
    assert cast_wide(sql, ()) == sql
    wide = "SELECT ?, '?', CAST(?3 AS INTEGER), CAST(? AS INTEGER) -- ?"
    assert cast_wide(sql, (2, 3)) == wide
    assert cast_wide(sql, (0,)) == "SELECT CAST(? AS INTEGER), '?', ?3, ? -- ?"
