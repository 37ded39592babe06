"""Searching a log by its index and without one: alike, whatever happens to the index."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from runner.audit.facets import Field
from runner.audit.query import Query, query
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.stores import sqlite
from runner.stores.archiving import archive
from runner.stores.indexing import LOCK_NAME, caught_up, forget
from runner.stores.postings import BLOCK
from runner.stores.reader import open_log
from runner.stores.repairing import repair
from runner.stores.restoring import restore
from runner.stores.search_index import FILE_NAME
from runner.stores.searching import search
from runner.testing.fakes import FakeClock

ROOT = Path(__file__).resolve().parents[2]
MAKER = ROOT / "bench" / "audit_log_maker.py"
NOW_S = 1_800_000_000.0
EVENTS = 20_000
TABLES = ("blocks", "postings", "state", "terms")


def make_log(home: Path, events: int) -> Path:
    subprocess.run(
        [sys.executable, MAKER, home, str(events)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    return home


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large log, which is only read."""
    return make_log(tmp_path_factory.mktemp("made") / "home", EVENTS)


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be worked on."""
    shutil.copytree(made, tmp_path / "home", ignore=shutil.ignore_patterns("search.*"))
    (tmp_path / "home").chmod(0o700)
    return tmp_path / "home"


def asked(**texts: str) -> Query:
    others = {name: texts.pop(name) for name in ("run_id", "since", "until") if name in texts}
    return query(
        {getattr(Field, name.upper()): [text] for name, text in texts.items()},
        now_s=NOW_S,
        **others,
    )


def found(home: Path, what: Query, *, newest_first: bool = False) -> tuple[list[int], list[str]]:
    """Numbers of what an index finds, and what was told."""
    told: list[str] = []
    with closing(open_log(home)) as log, caught_up(home, log, told.append) as index:
        events = search(log, what, index, told.append, newest_first=newest_first)
        return [event.seq for event in events], told


def read(home: Path, what: Query, *, newest_first: bool = False) -> list[int]:
    """The same without an index."""
    with closing(open_log(home)) as log:
        events = search(log, what, None, pytest.fail, newest_first=newest_first)
        return [event.seq for event in events]


def contents(home: Path) -> dict[str, list[object]]:
    """All that an index holds, terms by their texts."""
    with closing(sqlite3.connect(home / FILE_NAME)) as db:
        every = {
            table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES
        }
    texts = {number: (field, text) for number, field, text in every["terms"]}
    every["postings"] = sorted((texts[term], *rest) for term, *rest in every["postings"])
    every["terms"] = sorted(texts.values())
    return every


def write(store: sqlite.SqliteStore, agent: str = "late", **data: object) -> int:
    with store.transaction() as tx:
        draft = EventDraft(EventKind.REQUEST_REFUSED, {"message": "m", **data}, Principal(1, agent))
        return tx.append(draft).seq


def times(home: Path) -> list[str]:
    with closing(sqlite3.connect(home / "runner.db")) as db:
        return [row[0] for row in db.execute("SELECT time FROM events ORDER BY seq")]


def test_the_log_that_was_made_holds(made):
    with closing(open_log(made)) as log:
        told = log.verify()
    assert told.ok, told.failure
    assert told.size == EVENTS
    assert told.vouched is not None
    assert told.vouched.covered == EVENTS


def test_an_index_finds_what_reading_everything_finds(home):
    when = times(home)
    chance = random.Random(7)
    some = {
        "agent": ["agent-1", "agent-1?", "*", "nobody"],
        "effect": ["deny", "allow", "[ad]*"],
        "rule": ["rule-7", "rule-*"],
        "program": ["curl", "p*"],
        "host": ["db.example.org", "*.org"],
        "kind": ["run.ended", "run.*"],
        "profile": ["ci"],
        "label": ["task=1*"],
        "session": ["agent-3-0"],
        "termination": ["limit", "denied"],
    }
    any_found = 0
    for _ in range(40):
        names = chance.sample(sorted(some), chance.choice((0, 1, 1, 2, 3)))
        texts = {name: chance.choice(some[name]) for name in names}
        if chance.random() < 0.6:
            texts["since"] = chance.choice(when)
        if chance.random() < 0.6:
            texts["until"] = chance.choice(when)
        what, newest_first = asked(**texts), chance.random() < 0.5
        by_index, told = found(home, what, newest_first=newest_first)
        assert by_index == read(home, what, newest_first=newest_first), texts
        assert not told
        any_found += bool(by_index)
    assert any_found > 12


def test_it_is_caught_up_with_in_steps_and_is_the_same_as_at_once(home):
    what = asked(agent="late", kind="request.refused")
    with closing(sqlite.create(home, FakeClock(NOW_S))) as store:
        for step in range(3):
            for _ in range(step * 5 + 1):
                last = write(store)
            assert found(home, what)[0][-1] == last
    in_steps = contents(home)
    forget(home)
    assert not (home / FILE_NAME).exists()
    assert found(home, what) == (read(home, what), [])
    assert contents(home) == in_steps


def test_a_block_is_filled_event_by_event(tmp_path):
    with closing(sqlite.create(tmp_path / "home", FakeClock(NOW_S))) as store:
        for n in range(300):  # past 255, where numbers become bits
            with store.transaction() as tx:
                draft = EventDraft(EventKind.REQUEST_REFUSED, {"message": ""}, Principal(1, "a"))
                tx.append(draft)
            if n % 30 == 0:
                found(store.home, asked(agent="a"))
    assert found(tmp_path / "home", asked(agent="a"))[0] == [*range(1, 301)]


def test_a_clock_that_was_set_back_hides_nothing(tmp_path):
    clock = FakeClock(NOW_S)
    with closing(sqlite.create(tmp_path / "home", clock)) as store:
        for n in range(50):
            write(store, profile=f"p-{n}")
            clock.step(-3600 if n % 2 else 1800)
        for since, until in (("2h", "30m"), ("20h", "1h"), ("40h", "39h")):
            what = asked(agent="late", since=since, until=until)
            assert found(store.home, what)[0] == read(store.home, what)
        assert read(store.home, asked(agent="late", since="2h"))


@pytest.mark.parametrize(
    "doctor",
    [
        "DELETE FROM postings",
        "UPDATE postings SET events = x'00000100FF0F'",
        "UPDATE postings SET events = randomblob(512)",
        "UPDATE postings SET events = 'text'",
        "UPDATE postings SET events = x'FFFF'",
        "UPDATE postings SET events = x'00'",
        "UPDATE postings SET block = block + 1000000",
        "UPDATE terms SET id = -id",
        "DELETE FROM terms",
        "UPDATE terms SET text = x'FF' || id",
        "UPDATE blocks SET earliest = '9', latest = '0'",
        "DELETE FROM blocks",
    ],
)
def test_a_doctored_index_can_hide_and_never_invents(home, doctor):
    what = asked(agent="agent-1*", effect="deny")
    truth = found(home, what)[0]
    assert truth
    with closing(sqlite3.connect(home / FILE_NAME)) as db, db:
        db.execute(doctor)
    assert set(found(home, what)[0]) <= set(truth)
    assert read(home, what) == truth
    forget(home)
    assert found(home, what) == (truth, [])


@pytest.mark.parametrize(
    ("doctor", "says"),
    [
        ("UPDATE state SET log_id = 'x'", "another log"),
        ("UPDATE state SET last_hash = zeroblob(32)", "other events"),
        ("UPDATE state SET size = size + 5", "does not have"),
        ("UPDATE state SET size = size - 5", "other events"),
        ("UPDATE state SET size = -5", "damaged"),
        ("UPDATE state SET last_hash = 'x'", "damaged"),
        ("CREATE TABLE more (a)", "damaged"),
        ("PRAGMA user_version = 7", "damaged"),
        ("DROP TABLE terms", "damaged"),
        ("DROP TABLE postings; CREATE VIEW postings AS SELECT 1 AS term, 2 AS block", "damaged"),
    ],
)
def test_an_index_that_is_not_the_logs_is_made_anew(home, doctor, says):
    what = asked(agent="agent-1*", effect="deny")
    truth = found(home, what)[0]
    with closing(sqlite3.connect(home / FILE_NAME)) as db:
        db.executescript(doctor)
    numbers, told = found(home, what)
    assert numbers == truth
    assert len(told) == 1
    assert says in told[0]
    assert found(home, what) == (truth, [])


def test_a_broken_file_hides_nothing(home):
    what = asked(agent="agent-1*", effect="deny")
    truth = found(home, what)[0]
    chance = random.Random(3)
    whole = (home / FILE_NAME).read_bytes()
    for _ in range(25):
        broken = bytearray(whole)
        for _ in range(chance.choice((1, 20))):
            at = chance.randrange(len(broken) // 4096) * 4096
            broken[at : at + 4096] = chance.choice((bytes(4096), chance.randbytes(4096)))
        if chance.random() < 0.3:
            broken = broken[: chance.randrange(len(broken))]
        for end in ("-wal", "-shm"):
            (home / f"{FILE_NAME}{end}").unlink(missing_ok=True)
        (home / FILE_NAME).write_bytes(broken)
        numbers, told = found(home, what)
        # A page of bytes can be a list of events by chance: then it is one that was doctored.
        assert set(numbers) <= set(truth)
        assert numbers == truth or told
        assert all("damaged" in each or "can't be used" in each for each in told)
    forget(home)
    assert found(home, what) == (truth, [])


def test_an_index_of_another_log_is_not_believed(home, tmp_path):
    other = make_log(tmp_path / "other", 3_000)
    assert found(other, asked(agent="*"))[0]
    shutil.copyfile(other / FILE_NAME, home / FILE_NAME)
    what = asked(agent="agent-2")
    numbers, told = found(home, what)
    assert numbers == read(home, what)
    assert "another log" in told[0]


def test_a_pruned_log_and_its_return(home, tmp_path):
    what = asked(agent="agent-1*", effect="deny")
    truth = found(home, what)[0]
    clock = FakeClock(NOW_S)
    with closing(sqlite.create(home, clock)) as store:
        archive(store, tmp_path / "archive", 2 * BLOCK + 7, prune_too=True, segment_events=BLOCK)
    left = [number for number in truth if number >= 2 * BLOCK + 7]
    assert 0 < len(left) < len(truth)
    assert found(home, what) == (left, [])
    assert found(home, what, newest_first=True) == (left[::-1], [])
    forget(home)
    assert found(home, what) == (left, [])
    with closing(sqlite.create(home, clock)) as store:
        restore(store, tmp_path / "archive")
    numbers, told = found(home, what)
    assert numbers == truth
    assert "came back" in told[0]
    assert found(home, what) == (truth, [])


def test_what_is_of_archived_events_is_dropped(home, tmp_path, monkeypatch):
    monkeypatch.setattr("runner.stores.indexing._FORGOTTEN_BLOCKS", 2)
    what = asked(agent="agent-1*")
    truth = found(home, what)[0]
    with closing(sqlite.create(home, FakeClock(NOW_S))) as store:
        archive(store, tmp_path / "archive", 3 * BLOCK + 1, prune_too=True)
    assert found(home, what) == ([each for each in truth if each > 3 * BLOCK], [])
    assert min(row[1] for row in contents(home)["postings"]) == 3


def test_all_that_was_indexed_was_archived(home, tmp_path):
    found(home, asked(agent="x"))
    with closing(sqlite.create(home, FakeClock(NOW_S))) as store:
        write(store)
        archive(store, tmp_path / "archive", EVENTS + 1, prune_too=True)
        number = write(store)
    numbers, told = found(home, asked(agent="late"))
    assert numbers == [number]
    assert "ends before the log begins" in told[0]


def test_a_repair_takes_it_away(home):
    what = asked(agent="agent-1*")
    truth = found(home, what)[0]
    with closing(sqlite3.connect(home / "runner.db")) as db, db:
        db.execute("DELETE FROM tree")
    repair(home, FakeClock(NOW_S))
    assert not (home / FILE_NAME).exists()
    assert found(home, what) == (truth, [])


def test_a_damaged_event_is_left_out_and_told(home):
    with closing(sqlite3.connect(home / "runner.db")) as db, db:
        db.execute("DROP TRIGGER events_stay")
        for seq, body in ((5, b"{"), (6, b"[" * 100_000), (7, "text"), (9, b"7")):
            db.execute("UPDATE events SET body = ? WHERE seq = ?", (body, seq))
        db.execute("UPDATE events SET leaf_hash = 'x' WHERE seq = 11")
    numbers, told = found(home, asked(since="2000-01-01"))
    assert numbers == [n for n in range(EVENTS) if n not in (5, 6, 7, 9)]
    assert [each.split(" is ")[0] for each in told] == [f"event {n}" for n in (5, 6, 7, 9)]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM blocks",
        "UPDATE blocks SET latest = '0001'",
        "UPDATE blocks SET earliest = '9999-01-01T00:00:00Z'",
        "UPDATE blocks SET latest = NULL",
    ],
)
def test_a_damage_that_sqlite_does_not_see_hides_nothing(home, damage):
    whole, _ = found(home, asked(since="2000-01-01"))
    with closing(sqlite3.connect(home / FILE_NAME)) as index, index:
        index.execute(damage)
    numbers, told = found(home, asked(since="2000-01-01"))
    assert numbers == whole
    assert told


@pytest.mark.parametrize("obstacle", ["folder", "link", "lock"])
def test_where_there_can_be_no_index_the_whole_log_is_read(home, obstacle, tmp_path):
    if obstacle == "folder":
        (home / FILE_NAME).mkdir()
    elif obstacle == "link":
        (home / FILE_NAME).symlink_to(tmp_path / "elsewhere")
    else:
        (home / LOCK_NAME).symlink_to(tmp_path / "elsewhere")
    what = asked(agent="agent-1*")
    numbers, told = found(home, what)
    assert numbers == read(home, what)
    assert "can't be used, so the whole log is read" in told[0]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.root
def test_root_leaves_nothing_in_the_state_of_somebody_else(home):
    os.chown(home, 12345, 12345)
    what = asked(agent="agent-1*")
    numbers, told = found(home, what)
    assert numbers == read(home, what)
    assert "somebody else's" in told[0]
    assert not [*home.glob("search*")]


def test_the_file_is_its_owners_alone(home):
    found(home, asked(agent="x"))
    for each in home.glob("search*"):
        assert each.stat().st_mode & 0o777 == 0o600, each


CATCH_UP = """
import sys, time
from pathlib import Path
from runner.audit.query import query
from runner.stores.indexing import caught_up
from runner.stores.reader import open_log
from runner.stores.searching import search

home, pause_s = Path(sys.argv[1]), float(sys.argv[2])

def progress(done, every):
    print("at", done, flush=True)
    time.sleep(pause_s)

log = open_log(home)
with caught_up(home, log, print, progress) as index:
    what = query({1: ["agent-1*"], 4: ["deny"]}, now_s=0)
    print("found", [event.seq for event in search(log, what, index, print)], flush=True)
"""


def catching_up(home: Path, pause_s: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CATCH_UP, home, str(pause_s)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events for three commits of an index."""
    return make_log(tmp_path_factory.mktemp("larger") / "home", 140_000)


@pytest.fixture
def without_index(larger: Path) -> Callable[[], Path]:
    def forgotten() -> Path:
        forget(larger)
        return larger

    return forgotten


def test_who_is_killed_while_catching_up_leaves_an_index_that_can_be_gone_on_with(without_index):
    home = without_index()
    process = catching_up(home, pause_s=60)
    assert process.stdout is not None
    assert process.stdout.readline() == "at 65536\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with closing(sqlite3.connect(home / FILE_NAME)) as db:
        assert db.execute("SELECT size FROM state").fetchone() == (65536,)
    what = asked(agent="agent-1*", effect="deny")
    assert found(home, what) == (read(home, what), [])
    after_a_kill = contents(home)
    without_index()
    assert found(home, what) == (read(home, what), [])
    assert contents(home) == after_a_kill


def test_several_processes_search_at_once(without_index):
    home = without_index()
    processes = [catching_up(home) for _ in range(4)]
    said = [process.communicate(timeout=300)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    truth = read(home, asked(agent="agent-1*", effect="deny"))
    assert truth
    assert {lines[-1] for lines in said} == {f"found {truth}"}
    # One of them did the work, and nobody did any of it twice.
    did = [[line for line in lines if line.startswith("at ")] for lines in said]
    assert sorted(map(len, did)) == [0, 0, 0, 3]
