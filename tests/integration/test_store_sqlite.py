"""The SQLite store passes the contract, and keeps its own promises: folder, schema, reading."""

from __future__ import annotations

import io
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from runner.audit import merkle
from runner.audit.verify import verify_jsonl
from runner.errors import RecordError, RequestError, StateError
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.model.principal import Principal
from runner.ports import Store
from runner.stores import database, sqlite
from runner.stores.reader import open_log
from runner.stores.sqlite import SqliteStore
from runner.testing.store_contract import StoreContract


class WallClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> float:
        return time.time()


class TestContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.home = tmp_path / "state"

    def make_store(self) -> Store:
        return sqlite.create(self.home, WallClock())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


def _store(home: Path) -> SqliteStore:
    return sqlite.create(home, WallClock())


def _append(store: Store, n: int = 0) -> AuditEvent:
    with store.transaction() as transaction:
        return transaction.append(EventDraft(EventKind.RUN_DECIDED, {"n": n}, Principal(1), "r"))


def _filled(home: Path, count: int) -> list[AuditEvent]:
    with closing(_store(home)) as store:
        for n in range(count):
            _append(store, n)
        return list(store.events())


# --- the state folder


def test_the_folder_is_made_private_with_its_parents(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b" / "state"
    before = os.umask(0o002)
    try:
        _store(home).close()
    finally:
        os.umask(before)
    for folder in (home, home.parent, home / "live", home / "runs"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "runner.db").stat().st_mode) == 0o600


def test_a_relative_folder_is_taken_from_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(_store(Path("state"))) as store:
        assert store.home == tmp_path / "state"
        monkeypatch.chdir("/")
        _append(store)


def test_a_folder_with_odd_bytes_in_its_name(tmp_path: Path) -> None:
    home = tmp_path / "sp ace?mode=memory#%41\udcff"
    try:
        home.mkdir(mode=0o700)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with closing(_store(home)) as store:
        _append(store)
        assert store.verify().ok
    assert (home / "runner.db").exists()


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to(tmp_path / "real")
    with pytest.raises(StateError, match=r"is a symbolic link: set RUNNER_HOME to .*/real"):
        _store(tmp_path / "state")
    assert list((tmp_path / "real").iterdir()) == []


def test_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StateError, match="is a symbolic link"):
        _store(tmp_path / "state")


def test_a_file_is_refused(home: Path) -> None:
    home.write_text("x")
    with pytest.raises(StateError, match="is not a folder"):
        _store(home)
    with pytest.raises(StateError, match="Not a directory"):
        _store(home / "below")


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o710, 0o720])
def test_a_folder_that_is_open_to_others_is_refused(home: Path, mode: int) -> None:
    home.mkdir()
    home.chmod(mode)
    with pytest.raises(StateError, match=rf"open to others \(mode 0{mode:o}\).*chmod 700"):
        _store(home)
    home.chmod(0o700)
    _store(home).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(home: Path) -> None:
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)
    with pytest.raises(StateError, match="belongs to uid 12345 and not to you"):
        _store(home)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "state"
    home.mkdir(mode=0o500)
    with pytest.raises(StateError, match="can't be written"):
        _store(home)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StateError, match="set RUNNER_HOME to a folder that you can write"):
            _store(tmp_path / "other")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_can_not_be_made_is_refused() -> None:
    with pytest.raises(StateError, match="/proc/"):
        _store(Path("/proc/no-such-folder/state"))


@pytest.mark.parametrize(
    ("magic", "name"), [(0x6969, "NFS"), (0xFE534D42, "SMB2"), (0x01021997, "9p")]
)
def test_a_network_file_system_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, magic: int, name: str
) -> None:
    """The kernel's answer is replaced: there is no network file system on every machine."""
    monkeypatch.setattr("runner.stores.home._statfs_type", lambda path: magic)
    with pytest.raises(StateError, match=rf"network file system \({name}\)"):
        _store(home)
    assert not (home / "runner.db").exists()


def test_file_systems_are_told_apart() -> None:
    from runner.stores import home as module

    assert module._statfs_type(Path("/proc")) == 0x9FA0  # PROC_SUPER_MAGIC, statfs(2)
    assert module.network_file_system(Path("/proc")) is None
    assert module._mount_type(Path("/proc")) == "proc"


# --- the schema


def test_a_newer_schema_is_refused_and_left_alone(home: Path) -> None:
    _filled(home, 1)
    with closing(sqlite3.connect(home / "runner.db")) as db:
        db.execute("PRAGMA user_version = 99")
    for reopen in (_store, open_log):
        with pytest.raises(StateError, match=r"newer runner \(schema 99, .*upgrade runner"):
            reopen(home)


def test_another_programs_database_is_refused(home: Path) -> None:
    home.mkdir(mode=0o700)
    with closing(sqlite3.connect(home / "runner.db")) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StateError, match="not runner's: move it away"):
        _store(home)


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\x00" * 50])
def test_a_file_that_is_no_database_is_refused(home: Path, content: bytes) -> None:
    home.mkdir(mode=0o700)
    (home / "runner.db").write_bytes(content)
    with pytest.raises(StateError, match=r"runner\.db: it is .*`runner audit repair`"):
        _store(home)
    with pytest.raises(StateError):
        open_log(home)


def test_an_empty_file_is_a_log_that_was_lost(home: Path) -> None:
    """A log gets its name when it has its first event, so a kill leaves no such file."""
    home.mkdir(mode=0o700)
    (home / "runner.db").touch()
    with pytest.raises(StateError, match=r"was cut off, .*`runner audit repair`"):
        _store(home)


def test_what_a_kill_left_of_a_log_that_was_made_is_thrown_away(home: Path) -> None:
    home.mkdir(mode=0o700)
    (home / "runner.db.new").write_bytes(b"half a database")
    with closing(_store(home)) as store:
        assert store.head().size == 1
    assert not list(home.glob("runner.db.new*"))


SHIPPED = len(database.MIGRATIONS)
LATER = ("ALTER TABLE runs ADD COLUMN priority INTEGER", "CREATE TABLE later (x)")


def test_migration_keeps_every_event(home: Path) -> None:
    before = _filled(home, 5)
    sqlite._open_database(home, WallClock(), (*database.MIGRATIONS, LATER))
    with closing(sqlite3.connect(home / "runner.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SHIPPED + 1,)
        db.execute("SELECT priority FROM runs, later")
        db.execute(f"PRAGMA user_version = {SHIPPED}")  # so that this version reads it again
    with closing(_store(home)) as store:
        assert list(store.events()) == before
        assert store.verify().ok


def test_a_new_log_takes_all_migrations_at_once(home: Path) -> None:
    home.mkdir(mode=0o700)
    sqlite._open_database(home, WallClock(), (*database.MIGRATIONS, LATER))
    with closing(sqlite3.connect(home / "runner.db")) as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (1,)
        assert db.execute("PRAGMA user_version").fetchone() == (SHIPPED + 1,)


def test_a_migration_that_fails_leaves_the_old_schema(home: Path) -> None:
    before = _filled(home, 3)
    broken = (LATER[0], "CREATE TABLE runs (x)")
    with pytest.raises(StateError, match="already exists"):
        sqlite._open_database(home, WallClock(), (*database.MIGRATIONS, broken))
    with closing(_store(home)) as store:
        assert list(store.events()) == before
        _append(store)
    with closing(sqlite3.connect(home / "runner.db")) as db:
        assert "priority" not in {row[1] for row in db.execute("PRAGMA table_info(runs)")}


def test_shipped_migrations_do_not_change() -> None:
    """If this fails, add a migration instead: the ones that shipped have run on logs out there."""
    import hashlib

    found = [hashlib.sha256("\n".join(m).encode()).hexdigest() for m in database.MIGRATIONS]
    assert found == [
        "4975247e1eb934cbdc2e91d021208480c7385b634f8dd314d61581e5c6ec133a",
        "426114e3960fd0b87cbc1702034903577bff1d0968225e34c8e2b21333646d87",
        "be204a3f0cc3f4eed99d603388d4efe963aac0670418b24322dc68cb9cbbd2a4",
        "d56966eb05347d10088064f833bcad178524b275e66900b5e71eb1a44560b803",
        "03212500a0398fdf777304478dc8c6d1d1c4462c19f36d96e2073928d60f9669",
        "d32ac4d72ab9820555a873be6b283da60fee44df7e964ace6cb9d57a9d7480c3",
        "d69f09f6b59748cebb4d876744d25af1869e847759f38c96db95375b92803cb1",
        "f1bc767cbe4076b0455d9dfed2afcbe13c6ccb0fc3022b9d799316ed0c8454b5",
        "beb2ccf31098673f8aac02f9ca6f9ee785eccff8871d764f99219cc9f27701bb",
        "cad6656226c04d0c3321014493ffe7743dde3e158d6c5c6460bc718d754524ea",
        "bfdb208e96c7e0444f31ca1b82d5391bde4127a458926cf4164a32f1da89af31",
    ]


def test_the_log_is_append_only_by_mistake_too(home: Path) -> None:
    _filled(home, 2)
    with closing(sqlite3.connect(home / "runner.db")) as db:
        for statement in ("DELETE FROM events", "UPDATE events SET kind = 'x'"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)


# --- using it


def test_a_nested_transaction_is_refused_and_undoes_nothing_else(home: Path) -> None:
    with closing(_store(home)) as store:
        with pytest.raises(RecordError, match="inside another"), store.transaction():
            _append(store)
        _append(store)
        assert store.head().size == 2


def test_a_closed_store_says_so(home: Path) -> None:
    store = _store(home)
    store.close()
    for act in (store.head, store.events, store.totals, store.recover, store.transaction):
        with pytest.raises(StateError, match="is closed: open it again"):
            act()  # type: ignore[operator]


def test_a_log_that_was_replaced_is_not_written(home: Path) -> None:
    """SQLite would go on writing to the removed file, and the record would be gone."""
    with closing(_store(home)) as store:
        _append(store)
        for name in ("runner.db", "runner.db-wal", "runner.db-shm"):
            (home / name).unlink(missing_ok=True)
        with pytest.raises(RecordError, match="No such file"):
            _append(store)
        (home / "runner.db").touch()
        with pytest.raises(RecordError, match="was replaced while it was in use"):
            _append(store)


def test_a_log_held_by_another_process_is_a_record_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
    with closing(_store(home)) as store, open(home / "queue.lock") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RecordError, match=r"another process has held .*queue\.lock"):
            _append(store)
        waiting = [each for each in threading.enumerate() if each.name == "runner-queue"]
        fcntl.flock(other, fcntl.LOCK_UN)
        _append(store)
        assert store.head().size == 2
        for each in waiting:  # who was walked away from lets the lock go, and ends
            each.join(10)
            assert not each.is_alive()


def test_what_another_one_appended_is_not_missed(home: Path) -> None:
    """Each store knows where the log ended when it wrote last, and that it is not so any more."""
    with closing(_store(home)) as one, closing(_store(home)) as other:
        for n in range(12):
            _append((one, one, other)[n % 3])
            assert one.verify().ok
        assert one.head() == other.head()
        with pytest.raises(RecordError), one.transaction() as transaction:
            transaction.append(EventDraft(EventKind.RUN_ENDED, {"a": {1}}, None, "run-x"))
        _append(one)
        assert one.head().size == 14
        assert other.verify().ok


def test_output_is_kept_private(home: Path) -> None:
    with closing(_store(home)) as store:
        store.keep_output("run-1", "stderr", b"x")
        path = home / "runs" / "run-1" / "stderr"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_kept_output_follows_no_link(home: Path, tmp_path: Path) -> None:
    (tmp_path / "canary").write_bytes(b"secret")
    with closing(_store(home)) as store:
        store.keep_output("run-1", "stderr", b"x")
        (home / "runs" / "run-1" / "stdout").symlink_to(tmp_path / "canary")
        with pytest.raises(RecordError, match="could not be kept"):
            store.keep_output("run-1", "stdout", b"x")
        with pytest.raises(StateError, match="could not be read"):
            store.kept_output("run-1", "stdout")
    assert (tmp_path / "canary").read_bytes() == b"secret"


# --- reading and proving


def test_an_export_verifies_without_the_store(home: Path) -> None:
    events = _filled(home, 9)
    with closing(_store(home)) as store:
        whole, part = io.BytesIO(), io.BytesIO()
        assert store.export(whole) == 10
        assert store.export(part, start=4) == 6
        head, found = store.head(), store.verify()
    assert (found.size, found.head, found.root) == (head.size, head.last_hash, head.root)
    told = verify_jsonl(whole.getvalue().splitlines(), size=head.size, root=head.root)
    assert told == replace(found, vouched=None)  # an export has no checkpoints
    assert verify_jsonl(part.getvalue().splitlines(), start=4).head == events[-1].leaf_hash.hex()


def test_proofs_of_the_store_hold(home: Path) -> None:
    events = _filled(home, 6)
    with closing(_store(home)) as store:
        reader, root = store.reader, bytes.fromhex(store.head().root)
        for event in events:
            proof = reader.inclusion_proof(event.seq, 7)
            assert merkle.inclusion_holds(event.leaf_hash, event.seq, 7, proof, root)
        old_root = merkle.tree_of(e.leaf_hash for e in events[:3]).root
        proof = reader.consistency_proof(3, 7)
        assert merkle.consistency_holds(3, old_root, 7, root, proof)
        for act in (
            lambda: reader.inclusion_proof(7, 7),
            lambda: reader.inclusion_proof(0, 8),
            lambda: reader.consistency_proof(0, 7),
            lambda: reader.consistency_proof(3, 9),
        ):
            with pytest.raises(RequestError, match="no proof"):
                act()


def test_events_appended_while_reading_are_read(home: Path) -> None:
    with closing(_store(home)) as store:
        for n in range(300):
            _append(store, n)
        events = store.events()
        first = next(events)
        _append(store, 300)
        assert [first.seq, *(e.seq for e in events)] == list(range(302))


@pytest.mark.parametrize("by", ["folder", "file"])
def test_a_log_is_read_without_being_written(home: Path, by: str) -> None:
    events = _filled(home, 4)
    path = home if by == "folder" else home / "runner.db"
    for file in (home / "runner.db", home):
        file.chmod(stat.S_IMODE(file.stat().st_mode) & ~0o222)
    try:
        with closing(open_log(path)) as log:
            assert list(log.events()) == events
            assert log.verify().ok
    finally:
        home.chmod(0o700)


def test_a_log_in_use_is_read_beside_its_writer(home: Path) -> None:
    with closing(_store(home)) as store, closing(open_log(home)) as log:
        event = _append(store)
        assert list(log.events(start=1)) == [event]


def test_there_is_no_log_to_read(home: Path, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no log"):
        open_log(home)
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE x (y)")
    with pytest.raises(StateError, match="is not runner's log"):
        open_log(tmp_path / "other.db")


# --- tampering: whatever is done to the file, verification names the first event that fails


Tamper = Callable[[sqlite3.Connection], object]


def _flip(column: str, seq: int) -> Tamper:
    def flip(db: sqlite3.Connection) -> None:
        db.text_factory = bytes
        (value,) = db.execute(f"SELECT {column} FROM events WHERE seq = ?", (seq,)).fetchone()
        changed = bytes([value[0] ^ 0x81]) + value[1:]
        kind = "BLOB" if column in ("leaf_hash", "previous", "body") else "TEXT"
        db.execute(f"UPDATE events SET {column} = CAST(? AS {kind}) WHERE seq = ?", (changed, seq))

    return flip


def _swap(a: int, b: int) -> Tamper:
    return lambda db: db.executescript(
        f"UPDATE events SET seq = -99 WHERE seq = {a}; UPDATE events SET seq = {a} WHERE seq = {b};"
        f"UPDATE events SET seq = {b} WHERE seq = -99;"
    )


def _do(statement: str) -> Tamper:
    return lambda db: db.execute(statement)


@pytest.mark.parametrize(
    ("tamper", "seq"),
    [
        *(
            (_flip(column, seq), seq)
            for column in ("time", "kind", "run_id", "agent", "leaf_hash", "previous", "body")
            for seq in (1, 5, 9)
        ),
        (_do("DELETE FROM events WHERE seq = 4"), 4),
        (_do("DELETE FROM events WHERE seq = 0"), 0),
        (_do("DELETE FROM events WHERE seq >= 7"), 7),
        (_do("DELETE FROM events"), 0),
        (_swap(3, 6), 3),
        (_do("UPDATE events SET seq = -1 WHERE seq = 5"), 0),
        (_do("UPDATE events SET seq = 50 WHERE seq = 9"), 9),
        (_do("UPDATE events SET body = NULL WHERE seq = 2"), 2),
        (_do("UPDATE events SET body = CAST(body AS TEXT) WHERE seq = 2"), 2),
        (_do("UPDATE events SET agent = NULL WHERE seq = 2"), 2),
        (_do("UPDATE events SET agent = 'x' WHERE seq = 0"), 0),
        (_do("UPDATE events SET run_id = x'FF' WHERE seq = 3"), 3),
        (_do("UPDATE events SET time = CAST(x'FF' AS TEXT) WHERE seq = 3"), 3),
        (_do("UPDATE tree SET size = 6"), 6),
        (_do("UPDATE tree SET size = 12"), 10),
        (_do("UPDATE tree SET peaks = zeroblob(64)"), 0),
        (_do("DELETE FROM tree"), 0),
        (_do("DROP TABLE tree"), 0),
        (_do("DROP TABLE events"), 0),
    ],
)
def test_tampering_is_found_and_named(home: Path, tamper: Tamper, seq: int) -> None:
    events = _filled(home, 9)
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        db.execute("DROP TRIGGER events_stay")
        db.execute("DROP TRIGGER events_are_kept")
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'body BLOB NOT NULL', 'body BLOB') "
            "WHERE name = 'events'"
        )
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        tamper(db)
    with closing(_store(home)) as store:
        found = store.verify()
    assert found.failure is not None
    assert found.failure.seq == seq
    if seq:
        assert found.size in (seq, 10)  # 10: every event holds, and the tree does not
        assert found.head in (events[seq - 1].leaf_hash.hex(), events[-1].leaf_hash.hex())


def test_the_untampered_twin_holds(home: Path) -> None:
    _filled(home, 9)
    with closing(_store(home)) as store:
        assert store.verify().ok


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM events WHERE seq = 9", "UPDATE tree SET size = 4", "DELETE FROM tree"],
)
def test_a_damaged_log_is_not_written_on(home: Path, statement: str) -> None:
    _filled(home, 9)
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        db.execute("DROP TRIGGER events_are_kept")
        db.execute(statement)
    said = pytest.raises(RecordError, match=r"damaged; `runner audit verify` tells where")
    with closing(_store(home)) as store, said:
        _append(store)


def test_bytes_damaged_on_the_disk_never_pass_for_a_log_that_holds(home: Path) -> None:
    _filled(home, 60)
    path = home / "runner.db"
    whole = path.read_bytes()
    bodies = [i for i in range(0, len(whole), 97) if whole[i : i + 1].isalpha() and i > 4096]
    found = 0
    for at in bodies[::8]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        try:
            with closing(open_log(path)) as log:
                told = log.verify()
                found += not told.ok
                if told.ok:  # the byte was in another table, an index or free space
                    assert told.size == 61
        except StateError:
            found += 1
    assert found > 0
