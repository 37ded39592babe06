"""The logs that power cuts are tried on: each is written by a process that is killed afterwards.

    python _power_logs.py FOLDER

What is killed with SIGKILL leaves its WAL behind, as a power cut does.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import traceback
from contextlib import closing
from pathlib import Path

from _soak_ledger import BUDGETS

from runner import Runner
from runner.settings import load_settings
from runner.stores import indexing
from runner.stores.archiving import archive
from runner.stores.reader import open_log
from runner.stores.sqlite import SqliteStore
from runner.testing.fakes import FakeBackend, exited

KINDS = {
    "wal": "all but the first events in the WAL",
    "reused": "a WAL that is used again, with frames of an earlier one behind its own",
    "written": "a WAL all of which is in the database too",
    "closed": "no WAL, and a search index",
    "archived": "the first events archived",
    "replaced": "a signing key that was lost and replaced by another",
}
_RUNS = 12
_LONG = 400  # words of a command, now and then, whose event needs pages of its own
_CHECKPOINT_EVENTS = 8
_ARCHIVED = 20


def make(folder: Path) -> None:
    """State folders of these names, each as the process that wrote it left it."""
    done = subprocess.run(
        [sys.executable, __file__, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "RUNNER_CHECKPOINT_EVENTS": str(_CHECKPOINT_EVENTS)},
    )
    if done.returncode != 0:
        sys.exit(f"the logs could not be made: {done.stdout}{done.stderr}")


def _main(folder: Path) -> None:
    for kind in KINDS:
        child = os.fork()
        if child == 0:
            try:
                _write(folder / kind, kind)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(70)
        _, status = os.waitpid(child, 0)
        if status != (0 if kind == "closed" else signal.SIGKILL):
            sys.exit(f"{kind}: wait status {status}")


def _write(home: Path, kind: str) -> None:
    work = home.parent / f"{kind}-work"
    work.mkdir()
    profile = home.parent / f"{kind}.yaml"
    profile.write_text(f"extends: agent\n{BUDGETS}")
    runner = Runner(settings=load_settings({"home": str(home), "backend": "native"}))
    ends = [exited(n % 3, wall_s=n / 8, cpu_user_s=n / 16, cpu_system_s=0.0) for n in range(99)]
    runner._backends["native"] = FakeBackend(ends)
    store = runner.store
    assert isinstance(store, SqliteStore)
    for n in range(_RUNS):
        words = ["sudo", "id"] if n % 5 == 4 else ["true", f"run {n}"]
        if n % 4 == 1:
            words += [f"{n}-{word}" for word in range(_LONG)]
        runner.run(words, cwd=work, profile=str(profile), agent=f"a{n % 3}")
        if n == _RUNS // 2:
            if kind == "reused":
                _write_back(home)
            if kind == "archived":
                archive(store, home.parent / "archive", _ARCHIVED, prune_too=True)
            if kind == "replaced":
                for file in (home / "keys").iterdir():
                    file.unlink()
                store.rotate_key(lost=True)
    if kind == "written":
        _write_back(home)
    if kind == "closed":
        runner.close()
        with closing(open_log(home)) as log, indexing.caught_up(home, log, print):
            return
    os.kill(os.getpid(), signal.SIGKILL)


def _write_back(home: Path) -> None:
    with closing(sqlite3.connect(home / "runner.db", timeout=15)) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
