"""Checkpoints of the SQLite store and their keys: when, by whom, what a crash leaves, for whom."""

from __future__ import annotations

import http.server
import json
import os
import signal
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from runner.audit.checkpoint import parse_checkpoint
from runner.audit.note import open_note
from runner.audit.vouching import kept_notes
from runner.errors import RecordError, RequestError, StateError
from runner.model.checkpoints import CheckpointRules, Destination, DestinationKind
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.stores import database, sending, sqlite
from runner.stores.against import Against
from runner.stores.database import MIGRATIONS
from runner.stores.keys import KeyFolder
from runner.stores.reader import open_log
from runner.stores.sqlite import SqliteStore

WHO = Principal(1000, "coder")


class Clock:
    """The time that a test says it is."""

    def __init__(self) -> None:
        self.now_s = 1e9

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> float:
        return self.now_s


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _store(home: Path, clock: Clock, **rules: object) -> SqliteStore:
    return sqlite.create(home, clock, CheckpointRules(**rules))  # type: ignore[arg-type]


def _append(store: SqliteStore, kind: EventKind = EventKind.RUN_ENDED, run: str = "run-1") -> None:
    with store.transaction() as tx:
        tx.append(EventDraft(kind, {}, WHO, run))


def _open_run(store: SqliteStore, run: str) -> None:
    with store.transaction() as tx:
        tx.append(EventDraft(EventKind.RUN_DECIDED, {}, WHO, run))
        tx.open_run(run, WHO, "agent", "native")


def _sizes(home: Path) -> list[int]:
    with closing(sqlite3.connect(home / "runner.db")) as db:
        return [size for (size,) in db.execute("SELECT size FROM checkpoints ORDER BY size")]


def _kinds(home: Path) -> list[str]:
    with closing(open_log(home)) as log:
        return [event.kind for event in log.events()]


def _key_file(home: Path) -> Path:
    (found,) = (home / "keys").glob("*.key")
    return found


# --- when they are made


def test_by_number_of_events(home: Path, clock: Clock) -> None:
    with closing(_store(home, clock, every_events=3)) as store:
        for _ in range(7):
            _append(store)
        assert _sizes(home) == [1, 4, 7]


def test_by_time_and_the_clock_set_back(home: Path, clock: Clock) -> None:
    with closing(_store(home, clock, every_s=60.0)) as store:
        _append(store)
        assert _sizes(home) == [1]
        clock.now_s += 60
        _append(store)
        assert _sizes(home) == [1, 3]
        clock.now_s -= 100_000
        _append(store)
        assert _sizes(home) == [1, 3, 4]


def test_a_runs_start_leaves_it_to_its_end(home: Path, clock: Clock) -> None:
    with closing(_store(home, clock, every_s=60.0)) as store:
        clock.now_s += 1000
        _open_run(store, "run-1")
        _append(store, EventKind.RUN_STARTED)
        assert _sizes(home) == [1]
        _append(store, EventKind.RUN_ENDED)
        assert _sizes(home) == [1, 4]


def test_runs_that_only_start_do_not_put_it_off_for_ever(home: Path, clock: Clock) -> None:
    with closing(_store(home, clock, every_events=4)) as store:
        for n in range(8):
            _open_run(store, f"run-{n}")
        assert _sizes(home) == [1, 9]


def test_when_the_store_is_closed(home: Path, clock: Clock) -> None:
    store = _store(home, clock)
    _append(store)
    store.close()
    assert _sizes(home) == [1, 2]
    _store(home, clock).close()  # nothing happened, and nothing is added
    assert _sizes(home) == [1, 2]


def test_signing_is_not_loaded_for_a_run_that_starts(home: Path, clock: Clock) -> None:
    """`cryptography` takes 20 ms to load: a process that only starts a run must not have it."""
    _store(home, clock).close()
    done = _in_process(
        home,
        """
store = sqlite.create(home, SystemClock())
with store.transaction() as tx:
    tx.append(EventDraft(EventKind.RUN_DECIDED, {}, WHO, "run-1"))
    tx.open_run("run-1", WHO, "agent", "native")
before = "cryptography" in sys.modules
store.close()
sys.exit(10 * before + ("cryptography" in sys.modules))
""",
    )
    assert done == 1


def test_of_a_killed_process_at_the_next_start(home: Path, clock: Clock) -> None:
    _store(home, clock).close()
    done = _in_process(
        home,
        """
store = sqlite.create(home, SystemClock())
with store.transaction() as tx:
    tx.append(EventDraft(EventKind.RUN_DECIDED, {}, WHO, "run-1"))
    tx.open_run("run-1", WHO, "agent", "native")
os.kill(os.getpid(), 9)
""",
    )
    assert done == -signal.SIGKILL
    assert _sizes(home) == [1]
    with closing(_store(home, clock)) as store:
        assert store.recover() == ["run-1"]
        assert _sizes(home) == [1, 3]


def test_by_many_processes_and_threads(home: Path, clock: Clock) -> None:
    """None twice, each of a state that was: verification holds them against the tree."""
    code = """
store = sqlite.create(home, SystemClock(), CheckpointRules(every_events=5))
def work(n):
    for i in range(10):
        with store.transaction() as tx:
            tx.append(EventDraft(EventKind.RUN_ENDED, {"i": i}, WHO, f"run-{n}"))
        store.checkpoint()
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for t in threads: t.start()
for t in threads: t.join()
store.close()
"""
    pids = [_start(home, code) for _ in range(4)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 4
    with closing(open_log(home)) as log:
        found = log.verify()
    assert found.failure is None
    assert found.size == 1 + 4 * 4 * 10
    assert found.vouched is not None
    assert found.vouched.covered == found.size
    assert len(list((home / "keys").iterdir())) == 1


# --- the key


def test_the_key_is_private_whatever_the_umask(home: Path, clock: Clock) -> None:
    before = os.umask(0)
    try:
        _store(home, clock).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((home / "keys").stat().st_mode) == 0o700
    assert stat.S_IMODE(_key_file(home).stat().st_mode) == 0o600


def test_a_log_that_is_older_than_keys_gets_one(home: Path, clock: Clock) -> None:
    old = MIGRATIONS[:-1]
    home.mkdir(mode=0o700)
    sqlite._open_database(home, clock, old)
    with closing(sqlite3.connect(home / "runner.db")) as db:
        (body,) = db.execute("SELECT body FROM events WHERE seq = 0").fetchone()
    # What an older runner wrote has no key: the same event without one.
    _rewrite_first(home, body)
    (home / "keys").rename(home / "gone")
    with closing(_store(home, clock)) as store:
        assert _kinds(home) == ["log.created", "key.created"]
        assert store.verify().failure is None
        open_note(store.checkpoint(), [store.key()])
    assert _sizes(home) == [2]


def _rewrite_first(home: Path, body: bytes) -> None:
    from runner.audit.canonical import canonical_again
    from runner.audit.merkle import leaf_hash

    event = json.loads(body)
    del event["data"]["key"]
    data = canonical_again(event)
    leaf = leaf_hash(data)
    with closing(sqlite3.connect(home / "runner.db")) as db, db:
        db.execute("DROP TRIGGER events_stay")
        db.execute("UPDATE events SET body = ?, leaf_hash = ?", (data, leaf))
        db.execute("UPDATE tree SET peaks = ?", (leaf,))
        db.execute(
            """CREATE TRIGGER events_stay BEFORE UPDATE ON events
            BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END"""
        )


def _mode(path: Path, mode: int) -> None:
    path.chmod(mode)


def _damage(path: Path) -> None:
    text = path.read_text()
    path.write_text(text[:-10] + ("AAAA" if text[-10:-6] != "AAAA" else "BBBB") + text[-6:])


def _other_key(path: Path) -> None:
    made = KeyFolder(path.parent.parent / "elsewhere")
    made.path.parent.mkdir()
    vkey = made.make("runner.log/" + "0" * 32)
    path.write_bytes(made._file(vkey).read_bytes())


def _link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def _hard_link(path: Path) -> None:
    path.with_name("second").hardlink_to(path)


SEEN_AT_ONCE: list[tuple[Callable[[Path], object], str]] = [
    (Path.unlink, "is missing"),
    (lambda path: path.parent.rename(path.parent.with_name("gone")), "is missing"),
    (lambda path: _mode(path, 0o644), "open to others"),
    (lambda path: _mode(path.parent, 0o750), "open to others"),
    (_link, "is a symbolic link"),
    (_hard_link, "no file of its own"),
]


@pytest.mark.parametrize(("harm", "said"), SEEN_AT_ONCE)
def test_no_run_starts_whose_record_would_not_be_signed(
    home: Path, clock: Clock, harm: Callable[[Path], object], said: str
) -> None:
    with closing(_store(home, clock)) as store:
        _open_run(store, "run-0")  # the twin
        harm(_key_file(home))
        with pytest.raises(RecordError, match=said):
            _open_run(store, "run-1")
        assert said in str(store.unsigned())
        _append(store, run="run-0")  # what happened is recorded all the same
        with pytest.raises(RecordError, match=said):
            store.checkpoint()
        with pytest.raises(RecordError, match=said):
            store.rotate_key()
    assert _kinds(home) == ["log.created", "run.decided", "run.ended", "checkpoint.failed"]


@pytest.mark.parametrize(
    ("harm", "said"), [(_damage, "is damaged"), (_other_key, "holds another key")]
)
def test_a_damaged_key_is_found_when_it_should_sign(
    home: Path, clock: Clock, harm: Callable[[Path], object], said: str
) -> None:
    _store(home, clock).close()
    key = _key_file(home).read_bytes()
    harm(_key_file(home))
    with closing(_store(home, clock)) as store:
        _append(store)
    with closing(_store(home, clock)) as store:
        assert said in str(store.unsigned())
        with pytest.raises(RecordError, match=said):
            _open_run(store, "run-1")
        _append(store)
    assert _kinds(home).count("checkpoint.failed") == 1  # not each time
    _key_file(home).write_bytes(key)
    with closing(_store(home, clock)) as store:
        _open_run(store, "run-1")
        store.checkpoint()
        assert store.unsigned() is None
        assert store.verify().failure is None


def test_the_table_of_keys_emptied(home: Path, clock: Clock) -> None:
    with closing(_store(home, clock)) as store:
        _append(store)
        key = store.key()
        with closing(sqlite3.connect(home / "runner.db")) as db, db:
            db.execute("DELETE FROM log_keys")
        with pytest.raises(RecordError, match="table of keys is empty"):
            _open_run(store, "run-1")
    _store(home, clock).close()
    with closing(_store(home, clock)) as store:  # made of the events
        assert store.key() == key
        _open_run(store, "run-1")
        assert store.verify().failure is None


def test_a_lost_key_is_replaced(home: Path, clock: Clock) -> None:
    _store(home, clock).close()
    _key_file(home).unlink()
    with closing(_store(home, clock)) as store:
        new = store.rotate_key(lost=True)
        _open_run(store, "run-1")
        failure = store.verify().failure
        assert failure is not None
        assert (failure.seq, "without the old one's signature" in failure.why) == (1, True)
        assert store.reader.verify(against=Against(trusted=new)).ok


def test_rotation_removes_the_old_key(home: Path, clock: Clock) -> None:
    with closing(_store(home, clock)) as store:
        _append(store)
        old = _key_file(home)
        first, second = store.key(), store.rotate_key()
        assert _key_file(home) != old
        _append(store)
        for trusted in (None, first, second):
            assert store.reader.verify(against=Against(trusted=trusted)).ok
    assert _sizes(home) == [1, 2, 3, 4]  # the old key's last one, the new key's first one


def test_another_process_signs_with_the_new_key(home: Path, clock: Clock) -> None:
    with closing(_store(home, clock)) as first, closing(_store(home, clock)) as second:
        _append(first)
        first.checkpoint()
        new = second.rotate_key()
        _append(first)
        open_note(first.checkpoint(), [new])
        assert first.verify().failure is None


STEPS = ["mkdir", "open", "fsync", "rename", "unlink", "commit"]


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("deed", ["create", "rotate"])
def test_a_kill_at_any_step_leaves_a_log_that_signs(
    home: Path, clock: Clock, deed: str, step: str, nth: int
) -> None:
    """Before the Nth time that each of these is done while a key is made or exchanged."""
    if deed == "rotate":
        _store(home, clock).close()
    _in_process(
        home,
        f"""
import runner.stores.keys as keys, runner.stores.writer as writer, pathlib
count = 0
def dying(original):
    def call(*given, **named):
        global count
        count += 1
        if count == {nth}:
            os.kill(os.getpid(), 9)
        return original(*given, **named)
    return call
store = sqlite.create(home, SystemClock()) if {deed!r} == "rotate" else None
step = {step!r}
if step == "commit":
    class Connection(sqlite3.Connection):
        def execute(self, sql, *given):
            global count
            if sql == "COMMIT":
                count += 1
                if count == {nth}:
                    os.kill(os.getpid(), 9)
            return super().execute(sql, *given)
    connect = sqlite3.connect
    sqlite3.connect = lambda *a, **k: connect(*a, factory=Connection, **k)
elif step in ("mkdir", "rename", "unlink"):
    setattr(pathlib.Path, step, dying(getattr(pathlib.Path, step)))
else:
    setattr(os, step, dying(getattr(os, step)))
if store is None:
    store = sqlite.create(home, SystemClock())
else:
    store.rotate_key()
store.close()
""",
    )
    with closing(_store(home, clock)) as store:
        _open_run(store, "run-1")
        open_note(store.checkpoint(), [store.key()])
        assert store.verify().failure is None
        rotated = [kind for kind in _kinds(home) if kind.startswith("key.")]
        assert rotated in ([], ["key.rotated"])
        new = store.rotate_key()
        open_note(store.checkpoint(), [new])
        assert store.verify().failure is None


# --- sending


def _file(path: Path) -> Destination:
    return Destination(DestinationKind.FILE, (str(path),))


def _command(*words: str) -> Destination:
    return Destination(DestinationKind.COMMAND, words)


@contextmanager
def _server(status: int = 204) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    got: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/log?token=secret", got
        finally:
            server.shutdown()


def test_each_kind_of_destination_gets_the_newest(home: Path, clock: Clock, tmp_path: Path) -> None:
    script = f"import sys; open({str(tmp_path / 'c')!r}, 'a').write(sys.stdin.read())"
    with _server() as (url, got):
        to = (
            _file(tmp_path / "f"),
            _command(sys.executable, "-c", script),
            Destination(DestinationKind.URL, (url,)),
        )
        with closing(_store(home, clock, to=to)) as store:
            _append(store)
            note = store.checkpoint()
        assert got == [("/log?token=secret", note.encode())]
    assert (tmp_path / "c").read_text() == note
    assert [each.note for each in kept_notes((tmp_path / "f").read_text())] == [note]
    with closing(_store(home, clock, to=to)) as store:
        assert list(store.unsent()) == []
    assert _kinds(home) == ["log.created", "run.ended"]


def test_what_is_kept_so_finds_a_cut_tail(home: Path, clock: Clock, tmp_path: Path) -> None:
    with closing(_store(home, clock, to=(_file(tmp_path / "f"),))) as store:
        for _ in range(3):
            _append(store)
            store.checkpoint()
        store.send_checkpoints()
        kept = tuple(kept_notes((tmp_path / "f").read_text()))
        assert kept[-1].size == 4
        assert store.reader.verify(against=Against(kept)).ok
    with closing(_store(tmp_path / "other", clock)) as store:
        failure = store.reader.verify(against=Against(kept)).failure
        assert failure is not None  # another log was put in its place, and is shorter
        assert failure.seq == 1
        for _ in range(4):
            _append(store)
        failure = store.reader.verify(against=Against(kept)).failure
        assert failure is not None
        assert (failure.seq, "is of the log" in failure.why) == (0, True)


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_answer_that_does_not_take_it(home: Path, clock: Clock, status: int) -> None:
    with _server(status) as (url, got):
        to = (Destination(DestinationKind.URL, (url,)),)
        with closing(_store(home, clock, to=to)) as store:
            _append(store)
            store.checkpoint()
            (unsent,) = store.send_checkpoints()
    assert unsent.why == f"it answered with status {status}"
    assert all(path.startswith("/log") for path, _ in got)  # no redirect was followed
    assert "secret" not in unsent.destination
    with closing(open_log(home)) as log:
        assert not any(b"secret" in event.body for event in log.events())


def test_failing_and_working_again_are_recorded_once(
    home: Path, clock: Clock, tmp_path: Path
) -> None:
    place = tmp_path / "not-there" / "f"
    for _ in range(3):
        with closing(_store(home, clock, to=(_file(place),))) as store:
            _append(store)
            clock.now_s += 1
    with closing(_store(home, clock, to=(_file(place),))) as store:
        (unsent,) = store.unsent()
        assert (unsent.destination, unsent.why) == (str(place), "No such file or directory")
        assert unsent.checkpoints == len(_sizes(home))
        assert unsent.since is not None
        place.parent.mkdir()
        store.checkpoint()
        assert list(store.send_checkpoints()) == []
    kinds = _kinds(home)
    assert kinds.count("checkpoint.unsent") == kinds.count("checkpoint.sent") == 1
    assert kept_notes(place.read_text())[-1].size >= 5


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "No such device|not a file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to("/dev/full"), "not a file|No space"),
    ],
)
def test_a_file_that_is_none(
    home: Path, clock: Clock, tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    import re

    make(tmp_path / "f")
    with closing(_store(home, clock, to=(_file(tmp_path / "f"),))) as store:
        _append(store)
        store.checkpoint()
        (unsent,) = store.send_checkpoints()
        assert re.search(said, str(unsent.why))


def test_a_slow_destination_holds_nobody_up(
    home: Path, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events go on while it takes its time, the end does not wait, and the command is ended."""
    monkeypatch.setattr(sending, "CLOSE_WAIT_S", 0.5)
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; exec sleep 600"
    store = _store(home, clock, to=(_command("/bin/sh", "-c", script),))
    _append(store)
    store.checkpoint()
    while not pid_file.exists() or not pid_file.read_text().strip():
        time.sleep(0.01)
    for _ in range(20):
        _append(store)
    _open_run(store, "run-1")
    store.close()
    with closing(_store(home, clock, to=(_command("/bin/sh", "-c", script),))) as store:
        (unsent,) = store.unsent()
        assert "when the process ended" in str(unsent.why)
        monkeypatch.setattr(sending, "CLOSE_WAIT_S", 0.0)
    pid = int(pid_file.read_text())
    for _ in range(600):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    pytest.fail("the command still runs")


# --- verification


def test_since_a_checkpoint_only_hashes_what_is_before(home: Path, clock: Clock) -> None:
    with closing(_store(home, clock, every_events=4)) as store:
        for _ in range(11):
            _append(store)
        note = store.checkpoint()
    with closing(sqlite3.connect(home / "runner.db")) as db, db:
        db.execute("DROP TRIGGER events_stay")
        db.execute("UPDATE events SET body = x'00' WHERE seq = 2")
        db.execute("UPDATE events SET leaf_hash = zeroblob(32) WHERE seq = 6")
    with closing(open_log(home)) as log:
        whole, since_5, since_9 = (
            log.verify(against=Against(since=size)).failure for size in (0, 5, 9)
        )
        assert whole is not None
        assert whole.seq == 2
        assert since_5 is not None
        assert since_5.seq == 6
        assert since_9 is not None  # its leaf hash is in the tree
        assert since_9.seq in (5, 6)
        with pytest.raises(RequestError, match="no checkpoint over 7 events"):
            log.verify(against=Against(since=7))
        kept = tuple(kept_notes(note))
        failure = log.verify(against=Against(kept, since=kept[0].size)).failure
        assert failure is not None


def test_a_log_that_is_older_than_checkpoints_is_verified_as_it_is(
    home: Path, clock: Clock
) -> None:
    home.mkdir(mode=0o700)
    sqlite._open_database(home, clock, MIGRATIONS[:1])
    with closing(open_log(home)) as log:
        assert log.verify().failure is None


def test_a_log_whose_end_was_cut_takes_no_further_event(home: Path, clock: Clock) -> None:
    """The stored checkpoint is over more: going on would make another history."""
    with closing(_store(home, clock)) as store:
        for _ in range(3):
            _append(store)
    with closing(sqlite3.connect(home / "runner.db")) as db, db:
        (leaf,) = db.execute("SELECT leaf_hash FROM events WHERE seq = 0").fetchone()
        db.execute("DROP TRIGGER events_are_kept")
        db.execute("DELETE FROM events WHERE seq > 0")
        db.execute("UPDATE tree SET size = 1, peaks = ?", (leaf,))
    with closing(_store(home, clock)) as store:
        with pytest.raises(RecordError, match="its end was cut"):
            _append(store)
        failure = store.verify().failure
        assert failure is not None
        assert (failure.seq, "it is missing" in failure.why) == (1, True)


def test_a_key_that_can_not_be_kept(home: Path, clock: Clock) -> None:
    home.mkdir(mode=0o700)
    (home / "keys").write_text("")
    with pytest.raises(StateError, match="is not a folder"):
        _store(home, clock)
    (home / "keys").unlink()
    _store(home, clock).close()


_HEAD = """
import os, sqlite3, sys, threading
from pathlib import Path
from runner.clock import SystemClock
from runner.model.checkpoints import CheckpointRules
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.stores import sqlite
WHO = Principal(1000, "coder")
home = Path(sys.argv[1])
"""


def _start(home: Path, code: str) -> int:
    return os.spawnv(
        os.P_NOWAIT, sys.executable, [sys.executable, "-c", _HEAD + code, os.fspath(home)]
    )


def _in_process(home: Path, code: str) -> int:
    """Its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(_start(home, code), 0)[1])


def test_the_newest_checkpoint_says_what_the_head_says(home: Path, clock: Clock) -> None:
    with closing(_store(home, clock)) as store:
        _append(store)
        told = parse_checkpoint(store.checkpoint())
        assert (told.size, told.root.hex()) == (store.head().size, store.head().root)
        assert database.FILE_NAME in {path.name for path in home.iterdir()}
