"""Makes large logs to measure with: every event valid, the tree and every checkpoint right.

The state folder is made by runner itself, and what events say by `runner.records`; only the writing
is in bulk. `runner audit verify` holds. The ledger stays empty: nothing of it is a run's.

    python bench/audit_log_maker.py FOLDER 1000000
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from runner import records
from runner.audit.canonical import canonical
from runner.audit.checkpoint import Checkpoint
from runner.audit.event import rfc3339
from runner.audit.merkle import Tree, node_hash
from runner.audit.note import sign
from runner.compile import compile_spec
from runner.intake import build_request
from runner.model.decision import Decision, Effect, MatchedRule
from runner.model.event import EventDraft, EventKind
from runner.model.intent import Intent, SimpleCommand, Word
from runner.model.outcome import Change, ChangeKind, Output
from runner.model.principal import Principal
from runner.schema.profiles import load_profile
from runner.stores import sqlite
from runner.stores.checkpoints import key_in_force
from runner.stores.keys import KeyFolder
from runner.stores.stored_checkpoint import newest
from runner.testing.fakes import FakeClock

EVERY = 256
"""Events between two checkpoints, the setting's default."""
_VARIANTS = 2_000  # different intents and outcomes, of which runs are put together
_RUNS_IN_SESSION = 30
_AT_ONCE = 20_000  # events in a transaction
_PROGRAMS = """
    python3 pytest git ls cat grep sed awk make cargo npm node pip curl jq tar find xargs rg head
    diff sort wc cp mv rm mkdir touch chmod ruff mypy docker kubectl psql redis-cli go gcc cmake
    """.split()  # noqa: SIM905  (forty words are read more easily so)
_HOSTS = [f"{name}.example.org" for name in ("api", "pypi", "git", "cdn", "db", "mirror", "docs")]
_RULES = [f"rule-{n}" for n in range(40)]
_PROFILES = ("agent", "ci", "locked")


@dataclass(frozen=True)
class Parts:
    """JSON texts of `data`, to be put into events."""

    allowed: list[str]
    refused: list[str]
    started: list[str]
    ended: list[str]
    denied: str


def make(home: Path, events: int, *, agents: int = 200, days: float = 90.0, seed: int = 1) -> None:
    """A state folder at `home` with so many events, over the last `days` until now."""
    chance = random.Random(seed)
    now_s = time.time()
    began_s = now_s - days * 86_400
    with closing(sqlite.create(home, FakeClock(began_s))) as store:
        store.checkpoint()
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        _write(db, home, _runs(chance, agents, _parts(chance)), events, (began_s, now_s))


def drafts(chance: random.Random, *, agents: int = 200) -> Iterator[EventDraft]:
    """Without end: the events of such a log, to be written by whoever is measured."""
    for kind, _, who, run, data in _runs(chance, agents, _parts(chance)):
        yield EventDraft(EventKind(kind), json.loads(data), Principal(**json.loads(who)), run)


def _write(
    db: sqlite3.Connection,
    home: Path,
    drafts: Iterator[tuple[str, str, str, str, str]],
    events: int,
    span_s: tuple[float, float],
) -> None:
    began_s, now_s = span_s
    size, peaks_of = db.execute("SELECT size, peaks FROM tree").fetchone()
    peaks = [peaks_of[i : i + 32] for i in range(0, len(peaks_of), 32)]
    (previous,) = db.execute("SELECT leaf_hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    signer = KeyFolder(home).signer(key_in_force(db) or "")
    signed = newest(db)
    covered = 0 if signed is None else signed.size
    step_s = (now_s - began_s) / max(1, events)
    db.execute("PRAGMA synchronous = OFF")
    # Sorted once at the end instead of in the order of chance.
    db.execute("DROP INDEX events_of_run")
    while size < events:
        rows, notes = [], []
        for _ in range(min(_AT_ONCE, events - size)):
            kind, agent, who, run, data = next(drafts)
            at = rfc3339(began_s + size * step_s)
            body = (
                f'{{"data":{data},"kind":"{kind}","prev":"{previous.hex()}","principal":{who},'
                f'"run":"{run}","seq":{size},"time":"{at}","v":1}}'
            ).encode()
            leaf = hashlib.sha256(b"\x00" + body).digest()
            rows.append((size, at, kind, run, agent, leaf, previous, body))
            previous = carry = leaf
            bits = size
            while bits & 1:
                carry, bits = node_hash(peaks.pop(), carry), bits >> 1
            peaks.append(carry)
            size += 1
            if size - covered >= EVERY or size == events:
                covered = size
                text = Checkpoint(signer.name, size, Tree(size, tuple(peaks)).root).text
                notes.append((size, at, sign(text, [signer])))
        db.execute("BEGIN")
        db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.executemany("INSERT INTO checkpoints VALUES (?, ?, ?)", notes)
        db.execute("UPDATE tree SET size = ?, peaks = ?", (size, b"".join(peaks)))
        db.execute("COMMIT")
    db.execute("CREATE INDEX events_of_run ON events (run_id) WHERE run_id IS NOT NULL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _runs(
    chance: random.Random, agents: int, parts: Parts
) -> Iterator[tuple[str, str, str, str, str]]:
    """Without end: kind, agent, principal, run and data of one event after another."""
    sessions = [0] * agents
    # Few agents do much, as it is.
    weights = [1 / (n + 1) ** 0.7 for n in range(agents)]
    chosen: list[int] = []
    while True:
        chosen = chosen or chance.choices(range(agents), weights, k=10_000)
        number = chosen.pop()
        sessions[number] += 1
        agent = f"agent-{number}"
        session = f"{agent}-{sessions[number] // _RUNS_IN_SESSION}"
        who = f'{{"agent":"{agent}","parent":null,"session":"{session}","tenant":null,"uid":1000}}'
        run = f"run-{chance.getrandbits(80):020x}"
        about = (agent, who, run)
        if chance.random() < 0.12:
            yield "run.decided", *about, chance.choice(parts.refused)
            yield "run.ended", *about, parts.denied
            continue
        yield "run.decided", *about, chance.choice(parts.allowed)
        yield "run.started", *about, chance.choice(parts.started)
        yield "run.ended", *about, chance.choice(parts.ended)


def _parts(chance: random.Random) -> Parts:
    profile = load_profile("agent")
    allowed, refused, started = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(_VARIANTS):
            names = chance.choices(_PROGRAMS, k=chance.choice((1, 1, 1, 2, 3)))
            hosts = [chance.choice(_HOSTS)] if chance.random() < 0.1 else []
            words = [[each, *_arguments(chance)] for each in names]
            request = build_request(
                cwd=Path(folder),
                shell=" && ".join(" ".join(each) for each in words),
                labels={"task": str(chance.randrange(5_000))},
                profile=chance.choice(_PROFILES),
            )
            intent = Intent(
                "bash",
                tuple(SimpleCommand(tuple(map(Word, each))) for each in words),
                hosts=tuple(map(Word, hosts)),
            )
            permitted = number % 2 == 0
            spec = compile_spec(request, profile) if permitted else None
            draft = records.decided(
                "run-0", request, intent=intent, decision=_decision(chance, permitted),
                spec=spec, backend="native",
            )  # fmt: skip
            (allowed if permitted else refused).append(_json(draft.data))
            if spec is not None and len(started) < 100:
                protections = sorted(each.value for each in profile.requires)
                draft = records.started("run-0", request, spec, protections, [])
                started.append(_json(draft.data))
    ended = [_json(_outcome(chance)) for _ in range(_VARIANTS)]
    return Parts(
        allowed, refused, started, ended, _json(records.outcome_data(termination="denied"))
    )


def _decision(chance: random.Random, permitted: bool) -> Decision:
    effect = Effect.ALLOW if permitted else chance.choice((Effect.DENY, Effect.DENY, Effect.ASK))
    rule = MatchedRule(chance.choice(_RULES), "profile:agent", effect, "Do something else.", "x")
    reason = f"rule '{rule.id}' of 'profile:agent': do something else"
    digest = "sha256:" + hashlib.sha256(b"policy").hexdigest()
    return Decision(effect, reason, digest, (rule,))


def _outcome(chance: random.Random) -> dict[str, object]:
    wall_s = round(chance.expovariate(1) + 0.001, 6)
    usage = {
        "wall_s": wall_s, "cpu_user_s": round(wall_s / 2, 6), "cpu_system_s": round(wall_s / 9, 6),
        "memory_peak_bytes": chance.randrange(1 << 20, 1 << 29),
        "processes": chance.randrange(1, 9),
        **dict.fromkeys(
            ("execs", "connections", "requests", "bytes_in", "bytes_out", "tokens", "cost_usd")
        ),
    }  # fmt: skip
    ends = chance.choices(("exited", "limit", "signaled"), (94, 4, 2))[0]
    output = Output(chance.randrange(10_000), _digest(chance))
    changes = [
        Change(f"src/file_{n}.py", ChangeKind.MODIFIED, "file", _digest(chance), 400 + n)
        for n in range(chance.choice((0, 0, 0, 1, 3)))
    ]
    return records.outcome_data(
        termination=ends,
        limit=chance.choice(("wall", "memory", "processes")) if ends == "limit" else None,
        exit_code=chance.choice((0, 0, 0, 1, 2)) if ends == "exited" else None,
        signal=9 if ends == "signaled" else None,
        usage=usage, stdout=output, stderr=output, changes=changes,
    )  # fmt: skip


def _arguments(chance: random.Random) -> list[str]:
    return [f"{chance.choice(('src', 'tests', 'docs'))}/{chance.randrange(999)}" for _ in range(3)]


def _digest(chance: random.Random) -> str:
    return chance.randbytes(32).hex()


def _json(data: object) -> str:
    return canonical(data).decode()


def main() -> None:
    """Make one from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, metavar="FOLDER", help="the state folder, a new one")
    parser.add_argument("events", type=int, metavar="N", help="how many")
    options = parser.parse_args()
    if options.home.exists():
        raise SystemExit(f"bench: {options.home} is there already; name a new folder")
    began_s = time.perf_counter()
    make(options.home, options.events)
    print(f"{options.events} events in {time.perf_counter() - began_s:.1f} s")


if __name__ == "__main__":
    main()
