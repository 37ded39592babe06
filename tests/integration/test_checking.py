"""A long log is checked by several processes, and judged as if there were one."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from runner.model.checkpoints import CheckpointRules
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.stores import check_worker, checking, sqlite
from runner.stores.reader import open_log
from runner.testing.fakes import FakeClock

EVENTS = 200
PART = 16

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="there is one processor only"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A log of some parts, with checkpoints in and between them."""
    home = tmp_path / "home"
    with closing(sqlite.create(home, FakeClock(), CheckpointRules(every_events=24))) as store:
        for n in range(EVENTS):
            with store.transaction() as transaction:
                draft = EventDraft(
                    EventKind.RUN_ENDED, {"n": n, "half": n / 2}, Principal(7, "ä"), f"run-{n}"
                )
                transaction.append(draft)
            if n == EVENTS // 2:
                store.rotate_key()
    return home


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the parts that children have checked, which are small."""
    monkeypatch.setattr(checking, "PART", PART)
    monkeypatch.setattr(checking, "WORTH_IT", 2 * PART)
    answered: list[int] = []
    decode = check_worker.decode

    def counting(data: bytes) -> object:
        part = decode(data)
        answered.append(-1 if part is None else part.start)
        return part

    monkeypatch.setattr(checking, "decode", counting)
    return answered


def _alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    with monkeypatch.context() as patch:
        patch.setattr(checking, "WORTH_IT", 1 << 60)
        return open_log(home).verify()


def _changed(home: Path, *statements: str) -> None:
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DROP TRIGGER events_stay")
        connection.execute("DROP TRIGGER events_are_kept")
        connection.execute("DROP TRIGGER checkpoints_stay")
        for statement in statements:
            connection.execute(statement)


def test_a_whole_log_is_checked_by_children(
    home: Path, many: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_log(home).verify()
    size = open_log(home).head().size
    assert found.ok
    assert found.size == size > EVENTS
    assert many == list(range(0, size, PART))
    assert found == _alone(home, monkeypatch)
    assert found.vouched is not None
    assert found.vouched.stored > 5


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET body = replace(body, 'half', 'hulf') WHERE seq = 100",
        "UPDATE events SET kind = 'run.started' WHERE seq = 95",
        "UPDATE events SET previous = zeroblob(32) WHERE seq = 96",
        "UPDATE events SET leaf_hash = zeroblob(32) WHERE seq = 111",
        "UPDATE events SET agent = x'ff' WHERE seq = 33",
        "UPDATE events SET time = 7 WHERE seq = 33",
        "UPDATE events SET body = 7 WHERE seq = 64",
        "DELETE FROM events WHERE seq = 80",
        "DELETE FROM events WHERE seq = 79",
        "DELETE FROM events WHERE seq = 0",
        "DELETE FROM events WHERE seq BETWEEN 32 AND 63",
        "DELETE FROM events WHERE seq > 150",
        "UPDATE events SET seq = 1000 WHERE seq = 50",
        "UPDATE events SET seq = 9223372036854775807 WHERE seq = 50",
        "INSERT INTO events SELECT 9223372036854775807, time, kind, run_id, agent, leaf_hash, "
        "previous, body FROM events WHERE seq = 10",
        "UPDATE checkpoints SET note = replace(note, char(10), 'x') WHERE size = "
        "(SELECT size FROM checkpoints ORDER BY size LIMIT 1 OFFSET 4)",
        "UPDATE tree SET peaks = zeroblob(length(peaks))",
        "UPDATE tree SET size = size - 1",
        "DELETE FROM log_keys WHERE seq > 0",
    ],
)
def test_what_was_changed_is_found_as_without_them(
    home: Path, many: list[int], monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    _changed(home, statement)
    found = open_log(home).verify()
    assert not found.ok
    assert many
    assert found == _alone(home, monkeypatch)


def test_two_parts_that_are_swapped_are_found(
    home: Path, many: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of their events holds by itself, but for the number."""
    _changed(
        home,
        f"UPDATE events SET seq = seq + 10000 WHERE seq BETWEEN {PART} AND {2 * PART - 1}",
        f"UPDATE events SET seq = seq - {PART} WHERE seq BETWEEN {2 * PART} AND {3 * PART - 1}",
        f"UPDATE events SET seq = seq - 10000 + {PART} WHERE seq > 10000",
    )
    found = open_log(home).verify()
    assert not found.ok
    assert found == _alone(home, monkeypatch)


def test_a_part_that_was_made_anew_is_found_by_its_link(
    home: Path, many: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its events hold, each by itself and behind the one before: of another log."""
    other = home.with_name("other")
    with closing(sqlite.create(other, FakeClock())) as store:
        for n in range(EVENTS):
            with store.transaction() as transaction:
                transaction.append(EventDraft(EventKind.RUN_ENDED, {"n": n}, None, f"run-{n}"))
    _changed(
        home,
        f"ATTACH '{other / 'runner.db'}' AS other",
        f"DELETE FROM events WHERE seq BETWEEN {2 * PART} AND {3 * PART - 1}",
        "INSERT INTO main.events SELECT * FROM other.events "
        f"WHERE seq BETWEEN {2 * PART} AND {3 * PART - 1}",
    )
    found = open_log(home).verify()
    assert found.failure is not None
    assert found.failure.seq == 2 * PART
    assert "it does not follow event" in found.failure.why
    assert found == _alone(home, monkeypatch)


@pytest.mark.parametrize("broken", ["/bin/false", "/nonexistent/python"])
def test_children_that_fail_are_done_without(
    home: Path, many: list[int], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    expected = _alone(home, monkeypatch)
    monkeypatch.setattr(sys, "executable", broken)
    assert open_log(home).verify() == expected
    assert not many


def test_a_child_that_is_killed_on_the_way_is_done_without(
    home: Path, many: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _alone(home, monkeypatch)
    answer: Callable[[checking._Child], object] = checking._Child.answer

    def dying(child: checking._Child) -> object:
        if len(many) == 5 and child._process is not None:
            child._process.kill()
            child._process.wait()
        return answer(child)

    monkeypatch.setattr(checking._Child, "answer", dying)
    assert open_log(home).verify() == expected
    assert len(many) < EVENTS // PART


def test_parts_pass_a_pipe_unchanged(home: Path) -> None:
    with closing(sqlite3.connect(home / "runner.db")) as connection:
        connection.text_factory = check_worker.undecoded
        rows = connection.execute(check_worker.ROWS, (0, EVENTS - 1)).fetchall()
    part = check_worker.check_part((check_worker.Row(*row) for row in rows), 0, EVENTS)
    assert part is not None
    assert part.telling
    assert check_worker.decode(check_worker.encode(part)) == part


@pytest.mark.parametrize("broken", ["", "UPDATE events SET kind = 'x' WHERE seq = 95"])
def test_progress_is_told(home: Path, many: list[int], broken: str) -> None:
    if broken:
        _changed(home, broken)
    told: list[tuple[int, int]] = []
    found = open_log(home).verify(progress=lambda done, every: told.append((done, every)))
    size = open_log(home).head().size
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert all(every == size for _, every in told)
    assert (told[-1] == (size, size)) == found.ok
