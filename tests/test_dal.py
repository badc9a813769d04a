"""The data access layer: transactions per task, and connections that always come back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, AsyncContextManager, Dict, List  # noqa: UP035

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aico_lab.adapters.base import DatabaseAdapter
from aico_lab.adapters.libsql import Connection, LibSQLAdapter
from aico_lab.dal import ConnectionPool, DataAccessLayer
from aico_lab.dal.turns import FairSemaphore
from aico_lab.errors import (
    ConnectionIsClosed,
    ConstraintViolated,
    DatabaseLocked,
    InvalidStatement,
    InvalidValue,
    LayerClosed,
    NotADatabase,
    OperationTimedOut,
    PoolExhausted,
    StorageError,
    UnstorableValue,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "k" * 32
INSERT = "INSERT INTO t (a) VALUES (?)"
# Something that keeps the driver, and the whole process, busy for a fifth of a second or more.
LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000)"


class Regret(Exception):
    """The exception that leaves a transaction to be rolled back."""


class Counting(LibSQLAdapter):
    """Counts the connections it has opened and closed."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, KEY, create=False, **options)
        self.opened = self.closed = 0

    def connect(self) -> Connection:
        connection = super().connect()
        self.opened += 1
        return connection

    def disconnect(self, connection: Connection) -> None:
        super().disconnect(connection)
        self.closed += 1


class Outside:
    """A separate connection, which sees committed data only and never waits."""

    def __init__(self, path: Path) -> None:
        self.connection = LibSQLAdapter(path, KEY, busy_timeout=0).connect()

    def rows(self) -> list[Any]:
        return [row[0] for row in self.connection.fetch_all("SELECT a FROM t ORDER BY id")]

    def can_write(self) -> bool:
        with contextlib.suppress(DatabaseLocked), self.connection.transaction():
            return True
        return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with one table."""
    file = tmp_path / "data.db"
    with LibSQLAdapter(file, KEY).connect() as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL UNIQUE)")
        connection.execute("CREATE TABLE after_t (id REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    return file


@pytest.fixture
def outside(path: Path) -> Iterator[Outside]:
    looking = Outside(path)
    yield looking
    looking.connection.close()


@pytest.fixture
async def dal(path: Path) -> Any:
    """A layer of three connections, in a test with a time limit."""
    async with DataAccessLayer(Counting(path), max_connections=3, acquire_timeout=5) as layer:
        yield layer
        assert await all_connections(layer) == 3


async def all_connections(dal: DataAccessLayer) -> int:
    """Borrow every connection at once, so that a lost one is noticed; return how many work."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            connection = await stack.enter_async_context(dal.connection_pool.acquire())
            assert await connection.fetch_one("SELECT 1 AS one") == {"one": 1}
        return 3


# ---- the document's own code

PRINTED = '''
class DataAccessLayer:
    def __init__(self, adapter: DatabaseAdapter):
        self.adapter = adapter
        self.connection_pool = ConnectionPool(adapter, max_connections=10)
    
    async def execute(self, query: str, params: List = None) -> None:
        """Execute a query without returning results"""
        async with self.connection_pool.acquire() as conn:
            await conn.execute(query, params or [])
    
    async def fetch_all(self, query: str, params: List = None) -> List[Dict]:
        """Execute query and return all results"""
        async with self.connection_pool.acquire() as conn:
            return await conn.fetch_all(query, params or [])
    
    async def transaction(self) -> AsyncContextManager:
        """Provide transaction context"""
        return TransactionContext(self.connection_pool)

# Transaction management
class TransactionContext:
    def __init__(self, pool: ConnectionPool):
        self.pool = pool
        self.connection = None
    
    async def __aenter__(self):
        self.connection = await self.pool.acquire()
        await self.connection.begin()
        return self.connection
    
    async def __aexit__(self, exc_type, exc_val, exc_tb):
        if exc_type:
            await self.connection.rollback()
        else:
            await self.connection.commit()
        await self.pool.release(self.connection)
'''  # noqa: W293


async def test_the_layer_printed_in_the_document_runs_on_the_pool(path, outside):
    """Its transaction commits, and rolls back on an exception."""
    names = {
        "ConnectionPool": ConnectionPool,
        "DatabaseAdapter": DatabaseAdapter,
        "AsyncContextManager": AsyncContextManager,
        "List": List,  # noqa: UP006
        "Dict": Dict,  # noqa: UP006
    }
    exec(PRINTED, names)  # noqa: S102
    adapter = Counting(path)
    dal = names["DataAccessLayer"](adapter)
    await dal.execute(INSERT, ["one"])
    async with await dal.transaction() as connection:
        await connection.execute(INSERT, ["two"])
        assert outside.rows() == ["one"]
    with pytest.raises(Regret):
        async with await dal.transaction() as connection:
            await connection.execute(INSERT, ["three"])
            raise Regret
    assert await dal.fetch_all("SELECT a FROM t") == [{"a": "one"}, {"a": "two"}]
    assert outside.rows() == ["one", "two"]
    assert adapter.opened == 1
    await dal.connection_pool.close()


# ---- operations and transactions


async def test_operations_commit_by_themselves(dal, outside):
    """A second connection sees each operation when it is done; rows are read by column name."""
    await dal.execute(INSERT, ["one"])
    assert outside.rows() == ["one"]
    await dal.execute_many(INSERT, ((name,) for name in ("two", "three")))
    assert outside.rows() == ["one", "two", "three"]
    assert await dal.fetch_all("SELECT id, a FROM t WHERE id > ?", [2]) == [{"id": 3, "a": "three"}]
    assert await dal.fetch_one("SELECT a FROM t ORDER BY id") == {"a": "one"}
    assert await dal.fetch_one("SELECT a FROM t WHERE id = 9") is None
    assert await dal.fetch_one(f"{INSERT} RETURNING id", ["four"]) == {"id": 4}
    assert await dal.fetch_all(INSERT, ("five",)) == []
    assert outside.rows() == ["one", "two", "three", "four", "five"]
    await dal.execute("VACUUM", None)


async def test_a_transaction_commits_whole_or_not_at_all(dal, outside):
    """Nothing is visible outside before the end; an exception rolls everything back."""
    async with dal.transaction() as inside:
        await inside.execute(INSERT, ["one"])
        await dal.execute(INSERT, ["two"])
        assert await dal.fetch_one("SELECT count(*) AS n FROM t") == {"n": 2}
        assert outside.rows() == []
    assert outside.rows() == ["one", "two"]
    with pytest.raises(Regret):
        async with dal.transaction():
            await dal.execute("DELETE FROM t")
            raise Regret
    assert outside.rows() == ["one", "two"]
    assert outside.can_write()


async def test_an_inner_transaction_undoes_only_itself(dal, outside):
    """Its failure, once caught, spares the outer one; the outer one's failure undoes both."""
    async with dal.transaction():
        await dal.execute(INSERT, ["kept"])
        with pytest.raises(Regret):
            async with dal.transaction():
                await dal.execute(INSERT, ["undone"])
                async with dal.transaction():
                    await dal.execute(INSERT, ["undone too"])
                raise Regret
        async with dal.transaction():
            await dal.execute(INSERT, ["inner"])
    assert outside.rows() == ["kept", "inner"]
    with pytest.raises(Regret):
        async with dal.transaction():
            async with dal.transaction():
                await dal.execute(INSERT, ["gone"])
            raise Regret
    assert outside.rows() == ["kept", "inner"]


async def test_a_refused_row_leaves_the_transaction_going(dal, outside):
    """After catching the error, the transaction continues; a list of rows is refused whole."""
    async with dal.transaction():
        await dal.execute(INSERT, ["one"])
        with pytest.raises(ConstraintViolated):
            await dal.execute(INSERT, ["one"])
        with pytest.raises(ConstraintViolated):
            await dal.execute_many(INSERT, [["two"], ["one"]])
        await dal.execute(INSERT, ["three"])
    assert outside.rows() == ["one", "three"]


async def test_a_commit_that_fails_undoes_the_transaction(dal, outside):
    """A foreign key that is checked at the end fails the commit; nothing stays open."""
    with pytest.raises(ConstraintViolated):
        async with dal.transaction():
            await dal.execute(INSERT, ["one"])
            await dal.execute("INSERT INTO after_t VALUES (77)")
    assert outside.rows() == []
    assert outside.can_write()


async def test_a_transaction_that_the_database_undid_is_over(dal, outside):
    """Further statements fail, and no commit is reported."""
    again = "INSERT OR ROLLBACK INTO t (a) VALUES ('first')"
    with pytest.raises(StorageError, match="rolled back the transaction"):
        async with dal.transaction():
            await dal.execute(INSERT, ["first"])
            with pytest.raises(ConstraintViolated):
                async with dal.transaction():
                    await dal.execute(again)
            for write in (dal.execute(INSERT, ["second"]), dal.execute_many(INSERT, [["third"]])):
                with pytest.raises(StorageError, match="rolled back the transaction"):
                    await write
    assert outside.rows() == []
    assert outside.can_write()


async def test_many_rows_are_stored_all_or_none(dal, outside):
    """Also if the iterable of rows fails halfway."""

    def rows() -> Iterator[list[str]]:
        yield ["one"]
        raise Regret

    for bad, error in [
        ([["one"], ["one"]], ConstraintViolated),
        ([["one"], [math.nan]], UnstorableValue),
        ([["one"], "two"], InvalidStatement),
        (rows(), Regret),
    ]:
        with pytest.raises(error):
            await dal.execute_many(INSERT, bad)
        assert outside.rows() == []


async def test_a_task_started_inside_a_transaction_does_not_take_part(dal, outside):
    """It sees no uncommitted data, writes after the transaction, and is not rolled back with it."""
    with pytest.raises(Regret):
        async with dal.transaction():
            await dal.execute(INSERT, ["parent"])
            child = asyncio.create_task(dal.execute(INSERT, ["child"]))
            assert await asyncio.create_task(dal.fetch_all("SELECT a FROM t")) == []
            await asyncio.sleep(0.05)
            assert not child.done()
            raise Regret
    await child
    assert outside.rows() == ["child"]


async def test_awaiting_such_a_task_inside_ends_with_an_explanation(path, outside):
    """Task and transaction wait for each other until the busy timeout."""
    async with DataAccessLayer(Counting(path, busy_timeout=0.1)) as dal:
        async with dal.transaction():
            with pytest.raises(DatabaseLocked, match="await nothing inside one"):
                await asyncio.gather(dal.execute(INSERT, ["child"]))
            await dal.execute(INSERT, ["parent"])
        assert outside.rows() == ["parent"]


async def test_tasks_of_their_own_have_transactions_of_their_own(dal, outside):
    """Ten transactions at once, every second one rolled back, are isolated and write in turn."""

    async def write(number: int) -> None:
        with contextlib.suppress(Regret):
            async with dal.transaction():
                await dal.execute(INSERT, [f"{number} a"])
                await asyncio.sleep(0)
                await dal.execute(INSERT, [f"{number} b"])
                if number % 2:
                    raise Regret

    await asyncio.gather(*(write(number) for number in range(10)))
    assert outside.rows() == [f"{n} {side}" for n in range(0, 10, 2) for side in "ab"]


READS = [
    "SELECT a FROM t WHERE a = 'delete'",
    "/* INSERT */ -- update\n SELECT replace(a, 'x', 'y') AS a FROM t",
    "WITH w AS (SELECT a FROM t WHERE a <> 'insert') SELECT replace(a, 'x', 'y') AS a FROM w",
    "VALUES ('delete')",
    "EXPLAIN QUERY PLAN DELETE FROM t",
    "PRAGMA table_info('update')",
]


@pytest.mark.parametrize("query", READS)
async def test_reading_waits_for_no_writer_whatever_words_stand_in_it(path, query):
    """Not even in a task started inside a transaction, which would wait for itself."""
    adapter = Counting(path, busy_timeout=0.2)
    async with DataAccessLayer(adapter) as dal, dal.transaction():
        await dal.execute(INSERT, ["first"])
        found = await asyncio.create_task(dal.fetch_all(query))
        assert adapter.opened == 2
    assert "first" not in [row.get("a") for row in found]


async def test_vacuum_is_no_part_of_a_transaction(dal, outside):
    """SQLite refuses VACUUM inside a transaction."""
    await dal.execute(INSERT, ["first"])
    await dal.execute("VACUUM")
    assert outside.rows() == ["first"]


async def test_waiting_writers_do_not_keep_readers_from_connections(dal):
    """Of three connections one writes; with many writers waiting, readers get the others."""
    async with dal.transaction():
        writers = [asyncio.create_task(dal.execute(INSERT, [str(n)])) for n in range(20)]
        await asyncio.sleep(0.02)
        async with asyncio.timeout(60):
            assert await asyncio.create_task(dal.fetch_all("SELECT a FROM t")) == []
    await asyncio.gather(*writers)
    assert [row["a"] for row in await dal.fetch_all("SELECT a FROM t ORDER BY id")] == [
        str(n) for n in range(20)
    ]


# ---- wrong input

WRONG = {
    "NaN": (INSERT, [math.nan], UnstorableValue),
    "NUL": (INSERT, ["a\0b"], UnstorableValue),
    "an object": (INSERT, [object()], UnstorableValue),
    "2^63": (INSERT, [2**63], UnstorableValue),
    "too many values": (INSERT, ["a", "b"], InvalidStatement),
    "too few values": (INSERT, [], InvalidStatement),
    "text for values": (INSERT, "a", InvalidStatement),
    "a dict for values": (INSERT, {"a": 1}, InvalidStatement),
    "a set for values": (INSERT, {"a"}, InvalidStatement),
    "syntax": ("INSER INTO t", [], InvalidStatement),
    "no table": ("INSERT INTO nowhere VALUES (1)", [], InvalidStatement),
    "no text": (None, [], InvalidStatement),
    "NULL": (INSERT, [None], ConstraintViolated),
    "twice": (INSERT, ["first"], ConstraintViolated),
    **{
        word: (word, [], InvalidStatement)
        for word in (
            "BEGIN",
            "commit",
            " END",
            "ROLLBACK",
            "savepoint x",
            "RELEASE x",
            "/* */ COMMIT",
            "-- x\nCOMMIT",
            ";COMMIT",
            "/* ; */;;\n-- BEGIN\nROLLBACK",
        )
    },
    "two statements": (f"{INSERT}; DELETE FROM t", ["second"], InvalidStatement),
    "a name": ("INSERT INTO t (a) VALUES (:a)", [], InvalidStatement),
}


@pytest.mark.parametrize(("query", "params", "error"), WRONG.values(), ids=WRONG)
async def test_wrong_input_has_a_class_and_changes_nothing(dal, outside, query, params, error):
    """The error is one sentence without the value; the layer still works."""
    await dal.execute(INSERT, ["first"])
    for operation in (dal.execute, dal.fetch_all, dal.fetch_one):
        with pytest.raises(error, match=r"^[^\n]+[.]$"):
            await operation(query, params)
    async with dal.transaction():
        with pytest.raises(error):
            await dal.execute(query, params)
        await dal.execute(INSERT, ["second"])
    assert outside.rows() == ["first", "second"]
    assert outside.can_write()


@pytest.mark.parametrize(
    "pragma",
    [
        "PRAGMA foreign_keys = OFF",
        "/* x */ pragma main.foreign_keys(0)",
        'PRAGMA "foreign_keys"=0',
        "PRAGMA journal_mode = DELETE",
        "PRAGMA busy_timeout = 9000",
        "PRAGMA temp_store = FILE",
    ],
)
async def test_nobody_changes_how_the_connections_of_the_pool_are_set(dal, pragma):
    """The next borrower would get no foreign keys; reading a setting is allowed."""
    async with dal.connection_pool.acquire() as connection:
        for target in (dal, connection):
            with pytest.raises(InvalidStatement, match="remove this PRAGMA"):
                await target.execute(pragma)
            with pytest.raises(InvalidStatement, match="remove this PRAGMA"):
                await target.execute_all([(pragma, ())])
        assert await connection.fetch_one("PRAGMA foreign_keys") == {"foreign_keys": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"max_connections": 0},
        {"acquire_timeout": 0},
        {"acquire_timeout": math.nan},
        {"operation_timeout": 0},
        {"operation_timeout": -1},
    ],
)
def test_impossible_limits_are_refused(path, options):
    """The constructor raises."""
    with pytest.raises(InvalidValue):
        DataAccessLayer(Counting(path), **options)


async def test_a_wrong_key_is_reported_each_time_and_uses_nothing_up(path):
    """The only connection of the pool is available for the next try."""
    async with DataAccessLayer(
        LibSQLAdapter(path, "x" * 32), max_connections=1, acquire_timeout=0.2
    ) as dal:
        for _ in range(3):
            with pytest.raises(NotADatabase):
                await dal.execute(INSERT, ["one"])


# ---- the pool


async def test_connections_are_opened_when_needed_and_used_again(path):
    """None before the first use, one for tasks in sequence, and never more than the limit."""
    adapter = Counting(path)
    async with DataAccessLayer(adapter, max_connections=3) as dal:
        assert adapter.opened == 0
        for _ in range(5):
            await dal.fetch_all("SELECT 1")
        assert adapter.opened == 1
        await asyncio.gather(*(dal.fetch_all("SELECT 1") for _ in range(20)))
        assert 1 < adapter.opened <= 3
    assert adapter.closed == adapter.opened


async def test_an_exhausted_pool_says_so_and_recovers(dal):
    """It raises after the timeout, not before; other waiting tasks get returned connections."""
    dal.connection_pool._acquire_timeout = 0.1
    held = [await dal.connection_pool.acquire() for _ in range(3)]
    start = time.monotonic()
    with pytest.raises(PoolExhausted, match="All 3 connections"):
        await dal.fetch_all("SELECT 1")
    assert time.monotonic() - start >= 0.1
    waiting = [asyncio.create_task(dal.fetch_all("SELECT 1 AS one")) for _ in range(5)]
    await asyncio.sleep(0.02)
    await dal.connection_pool.release(held[0])
    assert await asyncio.gather(*waiting) == [[{"one": 1}]] * 5
    await dal.connection_pool.release(held[0])  # again: it is not lent twice for that
    for connection in held[1:]:
        await dal.connection_pool.release(connection)


async def test_a_writer_that_gets_no_connection_does_not_keep_its_turn(dal):
    """The next writer gets the turn."""
    dal.connection_pool._acquire_timeout = 0.05
    held = [await dal.connection_pool.acquire() for _ in range(3)]
    with pytest.raises(PoolExhausted):
        await dal.execute(INSERT, ["no"])
    for connection in held:
        await dal.connection_pool.release(connection)
    async with asyncio.timeout(60):
        await dal.execute(INSERT, ["yes"])


async def test_turns_come_in_the_order_of_asking_and_none_is_lost():
    """Not even a turn that comes at the very moment in which its task is cancelled."""
    semaphore = FairSemaphore(1)
    order = []

    async def take(number: int) -> None:
        assert await semaphore.acquire(5, lambda: None)
        order.append(number)
        semaphore.release()

    assert await semaphore.acquire(5, lambda: None)
    tasks = [asyncio.create_task(take(number)) for number in range(6)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    semaphore.release()
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [1, 2, 4, 5]
    assert await semaphore.acquire(0, lambda: None)
    assert not await semaphore.acquire(0, lambda: None)


@pytest.mark.slow
async def test_a_long_task_keeps_nothing_of_the_connections_that_it_gave_back(dal):
    """A million operations of one task need no more memory than one operation."""
    connection = await dal.connection_pool.acquire()
    known = weakref.ref(connection)
    await dal.connection_pool.release(connection)
    del connection
    gc.collect()
    assert known() is None


async def test_a_connection_given_back_cannot_be_used_any_more(dal):
    """Another task may have it by now."""
    async with dal.connection_pool.acquire() as connection:
        await connection.begin()
        await connection.execute(INSERT, ["undone"])
    for use in (connection.fetch_all("SELECT 1"), connection.commit(), connection.rollback()):
        with pytest.raises(ConnectionIsClosed):
            await use
    async with dal.connection_pool.acquire() as another:
        with pytest.raises(InvalidStatement, match="begin one first"):
            await another.commit()
    assert await dal.fetch_all("SELECT a FROM t") == []


@pytest.mark.parametrize(
    "harm", [Connection.close, lambda raw: raw.execute("BEGIN IMMEDIATE")], ids=["closed", "open"]
)
async def test_a_broken_connection_is_replaced_before_its_next_use(path, outside, harm):
    """A closed connection, and one left inside a transaction bypassing the layer."""
    adapter = Counting(path)
    async with DataAccessLayer(adapter, max_connections=1) as dal:
        async with dal.connection_pool.acquire() as connection:
            await connection.run(harm)
        await dal.execute(INSERT, ["one"])
        assert outside.rows() == ["one"]
        assert adapter.opened == 2
    assert adapter.closed == 2


async def until(condition: Any) -> None:
    """Wait for a condition that another thread makes true."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - a thread sets no event of this loop
            await asyncio.sleep(0.005)


async def borrow_and_write(dal: DataAccessLayer) -> Any:
    connection = await dal.connection_pool.acquire()
    await connection.begin()
    await connection.execute(INSERT, ["abandoned"])
    return connection


async def test_what_a_task_leaves_behind_is_undone_when_it_ends(dal, outside):
    """The connection is returned clean, although it is still referenced; three times in a row."""
    for _ in range(4):
        connection = await asyncio.create_task(borrow_and_write(dal))
        await until(outside.can_write)
        with pytest.raises(ConnectionIsClosed):
            await connection.execute(INSERT, ["too late"])
    assert outside.rows() == []


@pytest.mark.slow
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "used"])
@pytest.mark.parametrize("managed", [True, False], ids=["transaction", "borrowed"])
async def test_what_a_vanished_task_leaves_behind_is_undone(path, outside, managed, closed):
    """A task that waits for an unreachable future is garbage-collected mid-transaction."""
    dal = DataAccessLayer(Counting(path))
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # "destroyed but pending"
    started = asyncio.Event()

    async def stuck() -> None:
        async with contextlib.AsyncExitStack() as stack:
            if managed:
                await stack.enter_async_context(dal.transaction())
                await dal.execute(INSERT, ["abandoned"])
            else:
                connection = await borrow_and_write(dal)  # noqa: F841
            started.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(stuck())
    await started.wait()
    await asyncio.sleep(0)
    assert not outside.can_write()
    del task
    gc.collect()
    async with asyncio.timeout(60):
        if not closed:
            await dal.execute(INSERT, ["after"])
        await dal.close()
    assert outside.rows() == ([] if closed else ["after"])


# ---- the end


async def test_a_closed_layer_refuses_every_use(path):
    """Closing is final, and can be repeated."""
    dal = DataAccessLayer(Counting(path))
    await dal.execute(INSERT, ["one"])
    await dal.close()
    await asyncio.gather(dal.close(), dal.close())
    for use in (
        dal.execute(INSERT, ["two"]),
        dal.execute_many(INSERT, [["two"]]),
        dal.fetch_all("SELECT 1"),
        dal.fetch_one("SELECT 1"),
        dal.transaction().__aenter__(),
        dal.connection_pool.lend(write=False, deadline=None),
    ):
        with pytest.raises(LayerClosed, match="was closed before this use"):
            await use


async def test_closing_lets_a_transaction_finish_and_turns_the_waiting_away(path, outside):
    """No write is lost, and tasks waiting for a turn or a connection get LayerClosed."""
    dal = DataAccessLayer(Counting(path), max_connections=1)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(dal.transaction())
        waiting = [
            asyncio.create_task(dal.execute(INSERT, ["never"])),
            asyncio.create_task(dal.fetch_all("SELECT 1")),
        ]
        await asyncio.sleep(0)
        closing = asyncio.create_task(dal.close())
        for refused in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(refused, LayerClosed)
        assert not closing.done()
        await dal.execute(INSERT, ["one"])
    await closing
    assert outside.rows() == ["one"]


async def test_closing_does_not_wait_for_ever(path, outside):
    """After the timeout a task loses its connection, and its open transaction is rolled back."""
    dal = DataAccessLayer(Counting(path), acquire_timeout=0.1)
    with pytest.raises(ConnectionIsClosed):
        async with dal.transaction():
            await dal.execute(INSERT, ["one"])
            await asyncio.create_task(dal.close())
            assert outside.can_write()
    async with DataAccessLayer(Counting(path)) as own:
        with pytest.raises(Regret):
            async with own.transaction():
                await own.execute(INSERT, ["two"])
                async with asyncio.timeout(60):
                    await own.close()  # at once: it would wait for itself
                raise Regret
    assert outside.rows() == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
async def test_closing_leaves_no_file_and_no_thread(path):
    """As the operating system reports them."""

    def files() -> int:
        own = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        return sum(file.name.startswith(path.name) for file in own)

    dal = DataAccessLayer(Counting(path))
    await asyncio.gather(*(dal.execute(INSERT, [str(n)]) for n in range(20)))
    await asyncio.gather(*(dal.fetch_all("SELECT 1") for _ in range(20)))
    assert files() > 0
    await dal.close()
    assert files() == 0
    await until(lambda: not [t for t in threading.enumerate() if t.name.startswith("aico-lab-dal")])


# ---- several event loops


def test_one_layer_serves_several_threads_and_event_loops(path, outside):
    """Eight threads with an event loop each share three connections."""
    adapter = Counting(path)
    dal = DataAccessLayer(adapter, max_connections=3)

    async def work(thread: int) -> None:
        for number in range(10):
            async with dal.transaction():
                await dal.execute(INSERT, [f"{thread} {number} a"])
                await dal.execute(INSERT, [f"{thread} {number} b"])
            await dal.fetch_all("SELECT a FROM t LIMIT 5")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda thread: asyncio.run(work(thread)), range(8)))
    asyncio.run(dal.close())
    assert adapter.opened == adapter.closed <= 3
    rows = outside.rows()
    assert len(set(rows)) == len(rows) == 160
    assert all(a[:-1] == b[:-1] for a, b in zip(rows[::2], rows[1::2], strict=True))


def test_a_loop_that_was_closed_while_somebody_waited_in_it_takes_nothing_along(path, outside):
    """The turn passes to the next task, in another loop."""
    dal = DataAccessLayer(Counting(path), max_connections=1, acquire_timeout=5)
    dead = asyncio.new_event_loop()
    dead.set_exception_handler(lambda *_: None)

    # The closed loop ran in another thread: one thread cannot run two loops.
    async def main() -> None:
        async with dal.transaction():
            waiting = await asyncio.to_thread(_wait_in, dead, dal.execute(INSERT, ["never"]))
            dead.close()
        await dal.execute(INSERT, ["after"])
        await dal.close()
        del waiting

    asyncio.run(main())
    assert outside.rows() == ["after"]


def _wait_in(loop: asyncio.AbstractEventLoop, work: Any) -> Any:
    task = loop.create_task(work)
    loop.run_until_complete(asyncio.sleep(0.01))
    return task


# ---- time


def slow_rows() -> Iterator[list[str]]:
    for name in ("one", "two", "three", "four"):
        time.sleep(0.03)
        yield [name]


@pytest.mark.slow
async def test_a_statement_that_takes_too_long_is_undone(path, outside):
    """The error is raised when the driver returns, for a write, many rows and a query."""
    async with DataAccessLayer(Counting(path), operation_timeout=0.05) as dal:
        for use in (
            dal.execute(f"{LONG} INSERT INTO t (a) SELECT count(*) FROM n"),
            dal.fetch_all(f"{LONG} INSERT INTO t (a) SELECT count(*) FROM n RETURNING id"),
            dal.execute_many(INSERT, slow_rows()),
            dal.fetch_all(f"{LONG} SELECT count(*) FROM n"),
        ):
            with pytest.raises(OperationTimedOut):
                await use
            assert outside.rows() == []
            assert outside.can_write()
        await dal.execute(INSERT, ["after"])
        assert outside.rows() == ["after"]


@pytest.mark.slow
async def test_waiting_for_other_writers_is_bounded(path, outside):
    """By the operation's limit, else by the adapter's busy timeout; readers do not wait."""
    async with (
        DataAccessLayer(Counting(path), operation_timeout=0.4) as limited,
        DataAccessLayer(Counting(path, busy_timeout=0.1)) as patient,
    ):
        await limited.fetch_all("SELECT 1")
        with outside.connection.transaction():  # a writer that no queue of ours knows
            for dal, error in ((limited, OperationTimedOut), (patient, DatabaseLocked)):
                for write in (dal.execute(INSERT, ["x"]), dal.transaction().__aenter__()):
                    start = time.monotonic()
                    with pytest.raises(error):
                        await write
                    assert 0.1 <= time.monotonic() - start < 20  # else it is 30 s
                assert await dal.fetch_all("SELECT a FROM t") == []
        async with limited.transaction():  # a writer of this process
            for dal, error in ((limited, OperationTimedOut), (patient, DatabaseLocked)):
                with pytest.raises(error):
                    await asyncio.create_task(dal.execute(INSERT, ["x"]))
    assert outside.rows() == []


@pytest.mark.slow
async def test_an_interrupted_operation_spoils_its_transaction(path, outside):
    """Catching the interruption allows no partial commit; an inner transaction contains it."""
    async with DataAccessLayer(Counting(path), operation_timeout=0.4) as dal:
        with pytest.raises(OperationTimedOut, match="start again"):
            async with dal.transaction():
                await dal.execute(INSERT, ["half"])
                with pytest.raises(OperationTimedOut, match="exceeded its time limit"):
                    await dal.fetch_all(f"{LONG} SELECT count(*) FROM n")
                with pytest.raises(OperationTimedOut, match="start again"):
                    await dal.execute(INSERT, ["other half"])
        assert outside.rows() == []
        async with dal.transaction():
            await dal.execute(INSERT, ["kept"])
            with pytest.raises(OperationTimedOut):
                async with dal.transaction():
                    await dal.execute(f"{LONG} INSERT INTO t (a) SELECT count(*) FROM n")
            await dal.execute(INSERT, ["kept too"])
        assert outside.rows() == ["kept", "kept too"]


@pytest.mark.slow
async def test_asyncio_timeout_undoes_the_transaction_around_it(dal, outside):
    """`asyncio.timeout` stays in the task, so it can be used inside a transaction."""
    with pytest.raises(OperationTimedOut):
        async with dal.transaction():
            await dal.execute(INSERT, ["half"])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await dal.execute(f"{LONG} INSERT INTO t (a) SELECT count(*) FROM n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), dal.transaction():
            await dal.execute(INSERT, ["half"])
            await asyncio.sleep(1)
    assert outside.rows() == []
    assert outside.can_write()


async def test_cancelling_ends_the_wait_for_a_lock_at_once(dal, outside):
    """Although the wait is in another thread; nothing is written when the lock becomes free."""
    await dal.fetch_all("SELECT 1")
    with outside.connection.transaction():
        waiting = [asyncio.create_task(dal.execute(INSERT, [str(n)])) for n in range(3)]
        await asyncio.sleep(0.05)
        start = time.monotonic()
        for task in waiting:
            task.cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in done} == {asyncio.CancelledError}
        assert time.monotonic() - start < 20  # the lock is waited for 30 s
    await asyncio.sleep(0.05)
    assert outside.rows() == []


async def test_when_a_cancelled_task_has_ended_nothing_of_it_goes_on(dal, outside):
    """The cancelled task waits for its statement, which runs in another thread."""
    task = asyncio.create_task(dal.execute_many(INSERT, slow_rows()))
    await asyncio.sleep(0.04)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outside.can_write()
    assert outside.rows() == []


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DataAccessLayer, Outside]]:
    """A layer for many examples, each of which runs in its own event loop."""
    file = tmp_path_factory.mktemp("cancel") / "data.db"
    with LibSQLAdapter(file, KEY).connect() as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL UNIQUE)")
    dal = DataAccessLayer(Counting(file), max_connections=3, acquire_timeout=5)
    looking = Outside(file)
    yield dal, looking
    asyncio.run(dal.close())
    looking.connection.close()


numbers = itertools.count()


@pytest.mark.slow
@given(
    delays=st.lists(st.floats(0, 0.008), min_size=1, max_size=4),
    again=st.booleans(),
    blocked=st.booleans(),
)
@settings(max_examples=80)
def test_a_task_cancelled_at_any_point_leaves_nothing_open_and_nothing_half_done(
    layer, delays, again, blocked
):
    """Up to four tasks in nested transactions, also while another writer makes them wait."""
    dal, outside = layer
    before = outside.rows()

    async def write(name: str) -> None:
        async with dal.transaction():
            await dal.execute(INSERT, [f"{name} 1"])
            async with dal.transaction():
                await dal.execute_many(INSERT, [[f"{name} 2"], [f"{name} 3"]])
            await dal.fetch_all("SELECT a FROM t LIMIT 3")
        await dal.execute(INSERT, [f"{name} 4"])

    async def main() -> list[tuple[str, bool]]:
        names = [str(next(numbers)) for _ in delays]
        tasks = [asyncio.create_task(write(name)) for name in names]
        with outside.connection.transaction() if blocked else contextlib.nullcontext():
            for task, delay in zip(tasks, delays, strict=True):
                await asyncio.sleep(delay)
                task.cancel()
                if again:
                    await asyncio.sleep(0)
                    task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert outside.can_write()
        assert await all_connections(dal) == 3
        return [(name, task.cancelled()) for name, task in zip(names, tasks, strict=True)]

    outcome = asyncio.run(main())
    rows = outside.rows()[len(before) :]
    for name, cancelled in outcome:
        own = [row.split()[1] for row in rows if row.split()[0] == name]
        allowed = [[], ["1", "2", "3"], ["1", "2", "3", "4"]] if cancelled else [list("1234")]
        assert own in allowed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_in_a_forked_process_a_layer_says_that_it_is_of_no_use(path, outside):
    """The layer's threads do not exist there, and waiting for them would never end."""

    async def use(layer: DataAccessLayer, value: str) -> None:
        await layer.execute(INSERT, [value])

    async def use_another() -> None:
        async with DataAccessLayer(Counting(path)) as own:
            await use(own, "child")

    layer = DataAccessLayer(Counting(path))
    asyncio.run(use(layer, "parent"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(ConnectionIsClosed, match="make one after it"):
                asyncio.run(asyncio.wait_for(use(layer, "lost"), 60))
            asyncio.run(asyncio.wait_for(layer.close(), 60))
            asyncio.run(use_another())
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    asyncio.run(use(layer, "parent again"))
    asyncio.run(layer.close())
    assert outside.rows() == ["parent", "child", "parent again"]


async def test_several_statements_are_one(path):
    """All are executed or none, also inside a transaction that continues."""
    async with DataAccessLayer(LibSQLAdapter(path, KEY)) as dal:
        await dal.execute_all([
            ("CREATE TABLE pairs (n INTEGER PRIMARY KEY)", []),
            ("INSERT INTO pairs VALUES (?)", [1]),
        ])  # fmt: skip
        twice = [("INSERT INTO pairs VALUES (?)", [2]), ("INSERT INTO pairs VALUES (?)", [1])]
        with pytest.raises(ConstraintViolated):
            await dal.execute_all(twice)
        async with dal.transaction():
            with pytest.raises(ConstraintViolated):
                await dal.execute_all(twice)
            await dal.execute("INSERT INTO pairs VALUES (3)")
        with pytest.raises(InvalidStatement):
            await dal.execute_all([("COMMIT", [])])
        assert await dal.fetch_all("SELECT n FROM pairs ORDER BY n") == [{"n": 1}, {"n": 3}]
