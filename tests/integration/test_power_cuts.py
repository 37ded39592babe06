"""Logs damaged in fixed ways, opened and repaired; scripts/power-cuts does it for long.

What is known to have been got wrong stands here by itself, as small as it can be.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from soaking import soaked

from runner.errors import RequestError, StateError
from runner.model.event import EventDraft, EventKind
from runner.stores import sqlite
from runner.stores.changes import ChangeArchive
from runner.stores.reader import open_log
from runner.stores.repairing import Checkpoint, Repaired, repair
from runner.testing.fakes import FakeClock

CUTS = "_power_cuts.py"
PAGE, FRAME, WAL_HEAD = 4096, 4096 + 24, 32


def test_nothing_provable_is_lost(tmp_path: Path) -> None:
    code, found, said = soaked(CUTS, tmp_path, "--mutations", "90", "--seed", "1")
    assert code == 0, said
    assert found["violations"] == []
    assert found["seen"]["opened"] > 10
    assert found["seen"]["refused and repaired"] > 10
    assert found["seen"]["not verified and repaired"] > 2


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        ("import runner.stores.wal as m; m.loses_commits = lambda path: False", "surely left"),
        (
            "import runner.stores.repairing as m; m._missing = lambda *words: (None, None)",
            "a checkpoint tells what is missing",
        ),
    ],
    ids=["lost commits unseen", "nothing missing"],
)
def test_a_broken_runner_is_found_out(tmp_path: Path, broken: str, seen: str) -> None:
    """The twin: the same damages are violations when what they look for is there."""
    code, found, said = soaked(CUTS, tmp_path, "--mutations", "40", "--seed", "1", broken=broken)
    assert code == 1, said
    assert any(seen in violation for violation in found["violations"]), said


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A log of 10 events in a WAL, as a power cut leaves it: each is a transaction of its own."""
    live = tmp_path / "live"
    with closing(sqlite.create(live, FakeClock())) as store:
        size = store.head().size
        while size < 10:
            _append(store, size)
            size = store.head().size
        to = tmp_path / "home"
        to.mkdir(mode=0o700)
        for name in ("runner.db", "runner.db-wal"):
            shutil.copyfile(live / name, to / name)
        shutil.copytree(live / "keys", to / "keys")
    return to


def _append(store: sqlite.SqliteStore, number: int) -> None:
    with store.transaction() as tx:
        tx.append(EventDraft(EventKind.MACHINE_SWEPT, {"number": number}))


def _spoil(file: Path, at: int, size: int) -> None:
    data = bytearray(file.read_bytes())
    data[at : at + size] = b"\xa5" * size
    file.write_bytes(data)


def _repaired(home: Path, *against: Checkpoint) -> Repaired:
    told = repair(home, FakeClock(), against=against)
    assert isinstance(told, Repaired)
    return told


def _frames(home: Path) -> int:
    return ((home / "runner.db-wal").stat().st_size - WAL_HEAD) // FRAME


MAPPED = """
import ctypes, os, sys
try:
    library = ctypes.CDLL("libsqlite3.so.0")
except OSError as error:
    sys.exit(f"none: {error}")
# SQLITE_CONFIG_MMAP_SIZE, before anything starts the library: as if it had been built so.
library.sqlite3_config(22, ctypes.c_longlong(1 << 26), ctypes.c_longlong(1 << 30))
from pathlib import Path
from runner.stores import database
import sqlite3
path = Path(sys.argv[1])
if sys.argv[2] == "runner":
    reader = database.connect(path, "ro")
else:
    reader = sqlite3.connect(path)
reader.execute("PRAGMA cache_size = 1")
rows = reader.execute("SELECT x FROM t")
rows.fetchone()
os.truncate(path, 8192)
try:
    rows.fetchall()
except sqlite3.DatabaseError:
    print("told")
"""


def test_a_database_that_is_cut_while_it_is_read_is_an_error_and_no_crash(tmp_path: Path) -> None:
    """Its twin is a connection with what the library does by itself."""
    ended = {}
    for whose in ("runner", "sqlite"):
        path = tmp_path / f"{whose}.db"
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("CREATE TABLE t (x)")
            db.executemany("INSERT INTO t VALUES (?)", [("x" * 2000,)] * 500)
        ended[whose] = subprocess.run(
            [sys.executable, "-c", MAPPED, path, whose], capture_output=True, text=True, check=False
        )
    assert (ended["runner"].returncode, ended["runner"].stdout) == (0, "told\n"), ended
    if ended["sqlite"].returncode != -signal.SIGBUS:
        pytest.skip("this SQLite maps no file, whatever it is told")


def test_what_stands_behind_a_damaged_frame_is_recovered(home: Path) -> None:
    """Its page is another version of one that later frames have again; its header may be gone."""
    for spoiled in (24, 24 + PAGE):
        copy = home.with_name(f"spoiled-{spoiled}")
        shutil.copytree(home, copy)
        _spoil(copy / "runner.db-wal", WAL_HEAD + FRAME * 2, spoiled)
        with pytest.raises(StateError, match="committed events stand behind"):
            open_log(copy)
        assert _repaired(copy).recovered == 10


def test_a_wal_whose_header_is_gone_is_read_by_its_frames(home: Path) -> None:
    _spoil(home / "runner.db-wal", 0, WAL_HEAD + 24)
    with pytest.raises(StateError, match="committed events stand behind"):
        sqlite.create(home, FakeClock())
    assert _repaired(home).recovered == 10


def test_a_log_that_is_torn_at_its_end_opens(home: Path) -> None:
    """The header of the last frame, its salts too, as nobody waited for that commit."""
    _spoil(home / "runner.db-wal", WAL_HEAD + FRAME * (_frames(home) - 1), 24)
    with closing(sqlite.create(home, FakeClock())) as store:
        assert [event.seq for event in store.events()][:9] == list(range(9))
        assert store.verify().ok


def test_a_wal_that_is_in_the_database_too_may_lose_its_header(home: Path) -> None:
    """It was about to be used again: its new header was torn, and nothing stands behind it."""
    kept = (home / "runner.db-wal").read_bytes()
    with closing(sqlite3.connect(home / "runner.db")) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    (home / "runner.db-wal").write_bytes(kept)
    _spoil(home / "runner.db-wal", 0, WAL_HEAD)
    with closing(sqlite.create(home, FakeClock())) as store:
        assert [event.seq for event in store.events()] == list(range(10))
        assert store.verify().ok


def test_a_wal_that_has_less_than_the_database_is_damaged(home: Path) -> None:
    """Else what is in the database would be undone by the older pages of its WAL."""
    kept = (home / "runner.db-wal").read_bytes()
    with closing(sqlite3.connect(home / "runner.db")) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    (home / "runner.db-wal").write_bytes(kept[: len(kept) // 2])
    with pytest.raises(StateError, match=r"has less than the database: `runner audit repair`"):
        sqlite.create(home, FakeClock())
    assert _repaired(home).recovered == 10


def test_a_schema_that_is_no_text_is_damage(home: Path) -> None:
    _plain(home)
    data = (home / "runner.db").read_bytes()
    name = b"CREATE TABLE events"
    (home / "runner.db").write_bytes(data.replace(name, b"CREATE \xff\xfe\xfdLE events", 1))
    for act in (lambda: sqlite.create(home, FakeClock()), lambda: open_log(home).head()):
        with pytest.raises(StateError, match="`runner audit repair`"):
            act()
    assert _repaired(home).recovered == 10


def test_a_log_that_is_shorter_than_a_checkpoint_is_repaired(home: Path) -> None:
    """Nothing else tells of it, and it holds: what is missing is recorded."""
    whole = home.with_name("whole")
    shutil.copytree(home, whole)
    with closing(open_log(whole)) as log:
        head = log.head()
    os.truncate(home / "runner.db-wal", WAL_HEAD + FRAME * (_frames(home) // 2))
    with closing(open_log(home)) as log:
        size = log.head().size
        assert log.verify().ok
    assert size < 10
    with pytest.raises(RequestError, match="nothing is wrong"):
        repair(home, FakeClock())
    told = _repaired(home, Checkpoint(head.size, bytes.fromhex(head.root)))
    assert (told.recovered, told.missing_to, told.known_from) == (size, 10, "checkpoint")


def test_a_key_that_was_replaced_is_no_damage(home: Path) -> None:
    with closing(sqlite.create(home, FakeClock())) as store:
        for file in (home / "keys").iterdir():
            file.unlink()
        store.rotate_key(lost=True)
        assert not store.verify().ok, "who reads has to say that the new key is right"
    with pytest.raises(RequestError, match="nothing is wrong"):
        repair(home, FakeClock())


def test_a_table_of_keys_that_is_empty_is_damage(home: Path) -> None:
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        db.execute("DELETE FROM log_keys")
    with closing(open_log(home)) as log:
        failure = log.verify().failure
    assert failure is not None
    assert "table of the log's keys" in failure.why
    assert _repaired(home).recovered == 10


def test_nothing_is_made_of_nothing(home: Path) -> None:
    (home / "runner.db").unlink()
    os.truncate(home / "runner.db-wal", 0)
    with pytest.raises(RequestError, match="there is no log"):
        repair(home, FakeClock())


def test_contents_are_on_the_disk_before_the_list_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noting)
    keeper = ChangeArchive(tmp_path, FakeClock(), 1 << 20).keeper("run-1")
    assert keeper is not None
    names = []
    for data in (b"one", b"two"):
        content = keeper.begin()
        content.write(data)
        names.append(content.finish()[0])
    assert keeper.finish(b"{}") is None
    assert sorted(synced[1:3]) == sorted(names)
    assert synced[0] == tmp_path.name
    assert synced[3:] == [".manifest.json", "run-1", "changes"]


def _plain(home: Path) -> None:
    with closing(sqlite3.connect(home / "runner.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
