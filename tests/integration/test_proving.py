"""Proofs from a stored log: of runs and events, after a rotation, beside an archive, of damage."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runner.audit.note import parse_note
from runner.audit.verify_proof import LOG_KEY, DoesNotHoldError, Key, key_of, verify
from runner.errors import RequestError, StateError
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.model.usage import Usage
from runner.stores import proving, sqlite
from runner.stores.archiving import archive
from runner.stores.reader import LogReader, open_log
from runner.stores.restoring import restore, restore_into
from runner.stores.sqlite import SqliteStore
from runner.testing.fakes import FakeClock

AGENT = Principal(1, "a", "p")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(home: Path) -> Iterator[SqliteStore]:
    with closing(sqlite.create(home, FakeClock())) as store:
        yield store


def begin(store: SqliteStore, run: str) -> None:
    with store.transaction() as tx:
        data = {"profile": "agent", "backend": "native"}
        tx.append(EventDraft(EventKind.RUN_DECIDED, data, AGENT, run))
        tx.open_run(run, AGENT, "agent", "native")


def end(store: SqliteStore, run: str) -> None:
    with store.transaction() as tx:
        usage = {"wall_s": 0.5}
        tx.append(EventDraft(EventKind.RUN_ENDED, {"usage": usage}, AGENT, run))
        tx.close_run(run, Usage(wall_s=0.5))


def runs(store: SqliteStore, *names: str) -> None:
    for name in names:
        begin(store, name)
        end(store, name)


def keys(store: SqliteStore) -> list[Key]:
    return [key_of(store.key(), LOG_KEY)]


def prove(log: LogReader, run: str, note: str | None = None) -> bytes:
    events = proving.run_events(log, run)
    under = note or proving.covering_note(log, events[-1].seq)
    assert under is not None
    return proving.prove_run(log, events, under, kept=note is not None)


def prove_event(log: LogReader, seq: int, note: str | None = None) -> bytes:
    under = note or proving.covering_note(log, seq)
    assert under is not None
    return proving.prove_event(log, proving.event_at(log, seq), under, kept=note is not None)


def test_every_run_and_event_under_every_checkpoint(store: SqliteStore) -> None:
    notes = []
    for n in range(6):
        runs(store, f"run-{n}")
        notes.append(store.checkpoint())
    log = store.reader
    for n in range(6):
        for note in notes[n:]:
            told = verify(prove(log, f"run-{n}", note), keys(store))
            assert f"run run-{n}: these are all of its events up to its end" in told
    for seq in range(log.head().size):
        assert verify(prove_event(log, seq), keys(store))[0].startswith(f"event {seq}: ")
    for old in notes:
        for new in notes[notes.index(old) :]:
            assert verify(proving.prove_consistency(log, old, new), keys(store))


def test_the_same_run_has_the_same_proof_tomorrow(store: SqliteStore) -> None:
    runs(store, "run-0")
    store.checkpoint()
    log = store.reader
    proof = prove(log, "run-0")
    runs(store, "run-1")
    store.checkpoint()
    assert prove(log, "run-0") == proof


def test_runs_at_once_are_told_apart(store: SqliteStore) -> None:
    begin(store, "run-a")
    runs(store, "run-b")
    end(store, "run-a")
    store.checkpoint()
    data = prove(store.reader, "run-a")
    assert "run run-a: these are all of its events up to its end" in verify(data, keys(store))
    assert b"run-b" not in data


def test_a_run_whose_supervisor_died(store: SqliteStore, home: Path) -> None:
    begin(store, "run-a")
    with store.transaction() as tx:
        tx.append(EventDraft(EventKind.RUN_STARTED, {}, AGENT, "run-a"))
    told = keys(store)
    with store.transaction() as tx:
        (supervisor,) = store.reader.open_supervisors()
        assert tx.recover_runs(supervisor) == ["run-a"]
    store.checkpoint()
    assert "run run-a: these are all of its events up to its end" in verify(
        prove(store.reader, "run-a"), told
    )


def test_an_event_by_its_hash(store: SqliteStore) -> None:
    runs(store, "run-0")
    log = store.reader
    for event in log.events():
        assert proving.event_of(log, event.leaf_hash) == event
    with pytest.raises(RequestError, match="no event of the log has the leaf hash 00"):
        proving.event_of(log, bytes(32))


def test_what_can_not_be_proved_yet(store: SqliteStore) -> None:
    begin(store, "run-0")
    log = store.reader
    assert proving.covering_note(log, 1) is None
    with pytest.raises(RequestError, match=r"run run-0 has not ended; .*--index 1"):
        proving.run_events(log, "run-0")
    with pytest.raises(RequestError, match="there is no run 'run-9'"):
        proving.run_events(log, "run-9")
    with pytest.raises(RequestError, match="there is no run"):
        proving.run_events(log, "run-\udcff")
    with pytest.raises(RequestError, match="there is no event 2: the log has 2, counted from 0"):
        proving.event_at(log, 2)
    old = store.checkpoint()
    end(store, "run-0")
    with pytest.raises(RequestError, match=r"event 2 is not under the checkpoint.* first 2"):
        prove(log, "run-0", old)
    with pytest.raises(RequestError, match="there is no checkpoint over 1000 events"):
        proving.prove_consistency(log, 1000, None)
    with pytest.raises(RequestError, match="it would lead from 3 events to 2"):
        proving.prove_consistency(log, store.checkpoint(), old)


def test_a_key_that_was_rotated(store: SqliteStore) -> None:
    runs(store, "run-0")
    first, old = keys(store), store.checkpoint()
    store.rotate_key()
    runs(store, "run-1")
    new, second = store.checkpoint(), keys(store)
    log = store.reader
    assert verify(prove(log, "run-0"), first)
    assert verify(prove(log, "run-1"), second)
    assert verify(prove(log, "run-0", new), second)
    with pytest.raises(DoesNotHoldError, match="is not signed by the key"):
        verify(prove(log, "run-1"), first)
    data = proving.prove_consistency(log, old, new)
    assert verify(data, first + second)
    for one in (first, second):
        with pytest.raises(DoesNotHoldError, match="is not signed by the key"):
            verify(data, one)


def test_another_logs_checkpoint(store: SqliteStore, tmp_path: Path) -> None:
    runs(store, "run-0")
    with closing(sqlite.create(tmp_path / "other", FakeClock())) as other:
        runs(other, "run-0")
        note = other.checkpoint()
    for made in (
        lambda: prove(store.reader, "run-0", note),
        lambda: proving.prove_consistency(store.reader, 1, note),
        lambda: proving.prove_consistency(store.reader, note, store.checkpoint()),
    ):
        with pytest.raises(RequestError, match=r"would not hold: .*is not signed by the key"):
            made()


def test_what_is_left_beside_an_archive_is_proved(store: SqliteStore, tmp_path: Path) -> None:
    runs(store, "run-0", "run-1")
    kept = store.checkpoint()
    runs(store, "run-2")
    before = store.checkpoint()  # 7 events; run-2 is 5 and 6
    runs(store, "run-3")
    after, place = store.checkpoint(), tmp_path / "archive"
    archive(store, place, 6, prune_too=True)
    log = store.reader
    assert log.beginning().size == 6
    with pytest.raises(RequestError, match=r"no run 'run-0' in the log.*\(or it is archived"):
        prove(log, "run-0")
    with pytest.raises(RequestError, match=r"first events of run run-2 are archived.*--index 6"):
        prove(log, "run-2")
    with pytest.raises(RequestError, match="event 5 is archived, the log begins with event 6"):
        proving.event_at(log, 5)
    for note in (before, after, store.checkpoint()):
        assert verify(prove_event(log, 6, note), keys(store))
    assert verify(prove(log, "run-3"), keys(store))
    assert verify(proving.prove_consistency(log, before, None), keys(store))
    with pytest.raises(RequestError, match="events before 6, which were archived; restore them"):
        proving.prove_consistency(log, 1, None)
    restore(store, place)
    assert verify(prove(log, "run-0"), keys(store))
    assert verify(proving.prove_consistency(log, 1, None), keys(store))
    # A log made of the archive alone has no checkpoint of its own; a kept one does.
    restore_into(tmp_path / "auditor", place)
    with closing(open_log(tmp_path / "auditor")) as copy:
        assert proving.covering_note(copy, 1) is None
        assert verify(prove(copy, "run-0", kept), keys(store))
        with pytest.raises(RequestError, match="has no checkpoint yet"):
            proving.prove_consistency(copy, 1, None)


def test_a_copy_that_can_not_be_written(store: SqliteStore, home: Path, tmp_path: Path) -> None:
    runs(store, "run-0")
    store.checkpoint()
    told = keys(store)
    store.close()
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    for each in copy.rglob("*"):
        each.chmod(0o500 if each.is_dir() else 0o400)
    copy.chmod(0o500)
    with closing(open_log(copy)) as log:
        assert verify(prove(log, "run-0"), told)


@pytest.mark.parametrize(
    ("statement", "run"),
    [
        (
            "UPDATE events SET body = CAST(replace(CAST(body AS TEXT), '0.5', '0.6') AS BLOB) "
            "WHERE seq = 2",
            "run-0",
        ),
        ("UPDATE events SET body = CAST(x'7b7d' AS BLOB) WHERE seq = 2", "run-0"),
        ("UPDATE events SET body = 'text' WHERE seq = 2", "run-0"),
        ("UPDATE events SET leaf_hash = zeroblob(32) WHERE seq = 3", "run-0"),
        ("UPDATE events SET run_id = 'run-0' WHERE seq = 3", "run-0"),
        ("UPDATE checkpoints SET note = replace(note, char(10) || '5', char(10) || '4')", "run-0"),
        ("UPDATE checkpoints SET note = 'nothing'", "run-0"),
        ("DELETE FROM events WHERE seq = 3", "run-0"),
    ],
)
def test_damage_gives_no_proof(store: SqliteStore, home: Path, statement: str, run: str) -> None:
    runs(store, "run-0", "run-1")
    store.close()
    with closing(sqlite3.connect(home / "runner.db")) as db:
        for trigger in ("events_stay", "events_are_kept", "checkpoints_stay"):
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute(statement)
        db.commit()
    damaged = pytest.raises(StateError, match=r"the log is damaged.*`runner audit verify` tells")
    with closing(open_log(home)) as log, damaged:
        prove(log, run)


def test_a_witness_is_asked(store: SqliteStore) -> None:
    runs(store, "run-0")
    old = store.checkpoint()
    runs(store, "run-1")
    new, log = store.checkpoint(), store.reader
    assert proving.consistency_request(log, 0, None) == f"old 0\n\n{new}"
    lines = proving.consistency_request(log, old, None).splitlines()
    assert lines[0] == "old 3"
    assert lines == proving.consistency_request(log, 3, new).splitlines()
    assert proving.consistency_request(log, 3, old) == f"old 3\n\n{old}"
    assert len(parse_note(new).signatures) == 1
    with pytest.raises(RequestError, match="over 3 events, and the witness has seen 5"):
        proving.consistency_request(log, new, old)
