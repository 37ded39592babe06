"""Damaged logs: what runner says of one, and what `runner audit repair` makes of it.

The files are cut and overwritten as a power cut and a failing disk do. Whatever happens to them,
either the log opens and holds and is the beginning of what it was, or runner refuses in a sentence
that names the repair, which then recovers a log that is.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from base64 import b64encode
from contextlib import closing
from pathlib import Path

import pytest

from runner.audit.merkle import tree_of
from runner.audit.verify import verify_jsonl
from runner.errors import RequestError, RunnerError, StateError
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.model.principal import Principal
from runner.model.usage import Usage
from runner.stores import sqlite
from runner.stores.archiving import archive
from runner.stores.database import PENDING_NAME
from runner.stores.reader import open_log
from runner.stores.repairing import Checkpoint, Repaired, repair
from runner.stores.restoring import archived_rows, restore
from runner.testing.fakes import FakeClock

AGENT = Principal(1, "a", "p")
PAGE = 4096
RUNS = 60


def _run(store: sqlite.SqliteStore, n: int) -> None:
    run_id = f"run-{n}"
    with store.transaction() as tx:
        data = {"profile": "agent", "backend": "native", "text": "x" * (n * 397 % 9000)}
        tx.append(EventDraft(EventKind.RUN_DECIDED, data, AGENT, run_id))
        tx.open_run(run_id, AGENT, "agent", "native")
    with store.transaction() as tx:
        tx.append(EventDraft(EventKind.RUN_ENDED, {"usage": {"wall_s": 0.5}}, AGENT, run_id))
        tx.close_run(run_id, Usage(wall_s=0.5))


def _copy(home: Path, to: Path) -> Path:
    to.mkdir(mode=0o700)
    for name in ("runner.db", "runner.db-wal"):
        if (home / name).exists():
            shutil.copyfile(home / name, to / name)
    shutil.copytree(home / "keys", to / "keys")
    return to


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """State folders to copy: one whose WAL holds much of the log, one without a WAL, one that was
    archived in part, and what was cut off it.
    """
    top = tmp_path_factory.mktemp("logs")
    with closing(sqlite.create(top / "live", FakeClock())) as store:
        for n in range(RUNS):
            _run(store, n)
            if n == RUNS // 2:
                with closing(sqlite3.connect(store.home / "runner.db")) as db:
                    db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        _copy(store.home, top / "wal")
    _copy(top / "live", top / "plain")
    _copy(top / "live", top / "pruned")
    with closing(sqlite.create(top / "pruned", FakeClock())) as store:
        archive(store, top / "archive", 40, prune_too=True, segment_events=20)
        _run(store, RUNS)
    assert (top / "wal" / "runner.db-wal").stat().st_size > 20 * PAGE
    return {name: top / name for name in ("wal", "plain", "pruned", "archive")}


def _lose_schema(home: Path) -> None:
    """Page 1 has it; the newest version of that stands in the WAL, if there is one."""
    for name, at in (("runner.db", 0), ("runner.db-wal", None)):
        if (home / name).exists():
            data = bytearray((home / name).read_bytes())
            found = range(32, len(data), PAGE + 24) if at is None else [0]
            for start in found:
                if at is None and int.from_bytes(data[start : start + 4], "big") != 1:
                    continue
                begin = start if at is not None else start + 24
                data[begin : begin + PAGE] = bytes(PAGE)
            (home / name).write_bytes(data)


def _events(home: Path) -> list[AuditEvent]:
    with closing(open_log(home)) as log:
        return list(log.events())


def _repaired(home: Path, **options: object) -> Repaired:
    told = repair(home, FakeClock(), **options)  # type: ignore[arg-type]
    assert isinstance(told, Repaired)
    return told


def _holds(home: Path, whole: list[AuditEvent], told: Repaired | None) -> int:
    """The log verifies, is a beginning of `whole`, and a run can be made with it; its size."""
    with closing(sqlite.create(home, FakeClock())) as store:
        found = store.verify()
        assert found.ok, found.failure
        events = list(store.events())
        if told is None:
            assert events == whole[: len(events)]
        else:
            recovered = [e for e in events if e.seq < told.recovered]
            assert recovered == whole[: len(recovered)]
            assert told.recovered in (0, events[len(recovered)].seq)
            kinds = [e.kind for e in events[len(recovered) :]]
            made = [EventKind.LOG_CREATED] if told.recovered == 0 else []
            if kinds[-1] == EventKind.KEY_CREATED:  # what named the old one is archived, or lost
                kinds.pop()
            assert kinds == [*made, EventKind.LOG_REPAIRED]
        store.recover()
        _run(store, 1000)
        assert store.verify().ok
        calls = {t.key: t.calls for t in store.totals()}
        begun = sum(e.kind == EventKind.RUN_DECIDED for e in store.events())
        assert calls["a"] >= begun
    with closing(sqlite3.connect(home / "runner.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return len(events)


def _opens(home: Path) -> bool:
    """Whether the log is used as it is; False: runner refuses and names the repair."""
    try:
        with closing(sqlite.create(home, FakeClock())) as store:
            if not store.verify().ok:
                return False  # `runner audit verify` names it, see below
            with store.transaction():
                pass
    except RunnerError as error:
        if "`runner audit repair`" not in str(error):
            raise
        return False
    return True


def _cut(home: Path, dice: random.Random) -> None:
    file = home / dice.choice([f.name for f in home.iterdir() if f.name.startswith("runner.db")])
    size = file.stat().st_size
    if dice.random() < 0.3:
        os.truncate(file, dice.choice([0, 1, 100, 512, PAGE]))
    else:
        os.truncate(file, dice.randrange(size))


def _spoil(home: Path, dice: random.Random) -> None:
    file = home / dice.choice([f.name for f in home.iterdir() if f.name.startswith("runner.db")])
    data = bytearray(file.read_bytes())
    if not data:
        return
    for _ in range(dice.randint(1, 3)):
        step = PAGE if file.name == "runner.db" else PAGE + 24
        start = dice.randrange(max(1, len(data) // step)) * step
        filler = bytes(PAGE) if dice.random() < 0.5 else dice.randbytes(PAGE)
        data[start : start + PAGE] = filler[: len(data) - start]
    file.write_bytes(data)


def _flip(home: Path, dice: random.Random) -> None:
    file = home / "runner.db"
    data = bytearray(file.read_bytes())
    for _ in range(dice.randint(1, 8)):
        data[dice.randrange(PAGE, len(data))] ^= 1 << dice.randrange(8)
    file.write_bytes(data)


@pytest.mark.parametrize("kind", ["wal", "plain", "pruned"])
@pytest.mark.parametrize("damage", [_cut, _spoil, _flip], ids=lambda f: f.__name__[1:])
def test_whatever_is_damaged(
    logs: dict[str, Path], tmp_path: Path, kind: str, damage: object
) -> None:
    whole = _events(_copy(logs[kind], tmp_path / "whole"))
    seen = {"opens": 0, "repaired": 0, "nothing": 0}
    for seed in range(12):
        home = _copy(logs[kind], tmp_path / f"{seed}")
        damage(home, random.Random(seed))  # type: ignore[operator]
        if _opens(home):
            try:
                told = repair(home, FakeClock())
            except RequestError:
                seen["opens"] += 1
                _holds(home, whole, None)
                continue
        else:
            told = repair(home, FakeClock())
        assert isinstance(told, Repaired)
        assert told.damaged is not None
        aside = {f.name for f in home.iterdir() if f.name.startswith(told.damaged.name)}
        assert aside, "the damaged files are kept"
        if _holds(home, whole, told) > 2:
            seen["repaired"] += 1
        else:
            seen["nothing"] += 1
    assert seen["opens"] + seen["repaired"] > 3, seen


def test_a_lost_page_in_the_middle(logs: dict[str, Path], tmp_path: Path) -> None:
    """The log goes on before it; what is behind it is put aside, in a form that can be read."""
    home = _copy(logs["plain"], tmp_path / "home")
    whole = _events(home)
    body = whole[70].body
    data = bytearray((home / "runner.db").read_bytes())
    at = data.index(body[:200]) // PAGE * PAGE
    data[at : at + PAGE] = bytes(PAGE)
    (home / "runner.db").write_bytes(data)
    with closing(open_log(home)) as log:
        assert not log.verify().ok
    told = _repaired(home, dry_run=True)
    assert sorted(
        f.name for f in home.iterdir() if "shm" not in f.name and "-wal" not in f.name
    ) == [
        "keys",
        "queue.lock",
        "runner.db",
    ]
    assert (home / "runner.db").read_bytes() == data
    told = _repaired(home)
    assert 60 < told.recovered <= 70
    assert (told.missing_to, told.known_from) == (len(whole), "tree")
    assert told.unlinked_file is not None
    lines = told.unlinked_file.read_bytes().splitlines()
    assert len(lines) == told.unlinked
    first = json.loads(lines[0])["seq"]
    assert verify_jsonl(lines, start=first).ok
    assert json.loads(lines[-1])["leaf_hash"] == whole[-1].leaf_hash.hex()
    assert told.damaged is not None
    assert told.damaged.read_bytes() == data
    _holds(home, whole, told)
    event = json.loads(_events(home)[told.recovered].body)
    assert event["data"]["missing"] == {"from": told.recovered, "to": len(whole)}
    assert event["data"]["unlinked"]["count"] == told.unlinked
    assert event["data"]["damaged"] == told.damaged.name


def test_more_than_sqlite_gives_is_recovered(logs: dict[str, Path], tmp_path: Path) -> None:
    """The first page has the schema: SQLite reads nothing, and every event is there."""
    for kind in ("plain", "wal", "pruned"):
        home = _copy(logs[kind], tmp_path / kind)
        whole = _events(_copy(logs[kind], tmp_path / f"{kind}-whole"))
        _lose_schema(home)
        assert not _opens(home)
        told = _repaired(home)
        assert told.recovered == whole[-1].seq + 1, kind
        _holds(home, whole, told)


def test_a_database_that_is_empty_is_no_new_log(logs: dict[str, Path], tmp_path: Path) -> None:
    home = _copy(logs["wal"], tmp_path / "home")
    wal = (home / "runner.db-wal").read_bytes()
    for lost in (lambda: os.truncate(home / "runner.db", 0), (home / "runner.db").unlink):
        lost()
        for act in (lambda: sqlite.create(home, FakeClock()), lambda: open_log(home)):
            with pytest.raises(StateError, match="there was a log: `runner audit repair`"):
                act()
        assert (home / "runner.db-wal").read_bytes() == wal
    _repaired(home)
    with closing(sqlite.create(home, FakeClock())) as store:
        assert store.verify().ok


def test_the_ledger_is_made_of_the_events(logs: dict[str, Path], tmp_path: Path) -> None:
    home = _copy(logs["plain"], tmp_path / "home")
    with closing(sqlite.create(home, FakeClock())) as store:
        totals = store.totals()
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        db.execute("UPDATE totals SET calls = 1")
        db.execute("DELETE FROM runs WHERE rowid % 2")
        db.execute("UPDATE tree SET peaks = zeroblob(length(peaks))")
    told = _repaired(home)
    assert told.missing_to is None
    with closing(sqlite.create(home, FakeClock())) as store:
        assert store.totals() == totals
        assert store.recover() == []


def test_the_ledger_of_archived_runs_is_carried(logs: dict[str, Path], tmp_path: Path) -> None:
    home = _copy(logs["pruned"], tmp_path / "home")
    with closing(sqlite.create(home, FakeClock())) as store:
        totals = store.totals()
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        db.execute("UPDATE tree SET peaks = zeroblob(length(peaks))")
    told = _repaired(home)
    with closing(sqlite.create(home, FakeClock())) as store:
        found = store.verify()
        assert (found.ok, found.archived, told.recovered) == (True, 40, found.size - 1)
        assert store.verify(), found
        assert store.reader.verify(archived_rows(store.reader, logs["archive"])).ok
        assert [(t.scope, t.key, t.calls) for t in store.totals()] == [
            (t.scope, t.key, t.calls) for t in totals
        ]
        restore(store, logs["archive"])
        assert store.verify().ok


def test_a_run_that_was_open_is_closed_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with closing(sqlite.create(home, FakeClock())) as store:
        _run(store, 1)
        with store.transaction() as tx:
            data = {"profile": "agent", "backend": "native"}
            tx.append(EventDraft(EventKind.RUN_DECIDED, data, AGENT, "run-2"))
            tx.open_run("run-2", AGENT, "agent", "native")
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        db.execute("DELETE FROM tree")
    _repaired(home)
    with closing(sqlite.create(home, FakeClock())) as store:
        assert store.recover() == ["run-2"]
        assert store.recover() == []
        assert store.verify().ok


def test_a_checkpoint_tells_what_is_missing(logs: dict[str, Path], tmp_path: Path) -> None:
    home = _copy(logs["plain"], tmp_path / "home")
    whole = _events(home)
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        db.executescript(
            "DROP TRIGGER events_are_kept; DELETE FROM events WHERE seq >= 50; DELETE FROM tree"
        )
        db.execute("VACUUM")
    kept = Checkpoint(len(whole), tree_of(e.leaf_hash for e in whole).root)
    fits = Checkpoint(30, tree_of(e.leaf_hash for e in whole[:30]).root)
    with pytest.raises(StateError, match="not those of the checkpoint"):
        repair(home, FakeClock(), against=[Checkpoint(30, bytes(32))])
    told = _repaired(home, against=[kept, fits])
    assert (told.recovered, told.missing_to, told.known_from) == (50, len(whole), "checkpoint")
    _holds(home, whole, told)


def test_who_may_not_repair(
    logs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = _copy(logs["plain"], tmp_path / "home")
    with pytest.raises(RequestError, match="nothing is wrong"):
        repair(home, FakeClock())
    with pytest.raises(RequestError, match="no state folder"):
        repair(tmp_path / "none", FakeClock())
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="there is no log"):
        repair(tmp_path / "empty", FakeClock())
    with closing(sqlite.create(home, FakeClock())) as store:
        with store.transaction() as tx:
            tx.open_run("run-x", AGENT, "agent", "native")
        done = subprocess.run(  # another process, as locks are seen
            [sys.executable, "-c", REPAIR, home], capture_output=True, text=True, check=False
        )
        assert "other runner(s) hold the log" in done.stderr
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        db.execute("DELETE FROM tree")
    real = os.statvfs(home)
    full = os.statvfs_result((real.f_bsize, real.f_frsize, *(0,) * 8))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    before = (home / "runner.db").read_bytes()
    with pytest.raises(StateError, match="no room"):
        repair(home, FakeClock())
    assert (home / "runner.db").read_bytes() == before


REPAIR = """
import sys
from pathlib import Path
from runner.clock import SystemClock
from runner.stores.repairing import repair
repair(Path(sys.argv[1]), SystemClock())
"""

KILLED = """
import os, sys
from pathlib import Path
from runner.clock import SystemClock
from runner.stores import repairing
left = int(sys.argv[2])
def step(name, args):
    global left
    if name in ("open", "os.rename", "os.remove", "os.truncate", "os.chmod"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
sys.addaudithook(step)
repairing.repair(Path(sys.argv[1]), SystemClock())
"""


def test_killed_at_any_step_the_old_or_the_new_is_there(
    logs: dict[str, Path], tmp_path: Path
) -> None:
    """Each file operation of a repair is the last one once; afterwards a repair finishes."""
    source = _copy(logs["wal"], tmp_path / "source")
    whole = _events(_copy(logs["wal"], tmp_path / "whole"))
    _lose_schema(source)
    wal = (source / "runner.db-wal").read_bytes()
    states = set()
    for steps in range(200):
        home = _copy(source, tmp_path / f"{steps}")
        done = subprocess.run([sys.executable, "-c", KILLED, home, str(steps)], check=False)
        if done.returncode == 0:
            break
        pending = (home / PENDING_NAME).exists()
        if pending:
            with pytest.raises(StateError, match=r"interrupted: run `runner audit repair`"):
                sqlite.create(home, FakeClock())
            assert isinstance(repair(home, FakeClock()), str)
        elif not _opens(home):
            assert (home / "runner.db-wal").read_bytes() == wal
            _repaired(home)
        states.add(pending)
        with closing(sqlite.create(home, FakeClock())) as store:
            assert store.verify().ok
            events = list(store.events())
        assert events[: len(whole)] == whole
        assert [e.kind for e in events[len(whole) :]] == [EventKind.LOG_REPAIRED]
        aside = [f for f in home.iterdir() if f.name.endswith("Z-wal")]
        assert [f.read_bytes() for f in aside] == [wal]
    assert done.returncode == 0
    assert states == {True, False}


def test_a_checkpoint_file_is_read(tmp_path: Path) -> None:
    from runner.surfaces.cli.retention import _kept

    note = tmp_path / "note"
    note.write_text(f"runner/x\n7\n{b64encode(bytes(32)).decode()}\n\n— x y\n", "utf-8")
    assert _kept(str(note)) == Checkpoint(7, bytes(32))
    for bad in (
        "",
        "x\n",
        "x\n-1\nAAAA\n",
        "x\n07\n" + b64encode(bytes(32)).decode(),
        "x\n7\nAA\n",
    ):
        note.write_text(bad, "utf-8")
        with pytest.raises(RequestError, match="is no checkpoint"):
            _kept(str(note))


def test_a_table_that_is_stated_otherwise_is_a_damage(
    logs: dict[str, Path], tmp_path: Path
) -> None:
    """Who reads does not see it, and who writes can't open the file."""
    home = _copy(logs[next(iter(logs))], tmp_path / "home")
    with closing(sqlite3.connect(home / "runner.db")) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_master SET sql = replace(sql, '(amount >= 0)', '(amound >= 0)') "
            "WHERE name = 'budget_use'"
        )
    with pytest.raises(StateError, match="damaged"):
        sqlite.create(home, FakeClock())
    assert isinstance(repair(home, FakeClock()), Repaired)
    sqlite.create(home, FakeClock()).close()
