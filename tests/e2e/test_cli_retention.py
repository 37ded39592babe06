"""`runner audit archive`, `restore` and `repair`, as people call them."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing

import pytest

from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.stores import sqlite
from runner.testing.fakes import FakeClock


@pytest.fixture
def log(run_cli, runner_home, workspace):
    """A log of eight events."""
    with closing(sqlite.create(runner_home, FakeClock(time.time()))) as store:
        for n in range(7):
            with store.transaction() as tx:
                tx.append(EventDraft(EventKind.REQUEST_REFUSED, {"message": f"{n}"}, Principal(1)))
    return run_cli


def test_archive_and_restore(log, tmp_path):
    place, before = tmp_path / "archive", log("audit", "verify").stdout
    export = log("audit", "export").stdout
    done = log("audit", "archive", "--to", place, "--before", "5", "--prune")
    assert done.returncode == 0, done.stderr
    assert "events 0 to 4 are in a segment" in done.stdout
    assert "5 events were removed" in done.stdout
    assert json.loads(log("audit", "export").stdout.splitlines()[0])["seq"] == 5
    told = log("audit", "verify")
    assert told.returncode == 0, told.stderr
    assert "9 events" in told.stdout
    assert "the first 5 of them are archived" in told.stdout
    whole = log("audit", "verify", "--archive", place)
    assert whole.returncode == 0, whole.stderr
    assert "archived" not in whole.stdout
    (segment,) = place.iterdir()
    alone = log("audit", "verify", segment)
    assert "events 0 to 4" in alone.stdout
    assert alone.returncode == 0
    assert log("audit", "restore", place, "--into", tmp_path / "new").returncode == 0
    done = log("audit", "restore", place)
    assert "events 0 to 4 are in the log again" in done.stdout
    assert log("audit", "export").stdout.startswith(export)
    assert before.splitlines()[0].startswith("8 events")
    assert log("audit", "verify").stdout.startswith("10 events")


def test_what_is_missing_or_changed_is_named(log, tmp_path):
    place = tmp_path / "archive"
    log("audit", "archive", "--to", place, "--before", "3", "--prune")
    log("audit", "archive", "--to", place, "--before", "6", "--prune")
    first, second = sorted(place.iterdir())
    data = second.read_bytes()
    second.write_bytes(data[:-20])
    for words in (("--archive", place), (second,)):
        done = log("audit", "verify", *words)
        assert done.returncode == 1, done.stdout
        assert "event " in done.stderr
        assert "Traceback" not in done.stderr
    second.unlink()
    done = log("audit", "verify", "--archive", place)
    assert "event 3: it is missing" in done.stderr
    first.unlink()
    assert "event 0: it is missing" in log("audit", "verify", "--archive", place).stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("archive", "--to", "x", "--before", "99"), 2, "the log has 8"),
        (("archive", "--to", "x", "--before", "1", "--older-than", "1d"), 2, "give one"),
        (("archive", "--to", "x", "--older-than", "soon"), 2, "is no age"),
        (("archive", "--to", "/dev/null/x", "--before", "3"), 125, "could not be written"),
        (("archive", "--before", "3"), 2, "--to"),
        (("restore", "nowhere"), 2, "nothing is missing"),
        (("restore", "nowhere", "--into", "new"), 2, "no archive"),
        (("verify", "--archive", "nowhere"), 2, "no archive"),
        (("verify", "x.jsonl", "--archive", "x"), 2, "leave out the file"),
    ],
)
def test_bad_input(log, words, code, said):
    done = log("audit", *words)
    assert (done.returncode, said in done.stderr) == (code, True), done
    assert "Traceback" not in done.stderr
    assert log("audit", "verify").stdout.startswith("8 events")


def test_nothing_is_old_enough(log, tmp_path):
    done = log("audit", "archive", "--to", tmp_path / "archive", "--prune")
    assert done.returncode == 0
    assert "no event is to be archived" in done.stdout
    assert not (tmp_path / "archive").exists()


def test_repair(log, runner_home):
    done = log("audit", "repair")
    assert (done.returncode, "nothing is wrong" in done.stderr) == (2, True)
    with closing(sqlite3.connect(runner_home / "runner.db")) as db, db:
        db.execute("DROP TRIGGER events_stay")
        db.execute("UPDATE events SET body = x'7b7d' WHERE seq = 5")
    done = log("audit", "verify")
    assert done.returncode == 1
    assert "event 5" in done.stderr
    assert "`runner audit repair`" in done.stderr
    done = log("audit", "repair")
    assert done.returncode == 0, done.stderr
    assert "5 events are in the log again" in done.stdout
    assert "events 5 to 7 are missing" in done.stdout
    assert "2 events behind them" in done.stdout
    told = log("audit", "verify")
    assert told.stdout.startswith("6 events")
    assert "events 5 to 7 are missing" in log("audit", "show").stdout
    done = log("audit", "repair", "--against", runner_home / "runner.db")
    assert (done.returncode, "is no checkpoint" in done.stderr) == (2, True)
