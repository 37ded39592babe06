"""The rounds behind scripts/power-cuts: a log is damaged, opened and repaired, and looked at.

What is demanded of each, by `_power_oracle.py`, which knows what is left in the bytes:

- Opening gives at least all that is surely left, and all of it verifies; or runner refuses, or
  verification says what is wrong, in a sentence and never by a traceback. Where only the last
  transaction was torn it opens.
- A repair recovers at least all that is surely left and at most what left anything; the events are
  those that were, in their order; it says what is missing as far as a kept checkpoint tells. Its
  dry run says the same and changes nothing. The damaged files are kept.
- Afterwards the log verifies, the ledger says what its events say, and it goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import NoReturn

from _power_damage import DAMAGES, torn
from _power_logs import KINDS, make
from _power_oracle import Event, Oracle, read
from _soak_ledger import violations

from runner.audit.query import Query
from runner.audit.verify import Verification
from runner.clock import SystemClock
from runner.errors import RecordError, RequestError, RunnerError
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.stores import indexing, sqlite
from runner.stores.reader import open_log
from runner.stores.repairing import Checkpoint, Repaired, repair
from runner.stores.restoring import archived_rows
from runner.stores.searching import search

_WHO = Principal(os.geteuid(), "power-cuts")
_BY_COMMAND = 100  # each so many-th is looked at by the command line as well
_CODES = (0, 1, 2, 125)
_NEW = frozenset({"runner.db-shm", "runner.db-wal", "queue.lock", "search.db", "search.lock"})
"""Files that looking may make."""


class ViolationError(Exception):
    """What must not be."""


class Log:
    """One of `KINDS`, as it was before any damage."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.home = folder / kind
        whole = folder / f"{kind}-whole"
        shutil.copytree(self.home, whole)
        with closing(open_log(whole)) as log:
            self.beginning = log.beginning().size
            events = [Event(e.seq, e.leaf_hash, e.previous, e.body) for e in log.events()]
            head = log.head()
            rows = archived_rows(log, folder / "archive") if self.beginning else ()
            archived = {row.seq: row.leaf_hash for row in rows}
        self.checkpoint = Checkpoint(head.size, bytes.fromhex(head.root))
        self.size = head.size
        self.oracle = Oracle(self.home, events, self.beginning)
        self.leaves = archived | {event.seq: event.leaf for event in events}

    def copy(self, to: Path) -> Path:
        shutil.copytree(self.home, to, ignore=shutil.ignore_patterns("runs"))
        return to


class Trial:
    """One damage to one log."""

    def __init__(self, log: Log, home: Path, dice: Random) -> None:
        self.log = log
        self.home = log.copy(home)
        damage = dice.choice(DAMAGES)
        self.what = f"{log.kind}, {damage.__name__}: {damage(self.home, dice, log.oracle)}"
        # What is in the database as well was on the disk, and can't be torn.
        self._opens = damage is torn and bool(log.oracle.frames) and log.kind != "written"
        self._files = self._snapshot(self.home)
        left = read(self.home)
        self.sure = log.oracle.sure(left, opened=False)
        self.sure_opened = log.oracle.sure(left, opened=True)
        self.possible = log.oracle.possible(left)
        self._kept = dice.random() < 0.5
        self.result = ""
        """In a sentence."""
        self.kind = "not judged"
        """What came of it, in a word or two."""

    def judge(self, by_command: bool) -> None:
        """ViolationError, or whatever runner should have caught."""
        if by_command:
            self._commands()
        if not (self.home / "runner.db").exists() and not any(read(self.home).values()):
            self._check_gone()
            return
        other = self.home.with_name(f"{self.home.name}-opened")
        shutil.copytree(self.home, other)
        holds = self._open(other)
        shutil.rmtree(other)
        if self._opens and not holds:
            raise ViolationError(f"a log is refused of which only the end was torn: {self.result}")
        against = [self.log.checkpoint] if self._kept else []
        tried = self._repair(against, dry_run=True)
        self._check_unchanged()
        told = self._repair(against, dry_run=False)
        if (tried is None) != (told is None):
            raise ViolationError(f"the dry run says {tried}, the repair {told}")
        if tried is not None and told is not None:
            said = [(t.recovered, t.missing_to, t.known_from, t.unlinked) for t in (tried, told)]
            if said[0] != said[1]:
                raise ViolationError(f"the dry run says {said[0]}, the repair {said[1]}")
            self._check_repaired(told)
            self.result += f", repaired to {told.recovered} of {self.log.size}"
            self.kind += " and repaired"
        elif not holds:
            raise ViolationError(f"nothing is wrong with a log that does not hold: {self.result}")
        elif self._kept and holds < self.log.size:
            raise ViolationError(f"nothing is wrong with a log of {holds} events, as it was kept")
        self._go_on(self.home, None if told is None else told.recovered)

    def _check_gone(self) -> None:
        """Without a file of its own it is no log: another begins, which a checkpoint tells."""
        self.result = self.kind = "gone"
        if self._repair([], dry_run=False) is not None:
            raise ViolationError("a log was made of nothing")

    def _open(self, home: Path) -> int:
        """How many of its events a log has that is used as it is; 0: it does not hold."""
        try:
            with closing(sqlite.create(home, SystemClock())) as store:
                found = store.verify()
                if self._verified(found):
                    held = self._check_events(store, None)
                    self._search(home)
                    self.result, self.kind = f"opens with {held}", "opened"
                    return held
                self.result, self.kind = f"does not verify: {found.failure}", "not verified"
        except RunnerError as error:
            self.result, self.kind = f"refused: {error}", "refused"
            if "runner audit repair" not in str(error) and "queue" not in str(error):
                raise ViolationError(f"a refusal names no repair: {error}") from None
        return 0

    def _verified(self, found: Verification) -> bool:
        replaced = found.failure is not None and "the log's key was replaced" in found.failure.why
        return found.ok or (self.log.kind == "replaced" and replaced)

    def _check_events(self, store: sqlite.SqliteStore, recovered: int | None) -> int:
        """The log's events are those that were, as far as they go; how many of those it has."""
        events = list(store.events())
        had = self.log.size if recovered is None else recovered
        old = [event for event in events if event.seq < had]
        held = old[-1].seq + 1 if old else (recovered or 0)
        sure = self.sure_opened if recovered is None else self.sure
        if held < sure:
            raise ViolationError(f"{sure} events are surely left, and {held} are in the log")
        for event in old:
            if event.leaf_hash != self.log.leaves.get(event.seq):
                raise ViolationError(f"event {event.seq} is another one")
        if old and old[0].seq not in (0, self.log.beginning):
            raise ViolationError(f"the log begins with event {old[0].seq}")
        return held

    def _repair(self, against: Sequence[Checkpoint], *, dry_run: bool) -> Repaired | None:
        try:
            told = repair(self.home, SystemClock(), dry_run=dry_run, against=against)
        except RequestError as error:
            if "nothing is wrong" in str(error) or "there is no log" in str(error):
                return None
            raise
        if isinstance(told, str):
            raise ViolationError("a repair is said to have been interrupted")
        return told

    def _check_repaired(self, told: Repaired) -> None:
        if not self.sure <= told.recovered <= max(self.possible, self.log.beginning):
            raise ViolationError(
                f"{self.sure} events are surely left, {self.possible} possibly, and "
                f"{told.recovered} were recovered"
            )
        short = told.recovered < self.log.size
        if told.missing_to is not None and not told.recovered < told.missing_to <= self.log.size:
            raise ViolationError(f"events up to {told.missing_to} are said to be missing")
        if self._kept and (told.missing_to == self.log.size) != short:
            raise ViolationError(f"a checkpoint tells what is missing; {told.missing_to} is said")
        if told.unlinked_file is not None:
            lines = [json.loads(line) for line in told.unlinked_file.read_bytes().splitlines()]
            if len(lines) != told.unlinked:
                raise ViolationError("not so many events are put aside as it is said")
            if any(
                bytes.fromhex(line["leaf_hash"]) not in self.log.leaves.values() for line in lines
            ):
                raise ViolationError("an event is put aside that never was")
        assert told.damaged is not None
        for end in ("", "-wal"):
            aside = told.damaged.with_name(f"{told.damaged.name}{end}")
            if self._files.get(f"runner.db{end}", b"") != (
                aside.read_bytes() if aside.exists() else b""
            ):
                raise ViolationError(f"the damaged runner.db{end} is not kept as it was")

    def _check_unchanged(self) -> None:
        now = self._snapshot(self.home)
        for name in self._files.keys() | now.keys():
            if name == "runner.db-shm":  # SQLite makes it of the WAL
                continue
            if self._files.get(name) != now.get(name) and not (
                name in _NEW and name not in self._files and not now[name]
            ):
                raise ViolationError(f"the dry run has changed {name}")

    def _go_on(self, home: Path, recovered: int | None) -> None:
        try:
            with closing(sqlite.create(home, SystemClock())) as store:
                self._check_events(store, recovered)
                store.recover()
                if not self._verified(found := store.verify()):
                    raise ViolationError(f"what is left does not verify: {found.failure}")
                if self.log.kind != "archived" and (
                    wrong := violations(store, list(store.events()))
                ):
                    raise ViolationError("; ".join(wrong))
                self._run(store)
                if not self._verified(found := store.verify()):
                    raise ViolationError(f"what goes on does not verify: {found.failure}")
        except RunnerError as error:
            raise ViolationError(f"the log does not go on: {error}") from error

    @staticmethod
    def _run(store: sqlite.SqliteStore) -> None:
        def begin() -> None:
            with store.transaction() as tx:
                tx.append(EventDraft(EventKind.MACHINE_SWEPT, {"text": "x"}, None, None))
                tx.open_run("run-after", _WHO, "agent", "native")

        try:
            begin()
        except RecordError as error:
            if "key" not in str(error):
                raise
            store.rotate_key(lost=True)
            begin()

    def _search(self, home: Path) -> None:
        if self.log.kind != "closed":
            return
        with closing(open_log(home)) as log:
            query = Query(since=next(iter(log.events(None, self.log.size // 2))).time)
            plain = [event.seq for event in search(log, query, None, lambda _: None)]
            with indexing.caught_up(home, log, lambda _: None) as index:
                found = [event.seq for event in search(log, query, index, lambda _: None)]
        if plain != found:
            raise ViolationError(f"a search finds {len(found)} events, and there are {len(plain)}")

    def _commands(self) -> None:
        """As people see it."""
        home = self.home.with_name(f"{self.home.name}-commands")
        shutil.copytree(self.home, home)
        for words in (
            ["verify"], ["show"], ["export"], ["repair", "--dry-run"], ["repair"], ["checkpoint"],
        ):  # fmt: skip
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    "from runner.surfaces.cli.main import main; main()",
                    "audit",
                    *words,
                ],
                env={**os.environ, "RUNNER_HOME": str(home)},
                capture_output=True,
                check=False,
            )
            if done.returncode not in _CODES or b"Traceback" in done.stderr:
                said = done.stderr.decode("utf-8", "replace")[-2000:]
                raise ViolationError(f"audit {words[0]} ends with {done.returncode}: {said}")
        shutil.rmtree(home)

    @staticmethod
    def _snapshot(home: Path) -> dict[str, bytes]:
        return {
            str(file.relative_to(home)): file.read_bytes()
            for file in home.rglob("*")
            if file.is_file()
        }


def main() -> NoReturn:
    parser = argparse.ArgumentParser(prog="power-cuts", description=__doc__)
    parser.add_argument("--mutations", type=int, default=1000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the first; + 1 each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a summary to write")
    parser.add_argument("--verbose", action="store_true", help="tell of each")
    given = parser.parse_args()
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    # Of what is done here nothing has to be waited for, so memory will do where there is some.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory(dir=memory) as other:
        folder = Path(name)
        make(folder)
        logs = [Log(folder, kind) for kind in KINDS]
        for seed in range(given.seed, given.seed + given.mutations):
            dice = Random(seed)
            home = Path(other) / str(seed)
            trial = Trial(logs[seed % len(logs)], home, dice)
            try:
                trial.judge(seed % _BY_COMMAND == 0)
            except ViolationError as error:
                wrong.append(f"seed {seed}: {trial.what}: {error}")
            except Exception:
                wrong.append(f"seed {seed}: {trial.what}: {traceback.format_exc()}")
            if wrong and wrong[-1].startswith(f"seed {seed}:"):
                print(wrong[-1], flush=True)
            elif given.verbose:
                print(f"seed {seed}: {trial.what}: {trial.result}", flush=True)
            seen[trial.kind] += 1
            for left in home.parent.glob(f"{seed}*"):
                shutil.rmtree(left)
    told = ", ".join(f"{count} {what}" for what, count in sorted(seen.items()))
    print(f"{given.mutations} logs damaged: {told}; {len(wrong)} violations")
    if given.json is not None:
        given.json.write_text(json.dumps({"seen": seen, "violations": wrong}))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
