"""Simulated devices that share a folder, with loss, wrong clocks, crashes and old backups."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import random
import shutil
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

import orjson

from aico_lab.errors import ConstraintViolated, DeviceRevoked, InvalidValue, UnknownName
from aico_lab.federation import bundles, conflicts, epochs, replaced
from aico_lab.federation.bundles import FileName, Refused, parse_name
from aico_lab.federation.receiving import Receiver
from aico_lab.federation.rows import Version, order, physical
from aico_lab.federation.syncing import Federation
from aico_lab.schema import CORE, SchemaRegistry, SchemaVersion, register_schema
from tests.databases import with_core_schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

HOUR = 3_600_000
SKEWS = (0, 0, 0, 3 * HOUR, -3 * HOUR, 87_600 * HOUR, -175_200 * HOUR)
START = 1_700_000_000_000
CHOSEN = ["memories", "conversations", "summaries", "personality", "stamps"]
_RAW = "SELECT CAST(content AS BLOB) FROM messages WHERE message_id = ?"
DATE = "2024-05-01T12:00:{:02d}.{:06d}Z"


STAMPS = {
    1: SchemaVersion(
        version=1,
        name="Stamps",
        description="The stamps that people collect.",
        sql_statements=[
            "CREATE TABLE stamps_owned (stamp_id TEXT PRIMARY KEY NOT NULL, motif TEXT)",
            "CREATE TABLE stamps_local (id INTEGER PRIMARY KEY)",
        ],
        rollback_statements=["DROP TABLE stamps_owned", "DROP TABLE stamps_local"],
        tracked={"stamps_owned": ("stamp_id",)},
    ),
    2: SchemaVersion(
        version=2,
        name="Traded stamps",
        description="What a stamp is worth, and who got it.",
        sql_statements=[
            "ALTER TABLE stamps_owned ADD COLUMN worth REAL NOT NULL DEFAULT 1.5",
            """CREATE TABLE stamps_traded (
                trade_id TEXT PRIMARY KEY NOT NULL,
                stamp_id TEXT NOT NULL REFERENCES stamps_owned (stamp_id) ON DELETE CASCADE
            )""",
        ],
        rollback_statements=[
            "DROP TABLE stamps_traded", "ALTER TABLE stamps_owned DROP COLUMN worth",
        ],
        tracked={"stamps_owned": ("stamp_id",), "stamps_traded": ("trade_id",)},
    ),
}  # fmt: skip
"""Two versions of a federated plugin."""


MOODS = SchemaVersion(
    version=2,
    name="Moods",
    description="The mood of a memory.",
    sql_statements=["ALTER TABLE memories ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'"],
    rollback_statements=["ALTER TABLE memories DROP COLUMN mood"],
    tracked={"memories": ("memory_id",)},
)
"""A newer version of a class of the core schemas."""


@functools.cache
def program(*, has_moods: bool, stamps: int) -> SchemaRegistry:
    """Return the schemas that a program knows: with the newer core, and versions of the plugin."""
    registry = SchemaRegistry()
    registry._schemas |= CORE._schemas
    if has_moods:
        memories = CORE["memories"]
        versions = {**memories.versions, 2: MOODS}
        registry._schemas["memories"] = dataclasses.replace(memories, versions=versions)
    made = {number: STAMPS[number] for number in range(1, stamps + 1)}
    register_schema("stamps", "plugin", federated=True, registry=registry)(made)
    return registry


NEWEST = program(has_moods=True, stamps=2)


class Crash(BaseException):
    """The process ends before a statement."""


class Node:
    """One device: a database, a folder of bundles, and a clock."""

    def __init__(self, world: World, name: str, key: str | None) -> None:
        self.world, self.name, self.key = world, name, key
        self.home = world.root / name
        self.home.mkdir()
        self.adapter = with_core_schemas(self.home / "lab.db", key)
        self.skew = world.rng.choice(SKEWS)
        self.fuse: int | None = None
        self.saved: tuple[Path, list[tuple[str, str]], dict[str, str]] | None = None
        self.journal: list[tuple[str, str]] = []
        self.raws: dict[str, bytes] = {}  # of messages, which no bundle can have
        self.texts: dict[str, str] = {}  # of messages, written here and in no bundle yet
        self.is_revoked = self.is_restored = False
        self.connect()
        self.keys = self.federation.create_keys()

    def connect(self) -> None:
        self.connection = self.adapter.connect()
        ready = self.connection._ready

        def counted(sql: str) -> Any:
            if self.fuse is not None:
                self.fuse -= 1
                if self.fuse <= 0:
                    self.fuse = None
                    raise Crash
            return ready(sql)

        self.connection._ready = counted
        self.world.prepare(self.connection)
        self.boot()

    def boot(self) -> None:
        self.federation = Federation(self.connection, self.home / "federation")
        self.federation.replica.now = lambda: self.now

    @property
    def now(self) -> int:
        return max(0, self.world.now + self.skew)

    @contextlib.contextmanager
    def editing(self):
        """Date the changes of the block by the device's clock."""
        with self.connection.transaction():
            before = self.one("SELECT coalesce(max(seq), 0) FROM change_log")
            yield
            self.connection.execute(
                "UPDATE change_log SET at = CAST(? AS INTEGER) WHERE seq > ?",
                [str(self.now), before],
            )

    def one(self, sql: str, parameters: Iterable[Any] = ()) -> Any:
        row = self.connection.fetch_one(sql, [*parameters])
        return row[0] if row else None

    def save(self) -> None:
        self.connection.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
        path = self.home / "saved.db"
        shutil.copyfile(self.adapter.path, path)
        self.saved = (path, list(self.journal), dict(self.texts))
        self.raws_saved = dict(self.raws)

    def restore(self) -> bool:
        if self.saved is None:
            return False
        self.world._note_queued(self)
        self.is_restored = True
        self.connection.close()
        for end in ("-wal", "-shm"):
            self.adapter.path.with_name(f"lab.db{end}").unlink(missing_ok=True)
        shutil.copyfile(self.saved[0], self.adapter.path)
        self.journal, self.texts = list(self.saved[1]), dict(self.saved[2])
        self.raws = dict(self.raws_saved)
        if self.world.rng.random() < 0.3:  # the bundles are restored as well, or lost
            shutil.rmtree(self.home / "federation", ignore_errors=True)
        self.connect()
        return True

    # Versions of the schema

    @property
    def has_moods(self) -> bool:
        """Whether the tables of a core class are of the newer version."""
        return bool(self.one("SELECT 1 FROM pragma_table_info('memories') WHERE name = 'mood'"))

    @property
    def stamps(self) -> int:
        """The version of the plugin, or 0 if it is not active."""
        return self.one("SELECT version FROM schema_metadata WHERE schema_name = 'stamps'") or 0

    def migrate(self) -> None:
        """Bring the tables of a core class to the newer version."""
        program(has_moods=True, stamps=2).apply_core_schemas(self.connection)
        self.boot()

    def activate(self, version: int) -> None:
        """Bring the plugin to a version."""
        if self.stamps < version:
            known = program(has_moods=self.has_moods, stamps=version)
            known.apply_plugin_schema("stamps", self.connection)
            self.boot()

    def deactivate(self) -> None:
        """Remove the plugin's tables."""
        if self.stamps:
            known = program(has_moods=self.has_moods, stamps=2)
            known.remove_plugin_schema("stamps", self.connection)
            self.boot()

    def contents(self, table: str) -> dict[str, tuple[Any, ...]]:
        spec = self.federation.replica.tables[table]
        from aico_lab.federation.tables import select_key

        keys = [k for (k,) in self.connection.fetch_all(
            f"SELECT {select_key(spec, table)} FROM {table}")]  # fmt: skip
        return physical(self.connection, spec, keys)[0]


class World:
    """Devices, and the folder between them."""

    def __init__(
        self,
        root: Path,
        seed: int,
        *,
        steps: int = 60,
        key: str | None = None,
        prepare: Callable[[Any], None] = lambda _: None,
        schemas: bool = True,
    ) -> None:
        """Make the devices.

        Args:
            root: A folder.
            seed: Decides what happens.
            steps: How much happens.
            key: The key of the databases; None leaves them unencrypted.
            prepare: Called with every opened database.
            schemas: Whether devices have different versions of schemas, which takes longer.
        """
        self.root, self.rng, self.steps, self.key = root, random.Random(seed), steps, key
        self.prepare, self.schemas = prepare, schemas
        self.now = START
        self.with_faults = True
        self.folder = root / "shared"
        self.folder.mkdir(parents=True)
        self.count: collections.Counter[str] = collections.Counter()
        self.serial = 0
        self.published: set[tuple[str, str]] = set()
        self.unpublished: set[tuple[str, str]] = set()
        self.ever_gone: set[str] = set()
        self.gone: set[str] = set()
        self.brought_back: set[str] = set()
        self.queued: set[str] = set()
        self.where: dict[str, tuple[str, str]] = {}
        self.preferences_set = 0
        devices = self.rng.choice([2, 3, 3, 4])
        self.nodes = [Node(self, f"d{n}", key) for n in range(devices)]
        with mock.patch.object(SchemaRegistry, "default", NEWEST):
            for node in self.rng.sample(self.nodes, self.rng.randrange(devices)):
                self.change_schema(node)
        self.nodes[0].federation.begin("d0")
        for node in self.nodes[1:]:
            self.join(node)
        self.aside = random.Random(seed)
        with self.beside():
            self.listener = Node(self, "listener", key)
            self.join(self.listener, level=1)

    @contextlib.contextmanager
    def beside(self):
        """Let chance decide in the block without changing what it decides later."""
        chance, self.rng = self.rng, self.aside
        try:
            yield
        finally:
            self.rng = chance

    def join(self, node: Node, level: Literal[1, 2] = 2) -> None:
        invitation = self.nodes[0].federation.invite(node.keys, node.name, level=level)
        node.federation.join(json.loads(json.dumps(invitation)))

    # What people do

    def edit(self, node: Node) -> None:  # noqa: PLR0912
        r, connection = self.rng, node.connection
        date = DATE.format(self.serial % 60, self.serial)
        user, channel = f"u{r.randrange(4)}", f"c{r.randrange(3)}"
        self.serial += 1
        new = f"{node.name}-{self.serial}"
        texts = {}
        kinds = {
            "message": 20, "edit": 20, "delete": 8, "user": 6, "delete user": 2, "preference": 10,
            "delete preference": 3, "memory": 6, "profile": 3, "segment": 4, "feedback": 4,
            "rename": 4, "delete channel": 1, "edit memory": 4, "import": 3, "mood": 4,
            "stamp": 6, "edit stamp": 4, "delete stamp": 1,
        }  # fmt: skip
        what = r.choices(list(kinds), list(kinds.values()))[0]
        done = []
        with node.editing():
            has_user = node.one("SELECT 1 FROM users WHERE user_id = ?", [user])
            has_channel = node.one("SELECT 1 FROM channels WHERE channel_id = ?", [channel])
            run = connection.execute
            if what in {
                "message", "preference", "memory", "profile", "feedback", "segment", "import"
            }:  # fmt: skip
                if not has_user:
                    run("INSERT INTO users VALUES (?, ?, ?, NULL)", [user, new, date])
                if not has_channel:
                    run(
                        "INSERT INTO channels (channel_id, name, created_at) VALUES (?, ?, ?)",
                        [channel, new, date],
                    )
            match what:
                case "import":  # the same file on several devices
                    for _ in range(3):
                        message = f"file-{r.randrange(12)}"
                        if not node.one("SELECT 1 FROM messages WHERE message_id = ?", [message]):
                            self._message(node, message, channel, None, message, DATE.format(0, 0))
                case "message":
                    for at in range(r.randrange(1, 6)):
                        message = f"m-{new}-{at}"
                        self._message(node, message, channel, user, f"{r.random()} é😀", date)
                        self.where[message] = (channel, user)
                        done.append(("in", message))
                case "edit" | "delete":
                    messages = node.one("SELECT count(*) FROM messages")
                    skipped = r.randrange(3 if r.random() < 0.7 else 1 + messages)
                    message = node.one(
                        "SELECT message_id FROM messages ORDER BY id LIMIT 1 OFFSET ?", [skipped]
                    )
                    if message and what == "edit":
                        texts[message] = f"edited {r.random()}"
                        run(
                            "UPDATE messages SET content = ?, metadata = ? WHERE message_id = ?",
                            [texts[message], r.choice([None, '{"a":1}']), message],
                        )
                    elif message:
                        run("DELETE FROM messages WHERE message_id = ?", [message])
                        self.ever_gone.add(message)
                        if message.startswith("m-"):
                            done.append(("out", message))
                case "user":
                    run("UPDATE users SET name = ? WHERE user_id = ?", [new, user])
                case "delete user" if user != "u0":
                    if not has_user:  # it comes and goes, which is no deletion for others
                        run("INSERT INTO users VALUES (?, ?, ?, NULL)", [user, new, date])
                    self._delete_all(node, "users", "user_id", user)
                case "delete channel" if channel != "c0":
                    self._delete_all(node, "channels", "channel_id", channel)
                case "preference":
                    run(
                        "INSERT INTO preferences VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                        "value = excluded.value, updated_at = excluded.updated_at",
                        [user, f"k{r.randrange(3)}", str(r.randrange(100)), date],
                    )
                case "delete preference":
                    run(
                        "DELETE FROM preferences WHERE user_id = ? AND preference_key = ?",
                        [user, f"k{r.randrange(3)}"],
                    )
                case "memory":
                    run(
                        "INSERT INTO memories (memory_id, user_id, content, memory_type, "
                        "importance, created_at) VALUES (?, ?, ?, 'fact', ?, ?)",
                        [f"mem-{new}", user, f"remember {r.random()}", r.random(), date],
                    )
                case "edit memory":
                    run(
                        "UPDATE memories SET content = ? "
                        "WHERE memory_id = (SELECT max(memory_id) FROM memories)",
                        [f"again {r.random()}"],
                    )
                case "profile":
                    run(
                        "UPDATE personality_profiles SET active_until = ? "
                        "WHERE user_id = ? AND active_until IS NULL",
                        [date, user],
                    )
                    run(
                        "INSERT INTO personality_profiles (profile_id, user_id, version, traits, "
                        "active_from) VALUES (?, ?, 1, '{}', ?)",
                        [f"p-{new}", user, date],
                    )
                case "segment":
                    run(
                        "INSERT INTO conversation_segments (segment_id, channel_id, started_at, "
                        "ended_at, summary) VALUES (?, ?, ?, ?, 's')",
                        [f"s-{new}", channel, date, date],
                    )
                    run(
                        "INSERT INTO segment_messages SELECT ?, message_id, id FROM messages "
                        "WHERE channel_id = ? ORDER BY id DESC LIMIT 3",
                        [f"s-{new}", channel],
                    )
                case "feedback":
                    run(
                        "INSERT INTO feedback_events (event_id, user_id, message_id, kind, name, "
                        "value, timestamp) VALUES (?, ?, (SELECT max(message_id) FROM messages), "
                        "'rating', 'witty', 1.0, ?)",
                        [f"f-{new}", user, date],
                    )
                case "mood" if node.has_moods:
                    run(
                        "UPDATE memories SET mood = ? "
                        "WHERE memory_id = (SELECT min(memory_id) FROM memories)",
                        [r.choice(["calm", "happy"])],
                    )
                case "stamp" if node.stamps:
                    run("INSERT INTO stamps_owned (stamp_id, motif) VALUES (?, 'blue')", [new])
                    if node.stamps == 2:
                        run(
                            "INSERT INTO stamps_traded VALUES "
                            "(?, (SELECT min(stamp_id) FROM stamps_owned))",
                            [new],
                        )
                case "edit stamp" if node.stamps:
                    column = r.choice(["motif", "worth"]) if node.stamps == 2 else "motif"
                    run(
                        f"UPDATE stamps_owned SET {column} = ? "
                        "WHERE stamp_id = (SELECT min(stamp_id) FROM stamps_owned)",
                        [r.choice([1.5, r.random()]) if column == "worth" else new],
                    )
                case "delete stamp" if node.stamps:
                    run(
                        "DELETE FROM stamps_owned "
                        "WHERE stamp_id = (SELECT min(stamp_id) FROM stamps_owned)"
                    )
                case "rename":
                    run("UPDATE channels SET name = ? WHERE channel_id = ?", [new, channel])
        # A deletion that is not sent lasts until another device changes the row.
        is_sent = "conversations" in node.federation.replica.own_classes
        node.journal += [(what, one) for what, one in done if is_sent or what == "in"]
        self._note_texts(node, texts)
        if "preference" in what:
            self.preferences_set += 1

    def listen(self) -> None:
        """Let the device that only receives exchange files, or change or add a message."""
        node, r = self.listener, self.rng
        if r.random() < 0.5:
            self.by_folder(node)
            return
        message = node.one("SELECT message_id FROM messages ORDER BY random()")
        self.serial += 1
        text = f"own {self.serial}."
        with node.editing():
            if message and r.random() < 0.7:
                node.connection.execute(
                    "UPDATE messages SET content = ? WHERE message_id = ?", [text, message]
                )
            elif channel := node.one("SELECT channel_id FROM channels ORDER BY random()"):
                user = node.one("SELECT user_id FROM users ORDER BY random()")
                message = f"own-{self.serial}"
                self._message(node, message, channel, user, text, DATE.format(0, self.serial))
        if message:
            self._note_texts(node, {message: text})

    def write_raw(self, node: Node) -> None:
        """Let another program write a text that no bundle can have."""
        # Of a new row the others would know nothing but what refers to it.
        if message := node.one(
            "SELECT message_id FROM messages WHERE message_id IN "
            "(SELECT row_key FROM sync_rows WHERE table_name = 'messages') ORDER BY random()"
        ):
            self.serial += 1
            raw = f"raw {self.serial}.".encode() + self.aside.choice([b"\0", b"\xff"])
            with node.editing():
                node.connection.execute(
                    "UPDATE messages SET content = CAST(? AS TEXT) WHERE message_id = ?",
                    [raw, message],
                )
            node.raws[message] = raw
            self._note_texts(node, {})

    def _check_raws(self, node: Node) -> None:
        """Check that a text that no bundle can have is in the row, or among its conflicts."""
        for message, raw in list(node.raws.items()):
            if node.one(_RAW, [message]) == raw:
                continue
            found = node.connection.fetch_all(
                "SELECT content, state FROM sync_conflicts WHERE row_key = ? "
                "AND table_name = 'messages' AND instr(loser, ?)",
                [message, node.federation.replica.unsent_stream],
            )
            assert any(
                state == "decided" or conflicts.kept_values(content).get("content") == raw
                for content, state in found
            ), ("lost raw text", node.name, message, raw)
            self.count["raws"] += 1
            del node.raws[message]

    def mend_raws(self) -> None:
        """Let people give all rows texts that bundles can have."""
        for node in [*self.nodes, self.listener]:
            with node.editing():
                node.connection.execute(
                    "UPDATE messages SET content = 'mended' WHERE content GLOB 'raw [0-9]*'"
                )
            node.raws.clear()

    def _note_texts(self, node: Node, texts: dict[str, str]) -> None:
        """Note what a device wrote, and forget what it has changed or deleted since."""
        node.texts = {
            message: text
            for message, text in (node.texts | texts).items()
            if node.one(_RAW, [message]) == text.encode()
        }
        node.raws = {
            message: raw for message, raw in node.raws.items() if node.one(_RAW, [message]) == raw
        }

    def _check_texts(self, node: Node) -> None:
        """Check that what a device wrote is in the row, among its conflicts, or in a bundle."""
        replica = node.federation.replica

        def is_sent(text: str) -> bool:
            return any(
                text.encode() in row
                for name in map(parse_name, replica.spool.names())
                if name.device == replica.device_id
                for row in Receiver(replica).open(name).rows()
            )

        for message, text in list(node.texts.items()):
            if node.one(_RAW, [message]) != text.encode():
                assert node.one(
                    "SELECT 1 FROM sync_conflicts WHERE table_name = 'messages' AND "
                    "row_key = ? AND (instr(content, ?) OR (state = 'decided' "
                    "AND instr(loser, ?)))",
                    [message, text, replica.device_id],
                ) or is_sent(text), ("lost text", node.name, message, text)
                self.count["texts"] += 1
            elif "conversations" not in replica.own_classes and not is_sent(text):
                continue
            del node.texts[message]

    def _delete_all(self, node: Node, table: str, column: str, key: str) -> None:
        """Delete a user or channel, and so its messages, of which the device knows some."""
        known = node.connection.fetch_all(
            f"SELECT message_id FROM messages WHERE {column} = ?", [key]
        )
        self.ever_gone |= {message for (message,) in known}
        was_sent = "SELECT 1 FROM sync_rows WHERE table_name = ? AND row_key = ?"
        if node.is_restored or node.one(was_sent, [table, key]):
            self.gone.add(key)
        node.connection.execute(f"DELETE FROM {table} WHERE {column} = ?", [key])

    def _note_queued(self, node: Node) -> None:
        """Note the messages that a device keeps for a person, before it is set back."""
        for (message,) in node.connection.fetch_all(
            "SELECT row_key FROM sync_conflicts WHERE table_name = 'messages' AND kind = 'deleted'"
        ):
            self.queued.add(message)

    def _message(  # noqa: PLR0917
        self, node: Node, message: str, channel: str, user: str | None, content: str, date: str
    ) -> None:
        node.connection.execute(
            "INSERT INTO messages (message_id, channel_id, conversation_id, user_id, role, "
            "content, timestamp, sentiment_score) VALUES (?, ?, ?, ?, 'user', ?, ?, ?)",
            [message, channel, channel, user, content, date,
             self.rng.choice([None, 0.5, -1.0, self.rng.uniform(-1, 1)])],
        )  # fmt: skip

    # How bundles travel

    def receive(self, node: Node, files: list[tuple[str, bytes]], *, lossy: bool) -> None:
        spool, r = node.federation.replica.spool, self.rng
        for name, content in files:
            with contextlib.suppress(Refused):
                if lossy and r.random() < 0.3:
                    continue  # not here yet
                if lossy and r.random() < 0.05:
                    self.count["truncated"] += 1
                    spool.take(name, content[: r.randrange(len(content))])
                    continue
                spool.take(name, content)
                if lossy and r.random() < 0.05:
                    spool.take(name, content)
                    spool.take(name.replace(".age", " (conflicted copy).age"), content)

    def work(self, node: Node) -> None:
        node.federation.take_in()
        if node.federation.replica.level(node.federation.replica.device_id) == 2:
            node.federation.seal()
        self._check_texts(node)
        self._check_raws(node)

    def resolve(self, node: Node) -> None:
        """Let a person decide a conflict."""
        if (found := node.federation.conflicts()) and not node.is_revoked:
            keep = self.rng.choice(["mine", "theirs"])
            # By a change meanwhile, or because the row it refers to is on another device.
            with contextlib.suppress(ConstraintViolated, UnknownName, InvalidValue):
                conflict = self.rng.choice(found)
                node.federation.resolve(conflict.number, keep)
                self.brought_back.add(conflict.key)
                self.count["resolved"] += 1
            self._note_texts(node, {})

    def choose(self, held: str, classes: Iterable[str]) -> None:
        """Let one device hold some classes or not, or each again."""
        first, others = self.nodes[0], [one for one in self.nodes[1:] if not one.is_revoked]
        chosen = dict.fromkeys(set(classes) & {*first.federation.replica.classes}, held)
        for node in others if held == "full" else others[-1:]:
            first.federation.set_policy(node.keys.device_id, **chosen)
            self.count[held] += 1

    def change_schema(self, node: Node) -> None:
        """Let the program of a device become a newer one, or a person (de)activate the plugin."""
        if not self.schemas:
            return
        self.count["schemas"] += 1
        match self.rng.randrange(6):
            case 0 | 1:
                node.migrate()
            case 2:
                node.activate(1)
            case 3 | 4:
                node.activate(2)
            case _:
                node.deactivate()

    def compact(self, node: Node) -> None:
        with contextlib.suppress(InvalidValue, DeviceRevoked):
            self.count["compacted"] += node.federation.compact().replaced

    def guarded(self, node: Node, do: Callable[[], None]) -> bool:
        if self.with_faults and self.rng.random() < 0.25:
            node.fuse = self.rng.randrange(1, 400)
        try:
            do()
        except Crash:
            self.count["crashes"] += 1
            node.boot()
            return False
        finally:
            node.fuse = None
        return True

    def by_folder(self, node: Node, *, lossy: bool = True) -> None:
        spool = node.federation.replica.spool
        here = {f"{p.parent.name}/{p.name}": p for p in self.folder.glob("*/*.age")}
        gone = replaced.names(node.federation.replica)
        missing = sorted(here.keys() - spool.names() - gone)
        files = [(name, here[name].read_bytes()) for name in missing]
        self.rng.shuffle(files)
        self.receive(node, files, lossy=lossy)
        if self.guarded(node, lambda: self.work(node)):
            gone = replaced.names(node.federation.replica)
            for name in spool.names() - here.keys() - gone:
                path = self.folder / name
                path.parent.mkdir(exist_ok=True)
                shutil.copyfile(spool.folder / name, path)
            for name in here.keys() & gone:
                here[name].unlink()
                self.count["removed"] += 1
            if not node.is_revoked and "conversations" in node.federation.replica.own_classes:
                for what, message in node.journal:
                    done = self.published if what == "in" else self.unpublished
                    done.add((message, node.name))
                node.journal.clear()

    def by_lan(self, a: Node, b: Node) -> None:
        for x, y in ((a, b), (b, a)):
            if not self.guarded(x, lambda x=x: self.work(x)):
                return
            names = x.federation.replica.spool.names() - y.federation.replica.spool.names()
            names -= replaced.names(y.federation.replica)
            files = [(name, x.federation.replica.spool.read(name)) for name in sorted(names)]
            self.rng.shuffle(files)
            self.receive(y, files, lossy=True)

    def run(self) -> collections.Counter[str]:
        with mock.patch.object(SchemaRegistry, "default", NEWEST):
            return self._run()

    def _run(self) -> collections.Counter[str]:  # noqa: PLR0912
        r = self.rng
        revoked_at = r.randrange(self.steps) if r.random() < 0.5 else None
        joined_at = r.randrange(self.steps) if r.random() < 0.5 else None
        for step in range(self.steps):
            self.now += r.choice([0, 0, 1, 50, 1000, HOUR])
            node, x = r.choice(self.nodes), r.random()
            if self.aside.random() < 0.1:
                with self.beside():
                    self.listen()
            if self.aside.random() < 0.05:
                with self.beside():
                    self.write_raw(self.aside.choice([*self.nodes, self.listener]))
            if x < 0.6:
                self.guarded(node, lambda node=node: self.edit(node))
            elif x < 0.8:
                self.by_folder(node)
            elif x < 0.92:
                other = r.choice(self.nodes)
                if other is not node:
                    self.by_lan(node, other)
            elif x < 0.94:
                node.save()
            elif x < 0.965:
                self.guarded(node, lambda node=node: self.compact(node))
            elif x < 0.975:
                self.resolve(node)
            elif x < 0.98:
                self.choose("none", r.sample(CHOSEN, r.choice([1, 2])))
            elif x < 0.99:
                self.change_schema(node)
            else:
                self.count["restored"] += node.restore()
            if step == revoked_at:
                first, victim = self.nodes[0], self.nodes[-1]
                self.by_folder(first)
                first.federation.revoke(victim.keys.device_id)
                first.save()  # nobody restores a backup from before a revocation: see the README
                victim.is_revoked, victim.journal = True, []
                self.count["revoked"] += 1
            if step == joined_at:
                late = Node(self, f"d{len(self.nodes)}", self.key)
                self.join(late)
                self.nodes[0].save()
                self.nodes.insert(1, late)
                self.count["joined"] += 1
        self.cross()
        for node in self.nodes:
            self.resolve(node)
        self.mend_raws()
        self.settle()
        self.check()
        self._check_listener()
        return self.count

    def cross(self) -> None:
        """Let a device write of users whom another one deletes without knowing of that.

        One of the users has come and gone there, which is no deletion.
        """
        first, *_, other = [*self.nodes[:1], *(one for one in self.nodes if not one.is_revoked)]
        user_sql = "INSERT INTO users VALUES (?, 'x', ?, NULL) ON CONFLICT DO NOTHING"
        date = DATE.format(0, 0)
        for user in ("u1", "passing") if other is not first else ():
            message = f"m-crossing-{user}"
            with other.editing():
                other.connection.execute(user_sql, [user, date])
                other.connection.execute(
                    "INSERT INTO channels (channel_id, name, created_at) VALUES ('c0', 'x', ?) "
                    "ON CONFLICT DO NOTHING",
                    [date],
                )
                self._message(other, message, "c0", user, "x", date)
            self.where[message] = ("c0", user)
            other.journal.append(("in", message))
            with first.editing():
                first.connection.execute(user_sql, [user, date])
                self._delete_all(first, "users", "user_id", user)
        change = "UPDATE messages SET content = ? WHERE message_id = ?"
        both = first.contents("messages").keys() & self.listener.contents("messages").keys()
        for message in sorted(both)[:3]:
            for node in (first, self.listener):
                text = f"crossed on {node.name}"
                with node.editing():
                    node.connection.execute(change, [text, message])
                self._note_texts(node, {message: text})
        for node in [self.listener] if other is first else [other, self.listener]:
            self.write_raw(node)
            with first.editing():
                for message in node.raws:
                    first.connection.execute(change, ["changed elsewhere", message])
            self._note_texts(first, {})
            for one in (first, node):
                self.by_folder(one, lossy=False)

    def settle(self) -> None:
        self.with_faults = False
        live = [node for node in self.nodes if not node.is_revoked]
        for node in (*live, *live):  # what is of a newer schema waits
            self.by_folder(node, lossy=False)
        for node in live if self.schemas else ():
            node.migrate()
            node.activate(2)
        self.choose("full", CHOSEN)
        for turn in range(30):
            before = len(list(self.folder.glob("*/*")))
            for node in live:
                self.by_folder(node, lossy=False)
            if len(list(self.folder.glob("*/*"))) == before and turn > 2:
                break
            for node in self.nodes:
                if node.is_revoked and turn == 1:  # it goes on writing, and everybody knows
                    node.connection.execute(
                        "INSERT INTO users VALUES ('after', 'x', 'x', NULL) ON CONFLICT DO NOTHING"
                    )
                    node.federation.seal()
                    self.by_folder(node, lossy=False)
        else:
            raise AssertionError("it does not come to rest")
        before = len(list(self.folder.glob("*/*")))
        for node in live:
            self.by_folder(node, lossy=False)
        assert len(list(self.folder.glob("*/*"))) == before, "echo"

    def check(self) -> None:
        live = [node for node in self.nodes if not node.is_revoked]
        tables = live[0].federation.replica.tables
        for node in live:
            parked = node.connection.fetch_all(
                "SELECT table_name, row_key, reason FROM sync_parked LIMIT 3"
            )
            assert not parked, ("parked", node.name, parked)
            # Of a restored device, bundles that it lost may have been on no other one.
            restored = {one.keys.device_id for one in self.nodes if one.is_restored}
            missing = [
                one for one in node.federation.status().missing if one.device_id not in restored
            ]
            assert not missing, ("missing", node.name, missing)
            assert node.connection.fetch_all("PRAGMA foreign_key_check") == []
            wrong = node.connection.fetch_all(
                "SELECT channel_id, message_count, (SELECT count(*) FROM messages AS m "
                "WHERE m.channel_id = c.channel_id) AS n FROM channels AS c "
                "WHERE message_count IS NOT n"
            )
            assert not wrong, ("counts", node.name, wrong)
        first, *others = live
        contents = {name: first.contents(name) for name in tables}
        for other in others:
            for name in tables:
                theirs = other.contents(name)
                assert theirs == contents[name], ("diverged", name, other.name, [
                    (k, contents[name].get(k), theirs.get(k))
                    for k in sorted(contents[name].keys() | theirs.keys())
                    if contents[name].get(k) != theirs.get(k)][:2])  # fmt: skip
        chains = [
            set(node.connection.fetch_all("SELECT stream, n, hash FROM sync_chain"))
            for node in live
        ]
        assert all(chain == chains[0] for chain in chains), "chains"
        self._check_against_bundles(first, chains[0], contents)
        assert first.one("SELECT count(*) FROM preference_changes") <= self.preferences_set, (
            "history"
        )
        assert not first.one("SELECT 1 FROM users WHERE user_id = 'after'"), "revoked device heard"
        trusted = {node.name for node in live}
        there = contents["messages"].keys()
        present = {message for message, name in self.published if name in trusted}
        lost = present - self.ever_gone - there
        for node in self.nodes:
            self._note_queued(node)
        unasked = {one for one in lost if not self.gone & {*self.where[one]}} | lost - self.queued
        assert not unasked, ("lost", sorted(unasked)[:5])
        self.count["queued"] += len(lost)
        self._check_decisions(live)
        absent = {message for message, name in self.unpublished if name in trusted}
        absent -= self.brought_back
        assert not absent & there, ("resurrected", sorted(absent & there)[:5])
        for node in self.nodes:
            if node.is_revoked:
                for class_ in ("people", "conversations"):
                    newest = first.one(
                        "SELECT max(epoch) FROM sync_epochs WHERE class = ?", [class_]
                    )
                    assert not node.one(
                        "SELECT 1 FROM sync_epochs WHERE epoch = ? AND identity IS NOT NULL",
                        [newest],
                    ), "a revoked device has a new key"
        self.count["conflicts"] += sum(
            node.one("SELECT count(*) FROM sync_conflicts") for node in live
        )
        self.count["bundles"] += len(chains[0])

    def _check_listener(self) -> None:
        """Check that the device that only receives knows the rows, and has lost nothing."""
        node, first = self.listener, self.nodes[0]
        self.by_folder(node, lossy=False)
        node.migrate()
        node.activate(2)
        self.by_folder(node, lossy=False)
        known = "SELECT table_name, row_key, digest FROM sync_rows WHERE cl % 2 = 1"
        if self.count["revoked"]:  # it cannot tell the others what it had taken in before it knew
            return
        here, there = ({*one.connection.fetch_all(known)} for one in (node, first))
        assert here == there, ("listener", sorted(here ^ there)[:4])

    def _check_decisions(self, live: list[Node]) -> None:
        """Check that no device still asks about a conflict that was decided on another one."""
        found = [
            row
            for node in live
            for row in node.connection.fetch_all(
                "SELECT table_name, row_key, loser, kind, state, content, decided_at "
                "FROM sync_conflicts"
            )
        ]
        # Those of personalities also end when one of the versions is changed, undecided.
        decided = {row[:3] for row in found if row[6]}
        left = {row[:3] for row in found if row[4] == "open" and row[3] != "personality"}
        assert not decided & left, ("undecided", sorted(decided & left)[:5])
        assert not [row for row in found if row[4] == "decided" and row[5] != "{}"]
        self.count["decided"] += len(decided)

    def _check_against_bundles(
        self, node: Node, chain: set[Any], contents: dict[str, dict[str, Any]]
    ) -> None:
        """Compare the tables with the maximum over all bundles, found without `applying`."""
        identities = {i for n in self.nodes for i in epochs.identities(n.federation.replica)}
        keys = {n.keys.device_id: bytes.fromhex(n.keys.public_key) for n in self.nodes}
        best: dict[tuple[str, str], tuple[Version, Any]] = {}
        tables = node.federation.replica.tables
        for path in self.folder.glob("*/*.age"):
            name: FileName = parse_name(f"{path.parent.name}/{path.name}")
            if tuple(name) not in chain:
                continue
            opened = bundles.unpack(name, path.read_bytes(), [*identities], keys[name.device])
            for table, part in orjson.loads(opened.body).items():
                assert set(part["columns"]) <= set(tables[table].columns)
            schema = node.federation.replica.schema_of(opened.header.class_)
            changes = bundles.read_changes(opened, tables, schema)
            for table, rows in changes.items():
                for key, version, content in rows:
                    before = best.get((table, key))
                    if before is None or order(version) > order(before[0]):
                        best[table, key] = (version, content)
        for table, there in contents.items():
            wanted = {k: c for (t, k), (v, c) in best.items() if t == table and v.is_alive}
            assert there == wanted, ("oracle", table, [
                (k, there.get(k), wanted.get(k)) for k in sorted(there.keys() | wanted.keys())
                if there.get(k) != wanted.get(k)][:2])  # fmt: skip
