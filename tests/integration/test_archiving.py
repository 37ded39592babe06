"""Events go to sealed segments and out of the log, and what is left is still proved."""

from __future__ import annotations

import gzip
import io
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runner.audit import merkle
from runner.audit.beginning import WHOLE
from runner.audit.canonical import parse_canonical
from runner.audit.segment import verify_segment
from runner.errors import RecordError, RequestError, RunnerError, StateError
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.model.principal import Principal
from runner.model.rule import CountOf
from runner.model.usage import Usage
from runner.stores import segments, sqlite
from runner.stores.archiving import Archived, archive, before_time
from runner.stores.reader import open_log
from runner.stores.restoring import restore, restore_into
from runner.stores.sqlite import SqliteStore
from runner.testing.fakes import FakeClock

AGENT = Principal(1, "a", "p")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[SqliteStore]:
    with closing(sqlite.create(tmp_path / "state", clock)) as store:
        yield store


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def _decide(store: SqliteStore, run_id: str) -> None:
    with store.transaction() as tx:
        data = {"profile": "agent", "backend": "native"}
        tx.append(EventDraft(EventKind.RUN_DECIDED, data, AGENT, run_id))
        tx.open_run(run_id, AGENT, "agent", "native")


def _end(store: SqliteStore, run_id: str) -> None:
    with store.transaction() as tx:
        usage = {"wall_s": 0.5}
        tx.append(EventDraft(EventKind.RUN_ENDED, {"usage": usage}, AGENT, run_id))
        tx.close_run(run_id, Usage(wall_s=0.5))


def _runs(store: SqliteStore, count: int, first: int = 0) -> list[AuditEvent]:
    for n in range(first, first + count):
        _decide(store, f"run-{n}")
        _end(store, f"run-{n}")
    return list(store.events())


def _archive(store: SqliteStore, place: Path, before: int, *, prune: bool = True) -> Archived:
    return archive(store, place, before, prune_too=prune, segment_events=4)


def test_what_is_left_verifies_and_proves(store: SqliteStore, place: Path) -> None:
    events = _runs(store, 10)
    told = _archive(store, place, 11)
    assert (told.start, told.end, told.pruned, told.held) == (0, 11, 11, None)
    assert len(told.files) == 3
    left = list(store.events())
    assert left[:10] == events[11:]
    assert [e.kind for e in left[10:]] == [EventKind.LOG_ARCHIVED] * 3
    found, head = store.verify(), store.head()
    assert found.ok, found.failure
    assert (found.size, found.archived, found.root) == (24, 11, head.root)
    everything = [*events, *left[10:]]
    leaves = [e.leaf_hash for e in everything]
    assert head.root == merkle.tree_of(leaves).root.hex()
    whole = merkle.range_root(leaves)
    for seq in range(11, 24):
        proof = store.reader.inclusion_proof(seq, 24)
        assert proof == merkle.inclusion_proof(whole, seq, 24)
    for old in range(11, 25):
        proof = store.reader.consistency_proof(old, 24)
        assert proof == merkle.consistency_proof(whole, old, 24)
    with pytest.raises(RequestError, match="archived; restore them"):
        store.reader.inclusion_proof(3, 24)


def test_the_ledger_is_not_pruned(store: SqliteStore, place: Path) -> None:
    _runs(store, 3)
    before = (store.totals(), store.runs_since(AGENT, CountOf.AGENT, 0.0))
    _archive(store, place, 7)
    assert (store.totals(), store.runs_since(AGENT, CountOf.AGENT, 0.0)) == before
    with pytest.raises(RecordError, match="used once"):
        _decide(store, "run-1")
    _runs(store, 2, first=5)
    assert store.verify().ok


def test_the_log_goes_on_and_is_archived_again(store: SqliteStore, place: Path) -> None:
    id_before = store.reader.log_id()
    _runs(store, 3)
    _archive(store, place, 7)
    _runs(store, 3, first=3)
    told = _archive(store, place, store.head().size)  # all there is
    assert (told.start, told.end) == (7, 15)
    assert [e.kind for e in store.events()] == [EventKind.LOG_ARCHIVED] * 2
    assert store.verify().ok
    assert store.reader.log_id() == id_before
    assert store.reader.beginning().size == 15
    _runs(store, 1, first=7)
    assert store.verify().ok


def test_segments_are_files_that_hold_by_themselves(store: SqliteStore, place: Path) -> None:
    events = _runs(store, 5)
    told = _archive(store, place, 10, prune=False)
    assert told.pruned == 0
    assert store.head().size == 11
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert sorted(p.name for p in place.iterdir()) == [p.name for p in told.files]
    text = b""
    for path in told.files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with segments.opened(path) as (segment, _):
            assert verify_segment(segment).ok
        text += b"".join(gzip.decompress(path.read_bytes()).splitlines(keepends=True)[1:-1])
    export = io.BytesIO()
    store.export(export)
    assert export.getvalue().startswith(text)
    assert text.count(b"\n") == 10
    assert events[9].leaf_hash.hex().encode() in text


def test_pruning_takes_what_is_archived_already(store: SqliteStore, place: Path) -> None:
    _runs(store, 5)
    first = _archive(store, place, 10, prune=False)
    times = [path.stat().st_mtime_ns for path in first.files]
    second = _archive(store, place, 10)
    assert second.files == first.files
    assert [path.stat().st_mtime_ns for path in second.files] == times
    assert second.pruned == 10


def test_a_segment_that_is_there_and_is_another_is_never_taken(
    store: SqliteStore, place: Path
) -> None:
    _runs(store, 5)
    first = _archive(store, place, 8, prune=False)
    data = first.files[1].read_bytes()
    for bad in (data[:-9], b"", data[:40] + bytes([data[40] ^ 1]) + data[41:]):
        first.files[1].write_bytes(bad)
        with pytest.raises(StateError, match="segment"):
            _archive(store, place, 8)
    assert store.reader.beginning().size == 4  # the first one was whole
    assert store.verify().ok
    assert next(iter(store.events())).seq == 4


def test_events_of_open_runs_stay(store: SqliteStore, place: Path) -> None:
    _runs(store, 2)
    _decide(store, "run-open")
    _runs(store, 2, first=2)
    told = _archive(store, place, 9)
    assert told.end == 5
    assert told.held is not None
    assert "run-open" in told.held
    assert next(e.run_id for e in store.events()) == "run-open"
    _end(store, "run-open")
    assert _archive(store, place, 9).end == 9


def test_events_of_runs_whose_changes_are_kept_stay(store: SqliteStore, place: Path) -> None:
    _runs(store, 3)
    (store.home / "changes" / "run-1").mkdir(parents=True)
    told = _archive(store, place, 7)
    assert told.end == 3
    assert told.held is not None
    assert "changes are kept" in told.held


def test_by_age(store: SqliteStore, place: Path, clock: FakeClock) -> None:
    _runs(store, 2)
    clock.advance(1000.0)
    _runs(store, 2, first=2)
    assert before_time(store.reader, clock.now()) == 5
    assert before_time(store.reader, clock.now() + 1) == 9
    assert before_time(store.reader, 0.0) == 0
    clock.step(-500.0)  # the clock was set back: events that seem older stand behind younger ones
    _runs(store, 2, first=4)
    assert before_time(store.reader, clock.now() + 1) == 5
    with pytest.raises(RequestError, match="the log has 13"):
        _archive(store, place, 14)


def test_restored_is_as_it_was(store: SqliteStore, place: Path) -> None:
    events = _runs(store, 6)
    _archive(store, place, 9)
    one = segments.listed(place)[-1]
    with pytest.raises(RequestError, match="which were removed last"):
        restore(store, segments.listed(place)[0].path)
    told = restore(store, one.path)
    assert (told.start, told.end) == (8, 9)
    assert store.verify().ok
    assert store.reader.beginning().size == 8
    told = restore(store, place)
    assert (told.start, told.end) == (0, 8)
    found = store.verify()
    assert found.ok
    assert found.archived == 0
    assert list(store.events())[:13] == events
    kinds = [e.kind for e in store.events(start=13)]
    assert kinds == [EventKind.LOG_ARCHIVED] * 3 + [EventKind.LOG_RESTORED] * 3
    with pytest.raises(RequestError, match="nothing is missing"):
        restore(store, place)
    assert _archive(store, place, 13).pruned == 13
    assert store.verify().ok


def test_nothing_else_is_restored(store: SqliteStore, place: Path, tmp_path: Path) -> None:
    with closing(sqlite.create(tmp_path / "other", FakeClock())) as other:
        _runs(other, 6)
        _archive(other, tmp_path / "others", 9)
    _runs(store, 6)
    told = _archive(store, place, 9)
    for foreign, own in zip(segments.listed(tmp_path / "others"), told.files, strict=True):
        own.write_bytes(foreign.path.read_bytes())
    with pytest.raises(RunnerError):
        restore(store, place)
    assert store.reader.beginning().size == 9
    assert store.verify().ok


def test_a_new_log_is_made_of_an_archive(store: SqliteStore, place: Path, tmp_path: Path) -> None:
    events = _runs(store, 6)
    _archive(store, place, 13)
    told = restore_into(tmp_path / "auditor", place)
    assert (told.start, told.end) == (0, 13)
    with closing(open_log(tmp_path / "auditor")) as log:
        assert list(log.events()) == events
        assert log.verify().ok
        assert log.totals() == store.totals()
        assert log.log_id() == store.reader.log_id()
    with pytest.raises(RequestError, match="a log in"):
        restore_into(tmp_path / "auditor", place)
    segments.listed(place)[0].path.unlink()
    with pytest.raises(RequestError, match="event 0"):
        restore_into(tmp_path / "again", place)
    assert not (tmp_path / "again").exists()


def test_a_damaged_log_is_not_archived(store: SqliteStore, place: Path) -> None:
    _runs(store, 6)
    with closing(sqlite3.connect(store.home / "runner.db", isolation_level=None)) as db:
        db.execute("DROP TRIGGER events_stay")
        db.execute("UPDATE events SET body = x'7b7d' WHERE seq = 5")
    with pytest.raises(StateError, match="event 5"):
        _archive(store, place, 9)
    assert store.reader.beginning().size == 4
    assert [e.seq for e in store.events()][:2] == [4, 5]


def test_the_log_is_still_append_only_by_mistake(store: SqliteStore, place: Path) -> None:
    _runs(store, 4)
    _archive(store, place, 5)
    with closing(sqlite3.connect(store.home / "runner.db")) as db:
        for statement in ("DELETE FROM events", "DELETE FROM events WHERE seq = 5"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM pruned",
        "DELETE FROM pruned WHERE size = 9",
        "UPDATE pruned SET peaks = zeroblob(length(peaks))",
        "UPDATE pruned SET peaks = 'x' WHERE size = 9",
        "UPDATE pruned SET last_hash = zeroblob(32) WHERE size = 9",
        "UPDATE pruned SET size = 10 WHERE size = 9",
        "DROP TABLE pruned",
        "DROP TRIGGER events_are_kept; DELETE FROM events WHERE kind = 'log.archived'",
        # Removed with a record of it that is right, and no event that says so:
        "INSERT INTO pruned SELECT 10, 9, (SELECT peaks FROM pruned WHERE size = 9) || leaf_hash, "
        "leaf_hash, 'x', 'x', x'' FROM events WHERE seq = 9; DELETE FROM events WHERE seq = 9",
    ],
)
def test_tampering_with_the_beginning_is_found(
    store: SqliteStore, place: Path, statement: str
) -> None:
    _runs(store, 6)
    _archive(store, place, 9)
    assert store.verify().ok
    with closing(sqlite3.connect(store.home / "runner.db", isolation_level=None)) as db:
        db.executescript(statement)
    assert not store.verify().ok


def test_space_is_used_again(store: SqliteStore, place: Path) -> None:
    _runs(store, 60)
    archive(store, place, 121, prune_too=True)
    with closing(sqlite3.connect(store.home / "runner.db")) as db:
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
    assert free > 5
    _runs(store, 20, first=60)
    with closing(sqlite3.connect(store.home / "runner.db")) as db:
        assert db.execute("PRAGMA page_count").fetchone()[0] <= pages


KILLED = """
import os, sys
from pathlib import Path
from runner.clock import SystemClock
from runner.stores import archiving, segments, sqlite
store = sqlite.create(Path(sys.argv[1]), SystemClock())
left = int(sys.argv[3])
def step(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
sys.addaudithook(lambda name, args: step() if name in WATCHED else None)
WATCHED = {"open", "os.rename", "os.remove", "sqlite3.connect/handle"}
connection_trace = store._writer._connected().set_trace_callback(lambda text: step())
archiving.archive(store, Path(sys.argv[2]), 9, prune_too=True, segment_events=4)
"""


def test_killed_at_any_step_nothing_is_lost(tmp_path: Path) -> None:
    """Every statement and every file operation of archiving is the last one once."""
    home, whole = tmp_path / "state", []
    with closing(sqlite.create(home, FakeClock())) as store:
        whole = _runs(store, 5)
    survived = False
    states = set()
    for steps in range(0, 400, 4):
        state, place = tmp_path / f"s{steps}", tmp_path / f"a{steps}"
        state.mkdir(mode=0o700)
        (state / "runner.db").write_bytes((home / "runner.db").read_bytes())
        done = subprocess.run(
            [sys.executable, "-c", KILLED, state, place, str(steps)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
        with closing(sqlite.create(state, FakeClock())) as store:
            found = store.verify()
            assert found.ok, (steps, found.failure)
            states.add(found.archived)
            if found.archived:
                restore(store, place)
            assert store.reader.beginning() == WHOLE
            assert list(store.events())[: len(whole)] == whole
        if done.returncode == 0:
            survived = True
            break
    assert survived
    assert states == {0, 4, 8, 9}


def test_what_a_segment_was_made_of_is_in_the_log(store: SqliteStore, place: Path) -> None:
    import hashlib

    _runs(store, 2)
    told = _archive(store, place, 3)
    event = list(store.events())[-1]
    body = parse_canonical(event.body)
    assert isinstance(body, dict)
    data = body["data"]
    assert data["file"] == told.files[0].name
    assert data["sha256"] == hashlib.sha256(told.files[0].read_bytes()).hexdigest()
    assert data["log"] == store.reader.log_id()
    assert (data["from"], data["to"]["size"]) == (0, 3)
