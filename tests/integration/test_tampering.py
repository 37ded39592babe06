"""Whatever is done to a log is found, by verification or by a checkpoint that somebody kept.

The log is a real store's and has an event of each kind; what is done to it is done in memory, as
somebody would do it who can write the database: first without the private key, then with one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from runner.audit.canonical import canonical_again
from runner.audit.checkpoint import Checkpoint
from runner.audit.event import NO_PREVIOUS
from runner.audit.keychain import NamedKey, rotation_text
from runner.audit.merkle import Tree, leaf_hash, tree_of
from runner.audit.note import Signer, sign
from runner.audit.stored_event import Row
from runner.audit.verify import StoredTree, Verification, verify
from runner.audit.vouching import StoredNote, Vouching, kept_notes
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.stores import sqlite
from runner.stores.against import keys_named

# What an event of each kind may hold: enough of every JSON type, nested as in real ones.
DATA: dict[str, object] = {
    "text": "curl https://example.org | sh",
    "number": 7,
    "fraction": 0.5,
    "yes": True,
    "nothing": None,
    "list": ["a", {"id": "x"}, 3],
    "object": {"effect": "deny", "exit_code": 126},
}
OF_THE_LOG = {"log.created", "key.created", "key.rotated", "key.replaced", "log.archived"}
WHO = Principal(1000, "coder", "planner", "s", "t")


class WallClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> float:
        return time.time()


@dataclass(frozen=True)
class Log:
    """A log as its database holds it, and what somebody else kept of it."""

    rows: tuple[Row, ...]
    stored: StoredTree
    notes: tuple[StoredNote, ...]
    named: tuple[NamedKey, ...]
    kept: tuple[StoredNote, ...] = ()
    trusted: str | None = None

    def verified(self) -> Verification:
        vouching = Vouching(self.notes, self.kept, trusted=self.trusted, named=self.named)
        return verify(iter(self.rows), self.stored, vouching=vouching)

    def failure(self) -> tuple[int, str]:
        found = self.verified()
        assert found.failure is not None, "nobody noticed"
        return found.failure.seq, found.failure.why


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """Each kind of event twice, a rotation between, checkpoints now and then, which are kept."""
    home = tmp_path_factory.mktemp("log") / "state"
    kept = ""
    with closing(sqlite.create(home, WallClock())) as store:
        first_key = store.key()
        kinds = [kind for kind in EventKind if kind.value not in OF_THE_LOG]
        for turn in range(2):
            for number, kind in enumerate(kinds):
                with store.transaction() as tx:
                    tx.append(EventDraft(kind, {**DATA, "number": number}, WHO, f"run-{number}"))
                if number % 4 == 3:
                    kept += store.checkpoint() + "\n"
            if turn == 0:
                store.rotate_key()
        kept += store.checkpoint()
        with store.reader.reading() as connection:
            rows = connection.execute(
                "SELECT seq, time, kind, run_id, agent, leaf_hash, previous, body FROM events"
            ).fetchall()
            tree = connection.execute("SELECT size, peaks FROM tree").fetchone()
            notes = connection.execute(
                "SELECT size, note FROM checkpoints ORDER BY size"
            ).fetchall()
            named = tuple(keys_named(connection))
    return Log(
        tuple(Row(*row) for row in rows),
        StoredTree(*tree),
        tuple(StoredNote(*note) for note in notes),
        named,
        tuple(kept_notes(kept)),
        first_key,
    )


def _seq_of(log: Log, kind: str) -> list[int]:
    return [n for n, row in enumerate(log.rows) if row.kind == kind]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """To every field of an event, the containers among them."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index))


def _changed(value: Any) -> Any:
    """Another value of the same type, where there is one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return ("0" if value[:1] != "0" else "1") + value[1:]
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, "more"]
    if isinstance(value, dict):
        return {**value, "more": 1}
    return "something"


def _with(event: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    copy = json.loads(json.dumps(event))
    holder = copy
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = _changed(holder[path[-1]])
    return copy


def _columns(body: bytes, leaf: bytes) -> Row:
    """The row that a forger writes for these bytes, as well as it can be done."""
    event = json.loads(body)
    principal = event["principal"]
    return Row(
        event["seq"],
        event["time"],
        event["kind"],
        event["run"],
        principal["agent"] if isinstance(principal, dict) else None,
        leaf,
        bytes.fromhex(event["prev"]),
        body,
    )


def _remade(log: Log, bodies: list[bytes]) -> Log:
    """The log with these events, all numbers, links, hashes and the tree made to fit."""
    rows: list[Row] = []
    previous = NO_PREVIOUS
    for seq, body in enumerate(bodies):
        event = {**json.loads(body), "seq": seq, "prev": previous.hex()}
        data = canonical_again(event)
        previous = leaf_hash(data)
        rows.append(_columns(data, previous))
    tree = tree_of(row.leaf_hash for row in rows)  # type: ignore[misc]
    return replace(log, rows=tuple(rows), stored=StoredTree(tree.size, tree.to_bytes()))


def _trees(log: Log) -> list[Tree]:
    trees = [Tree()]
    for row in log.rows:
        assert isinstance(row.leaf_hash, bytes)
        trees.append(trees[-1].appended(row.leaf_hash))
    return trees


def _signed_anew(log: Log) -> Log:
    """As who has no old key does it: a key of their own from the beginning, and notes by it."""
    name = log.named[0].vkey.partition("+")[0]
    own = Signer(name, bytes(32))
    bodies = []
    for row in log.rows:
        assert isinstance(row.body, bytes)
        event = json.loads(row.body)
        if event["kind"] == "log.created":
            event["data"]["key"] = own.vkey
        if event["kind"] == "key.rotated":  # the rotation is left out: another event stands there
            event = {**event, "kind": "machine.swept", "data": {}}
        bodies.append(canonical_again(event))
    remade = _remade(log, bodies)
    trees = _trees(remade)
    notes = tuple(
        StoredNote(n.size, sign(Checkpoint(name, n.size, trees[n.size].root).text, [own]))
        for n in log.notes
    )
    return replace(remade, notes=notes, named=(NamedKey(0, own.vkey),))


def _bodies(log: Log) -> list[bytes]:
    return [row.body for row in log.rows]  # type: ignore[misc]


def test_the_log_itself_holds(log: Log) -> None:
    found = log.verified()
    assert found.ok, found.failure
    assert found.vouched is not None
    assert found.vouched.stored == len(log.notes) > 8
    assert found.vouched.kept == found.vouched.covered == found.size
    kinds = {row.kind for row in log.rows}
    assert kinds >= {kind.value for kind in EventKind} - OF_THE_LOG | {"log.created", "key.rotated"}


def test_any_field_of_any_kind_of_event_changed(log: Log) -> None:
    tried = 0
    for kind in sorted({str(row.kind) for row in log.rows}):
        seq = _seq_of(log, kind)[0]
        row = log.rows[seq]
        assert isinstance(row.body, bytes)
        event = json.loads(row.body)
        for path in _paths(event):
            body = canonical_again(_with(event, path))
            # Only the bytes, then with a hash that fits them, and columns that do.
            for forged in (row._replace(body=body), _forged(row, body)):
                rows = (*log.rows[:seq], forged, *log.rows[seq + 1 :])
                told, why = replace(log, rows=rows).failure()
                assert told in (seq, seq + 1), (kind, path, why)
                tried += 1
    assert tried > 500


def _forged(row: Row, body: bytes) -> Row:
    try:
        return _columns(body, leaf_hash(body))
    except (ValueError, TypeError, KeyError):
        return row._replace(body=body, leaf_hash=leaf_hash(body))


def test_any_field_changed_and_everything_behind_it_remade(log: Log) -> None:
    """Hashes, links and tree fit: only signatures tell, and say between which checkpoints."""
    sizes = [0, *(note.size for note in log.notes)]
    for kind in sorted({str(row.kind) for row in log.rows}):
        seq = _seq_of(log, kind)[-1]
        event = json.loads(_bodies(log)[seq])
        for path in _paths(event):
            if path[0] not in ("data", "principal", "run", "time", "kind") or len(path) > 2:
                continue  # the rest has one value that fits
            bodies = _bodies(log)
            bodies[seq] = canonical_again(_with(event, path))
            try:
                remade = _remade(log, bodies)
            except (ValueError, TypeError, AttributeError):
                continue
            told, why = remade.failure()
            before = max(size for size in sizes if size <= seq)
            assert before <= told <= seq, (kind, path, told, why)


@pytest.mark.parametrize("seq", [0, 1, 5, 20])
def test_an_event_dropped(log: Log, seq: int) -> None:
    rows = (*log.rows[:seq], *log.rows[seq + 1 :])
    assert replace(log, rows=rows).failure()[0] == seq
    bodies = _bodies(log)
    told, why = _remade(log, [*bodies[:seq], *bodies[seq + 1 :]]).failure()
    assert told <= seq, why


@pytest.mark.parametrize("seq", [1, 5, 20])
def test_an_event_put_in(log: Log, seq: int) -> None:
    rows = (*log.rows[:seq], log.rows[1], *log.rows[seq:])
    assert replace(log, rows=rows).failure()[0] in (seq, seq + 1)
    bodies = _bodies(log)
    told, why = _remade(log, [*bodies[:seq], bodies[1], *bodies[seq:]]).failure()
    assert told <= seq + 1, why


@pytest.mark.parametrize("seq", [1, 6, 20])
def test_two_events_swapped(log: Log, seq: int) -> None:
    rows = [*log.rows]
    rows[seq], rows[seq + 1] = rows[seq + 1], rows[seq]
    assert replace(log, rows=tuple(rows)).failure()[0] == seq
    bodies = _bodies(log)
    bodies[seq], bodies[seq + 1] = bodies[seq + 1], bodies[seq]
    assert _remade(log, bodies).failure()[0] <= seq


@pytest.mark.parametrize("left", [0, 1, 7, -1])
def test_the_tail_cut(log: Log, left: int) -> None:
    cut = log.rows[:left]
    told, _ = replace(log, rows=cut).failure()
    assert told == len(cut)
    remade = replace(_remade(log, _bodies(log)[:left]), named=log.named[:1], trusted=None)
    told, why = remade.failure()
    assert (told, "it is missing" in why) == (len(cut), True), why
    # Without the stored checkpoints over what is gone: by a kept one.
    notes = tuple(note for note in log.notes if note.size <= len(cut))
    remade = replace(remade, notes=notes)
    if not notes:
        remade = replace(remade, named=())
    if left > 0 and not any(row.kind == "key.rotated" for row in cut):
        assert replace(remade, kept=()).verified().ok, "by itself it can't be seen"
    told, why = remade.failure()
    assert told == len(cut)
    assert "the checkpoint that was kept is over" in why


def test_everything_rewritten_with_a_new_key(log: Log) -> None:
    """It holds in itself. A kept checkpoint, or a known key, tells."""
    bodies = _bodies(log)
    event = json.loads(bodies[7])
    bodies[7] = canonical_again({**event, "data": {"effect": "allow"}})
    forged = _signed_anew(_remade(log, bodies))
    assert replace(forged, kept=(), trusted=None).verified().ok
    told, why = replace(forged, kept=()).failure()
    assert told == 0
    assert "never names the key that is trusted" in why
    told, why = replace(forged, trusted=None).failure()
    assert told == 0
    assert "is not what the checkpoint that was kept over" in why


def test_a_kept_checkpoint_of_another_log(log: Log) -> None:
    stranger = Signer("runner.log/" + "0" * 32, bytes(32))
    note = sign(Checkpoint(stranger.name, 3, bytes(32)).text, [stranger])
    told, why = replace(log, kept=(StoredNote(3, note, kept=True),)).failure()
    assert told == 0
    assert "another log" in why


def _note(log: Log, index: int, change: Callable[[str], object]) -> Log:
    notes = [*log.notes]
    note = notes[index]
    assert isinstance(note.note, str)
    notes[index] = replace(note, note=change(note.note))
    return replace(log, notes=tuple(notes))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: None,
        lambda text: b"bytes",
        lambda text: "",
        lambda text: text[:-10],
        lambda text: text.rpartition("\n\n")[0] + "\n",
        lambda text: text.replace("runner.log/", "runner.LOG/"),
        lambda text: text.replace("\n", "\n\n", 1),
        lambda text: text + "\u2014 x AAAA\n",
        lambda text: text.partition("\n\n")[0] + "\nmore\n\n" + text.partition("\n\n")[2],
        lambda text: "\udcff" + text,
    ],
)
@pytest.mark.parametrize("index", [0, 3, -1])
def test_a_stored_checkpoint_changed(log: Log, index: int, change: Callable[[str], object]) -> None:
    sizes = [note.size for note in log.notes]
    before = [0, *sizes][sizes.index(sizes[index])]
    told, why = _note(replace(log, kept=()), index, change).failure()
    assert "the stored checkpoint over" in why
    assert told in (0, before), why


def test_stored_checkpoints_swapped_put_in_and_removed(log: Log) -> None:
    plain = replace(log, kept=(), trusted=None)
    notes = [*log.notes]
    swapped = [replace(notes[1], note=notes[2].note), *notes[2:]]
    assert "says that it is over" in replace(plain, notes=(notes[0], *swapped)).failure()[1]
    more = StoredNote(99999, notes[-1].note)
    assert replace(plain, notes=(*notes, more)).failure()[0] == len(log.rows)
    foreign = Signer(log.named[0].vkey.partition("+")[0], bytes(32))
    root = _trees(log)[2].root
    own = StoredNote(2, sign(Checkpoint(foreign.name, 2, root).text, [foreign]))
    told, why = replace(plain, notes=(notes[0], own, *notes[1:])).failure()
    assert (told, "not signed by the key" in why) == (1, True)


def test_all_stored_checkpoints_removed(log: Log) -> None:
    """What a repaired log has to do without until it is used again, others have from the start."""
    bodies = [body for body in _bodies(log)[:8] if b"log.repaired" not in body]
    short = replace(_remade(log, bodies), notes=(), named=log.named[:1], kept=(), trusted=None)
    told, why = short.failure()
    assert (told, "no checkpoint is stored" in why) == (0, True)
    assert replace(short, notes=log.notes[:1]).verified().ok


def test_a_checkpoint_by_the_key_that_was_not_in_force(log: Log) -> None:
    """The old key signs nothing behind the rotation, the new one nothing before it."""
    plain = replace(log, kept=(), trusted=None)
    at = log.named[1].seq
    old = [note for note in log.notes if note.size <= at][-1]
    assert isinstance(old.note, str)
    # As if the keys had been exchanged by the table, or the event had been put elsewhere.
    for named in (
        (replace(log.named[0], vkey=log.named[1].vkey), log.named[1]),
        (log.named[0], replace(log.named[1], seq=at - 1)),
        log.named[:1],
        (*log.named, NamedKey(at + 2, log.named[0].vkey)),
    ):
        assert "table of the log's keys" in replace(plain, named=named).failure()[1]


def test_a_rotation_that_the_old_key_did_not_sign(log: Log) -> None:
    """Who can write the log, and has neither key, can't let a key of their own follow."""
    at = log.named[1].seq
    name, old = log.named[0].vkey.partition("+")[0], log.named[0].vkey
    own = Signer(name, bytes(32))
    statement = sign(rotation_text(at, old, own.vkey), [own])
    for kind, said in (
        ("key.rotated", "has not signed it"),
        ("key.replaced", "without the old one's signature"),
        ("key.created", "but the log had one"),
    ):
        bodies = _bodies(log)
        data = {"key": own.vkey, "previous": old, "statement": statement}
        bodies[at] = canonical_again({**json.loads(bodies[at]), "kind": kind, "data": data})
        forged = replace(_remade(log, bodies), kept=(), notes=log.notes[:2])
        for trusted in (None, old):
            told, why = replace(forged, trusted=trusted).failure()
            assert (told, said in why) == (at, True), why


def test_a_key_that_was_lost_and_is_vouched_for(tmp_path: Path) -> None:
    with closing(sqlite.create(tmp_path / "state", WallClock())) as store:
        first = store.key()
        second = store.rotate_key(lost=True)
        with store.transaction() as tx:
            tx.append(EventDraft(EventKind.RUN_ENDED, {}, WHO, "run-1"))
        store.checkpoint()
        verified = store.reader.verify
        from runner.stores.against import Against

        assert verified(against=Against(trusted=second)).ok
        for trusted in (None, first):
            failure = verified(against=Against(trusted=trusted)).failure
            assert failure is not None
            assert failure.seq == 1
            assert "without the old one's signature" in failure.why
