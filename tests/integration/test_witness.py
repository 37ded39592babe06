"""A witness: what it cosigns and refuses, what it remembers, several processes, damage."""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from runner.audit.checkpoint import Checkpoint
from runner.audit.cosignature import cosigned_at, parse_cosigner
from runner.audit.merkle import EMPTY_ROOT, consistency_proof, leaf_hash, range_root, tree_of
from runner.audit.note import NoteError, Signer, open_note, parse_note, sign
from runner.audit.witnessing import (
    RefusedError,
    WitnessRequest,
    parse_request,
    request_text,
)
from runner.errors import StateError
from runner.stores.keys import SigningKeyError
from runner.stores.witness import Witness
from runner.testing.fakes import FakeClock

LOG = Signer("runner.log/0123", bytes(range(32)))
OTHER = Signer("runner.log/4567", bytes(32))
LEAVES = [leaf_hash(f"{n}".encode()) for n in range(40)]
FORK = [*LEAVES[:3], *(leaf_hash(f"fork {n}".encode()) for n in range(37))]


def note(size: int, leaves: list[bytes] = LEAVES, signer: Signer = LOG) -> str:
    root = tree_of(leaves[:size]).root
    return sign(Checkpoint(signer.name, size, root).text, [signer])


def ask(old: int, new: int, leaves: list[bytes] = LEAVES, signer: Signer = LOG) -> WitnessRequest:
    proof = consistency_proof(range_root(leaves), old, new) if old else []
    return WitnessRequest(old, tuple(proof), note(new, leaves, signer))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def witness(home: Path, clock: FakeClock) -> Witness:
    return Witness(home, clock)


def refused(witness: Witness, request: WitnessRequest, key: str = LOG.vkey) -> str:
    with pytest.raises(RefusedError) as caught:
        witness.cosign(request, key)
    return str(caught.value)


def test_what_follows_is_cosigned(witness: Witness, clock: FakeClock) -> None:
    old = 0
    for new in (1, 2, 3, 7, 7, 8, 40):
        found = witness.cosign(ask(old, new), LOG.vkey)
        assert cosigned_at(found, witness.vkey()) == int(clock.now())
        assert open_note(found, [LOG.vkey]) == parse_note(note(new)).text
        assert found.startswith(note(new))
        clock.advance(1)
        old = new


def test_any_step_is_followed(home: Path, clock: FakeClock) -> None:
    for old in range(13):
        for new in range(max(old, 1), 13):
            fresh = Witness(home / f"{old}-{new}", clock)
            if old:
                fresh.cosign(ask(0, old), LOG.vkey)
            assert fresh.cosign(ask(old, new), LOG.vkey)


def test_what_does_not_follow_is_refused_and_not_remembered(witness: Witness) -> None:
    witness.cosign(ask(0, 6), LOG.vkey)
    assert "the log was rolled back" in refused(witness, ask(0, 5))
    assert "the log was rolled back" in refused(witness, ask(3, 5))
    assert "the log has forked" in refused(witness, ask(6, 6, FORK))
    assert "the log has forked, or the proof is wrong" in refused(witness, ask(6, 9, FORK))
    told = refused(witness, ask(0, 9))
    assert "begins with 0 events, but the last checkpoint that was cosigned is over 6" in told
    assert "`runner audit consistency --request --from 6`" in told
    assert "begins with 7 events" in refused(witness, ask(7, 9))
    good = ask(6, 9)
    for proof in (
        good.proof[1:],
        good.proof[:-1],
        good.proof[::-1],
        (*good.proof, good.proof[0]),
        (),
    ):
        assert "forked, or the proof is wrong" in refused(
            witness, WitnessRequest(6, proof, good.note)
        )
    # At the same size nothing is to be proved.
    assert "proof is wrong" in refused(witness, WitnessRequest(6, good.proof[:1], note(6)))
    assert witness.cosign(good, LOG.vkey)


def test_a_first_checkpoint_has_no_proof(witness: Witness) -> None:
    assert "proof is wrong" in refused(witness, WitnessRequest(0, (LEAVES[0],), note(6)))
    empty = sign(Checkpoint(LOG.name, 0, EMPTY_ROOT).text, [LOG])
    assert witness.cosign(WitnessRequest(0, (), empty), LOG.vkey)
    forged = sign(Checkpoint(LOG.name, 0, LEAVES[0]).text, [LOG])
    assert "forked" in refused(witness, WitnessRequest(0, (), forged))
    assert witness.cosign(ask(0, 6), LOG.vkey)


def test_only_the_log_itself_is_cosigned(witness: Witness) -> None:
    assert "the checkpoint is not the log's" in refused(witness, ask(0, 6), OTHER.vkey)
    impostor = Signer(LOG.name, bytes(32))
    assert "the checkpoint is not the log's" in refused(witness, ask(0, 6, signer=impostor))
    # The key of one log says nothing of another, whatever it signs.
    stolen = sign(Checkpoint(LOG.name, 40, EMPTY_ROOT).text, [OTHER])
    told = refused(witness, WitnessRequest(0, (), stolen), OTHER.vkey)
    assert "is of the log runner.log/0123, and the key is not" in told
    assert witness.cosign(ask(0, 6), LOG.vkey)


def test_logs_are_remembered_each_by_itself(witness: Witness, home: Path) -> None:
    witness.cosign(ask(0, 20), LOG.vkey)
    witness.cosign(ask(0, 5, FORK, OTHER), OTHER.vkey)
    again = Witness(home, FakeClock())
    again.cosign(ask(5, 6, FORK, OTHER), OTHER.vkey)
    again.cosign(ask(20, 21), LOG.vkey)
    assert "rolled back" in refused(witness, ask(5, 5, FORK, OTHER), OTHER.vkey)


def test_a_key_of_its_own_that_only_its_owner_reads(witness: Witness, home: Path) -> None:
    vkey = witness.vkey()
    assert witness.vkey() == vkey
    assert parse_cosigner(vkey).name.startswith("runner.witness/")
    assert not (home / "keys").exists()
    (file,) = (home / "witness" / "keys").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for folder in (file.parent, home / "witness", home):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    file.chmod(0o640)
    with pytest.raises(SigningKeyError, match=r"the witness's private key .* is open to others"):
        witness.cosign(ask(0, 6), LOG.vkey)
    file.chmod(0o600)
    file.rename(file.with_suffix(".away"))
    with pytest.raises(SigningKeyError, match=r"is missing: nothing is cosigned without it"):
        witness.cosign(ask(0, 6), LOG.vkey)
    file.with_suffix(".away").rename(file)
    # What it could not sign it did not remember.
    assert witness.cosign(ask(0, 5), LOG.vkey)


def test_a_lost_memory_is_no_fresh_one(witness: Witness, home: Path) -> None:
    witness.cosign(ask(0, 6), LOG.vkey)
    (home / "witness" / "witness.db").unlink()
    with pytest.raises(StateError, match="it is empty, and yet the witness has a key"):
        witness.cosign(ask(0, 5), LOG.vkey)


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE seen SET note = 'nothing'", "what was cosigned can't be read"),
        ("UPDATE seen SET note = x'00'", "what was cosigned can't be read"),
        ("UPDATE seen SET note = replace(note, '0123', '9999')", "what was cosigned can't be read"),
        ("DROP TABLE seen", "the witness's memory can't be used"),
        ("PRAGMA user_version = 2", "was written by a newer runner"),
    ],
)
def test_a_damaged_memory_refuses(witness: Witness, home: Path, statement: str, why: str) -> None:
    witness.cosign(ask(0, 6), LOG.vkey)
    with closing(sqlite3.connect(home / "witness" / "witness.db")) as db:
        db.execute(statement)
        db.commit()
    with pytest.raises(StateError, match=why):
        witness.cosign(ask(6, 7), LOG.vkey)
    (home / "witness" / "witness.db").write_bytes(b"no database" * 500)
    with pytest.raises(StateError, match="the witness's memory can't be used"):
        witness.cosign(ask(6, 7), LOG.vkey)


@pytest.mark.parametrize("now_s", [0.0, -5.0, 2.0**63])
def test_no_time_no_cosignature(home: Path, now_s: float) -> None:
    with pytest.raises(StateError, match="set the clock"):
        Witness(home, FakeClock(now_s)).cosign(ask(0, 6), LOG.vkey)


# --- requests


def test_a_request_is_read_as_it_was_written() -> None:
    for request in (ask(0, 1), ask(3, 7), ask(7, 7)):
        assert parse_request(request_text(request.old, request.proof, request.note)) == request


def test_the_request_of_the_specification() -> None:
    """The example of C2SP tlog-witness."""
    text = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
\u2014 example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""  # noqa: E501
    found = parse_request(text)
    assert (found.old, len(found.proof)) == (20852014, 4)
    assert request_text(found.old, found.proof, found.note) == text


GOOD = request_text(3, ask(3, 7).proof, note(7))


@pytest.mark.parametrize(
    "text",
    [
        "",
        note(7),
        "old 3\n",
        GOOD.replace("old 3", "old 03"),
        GOOD.replace("old 3", "old -3"),
        GOOD.replace("old 3", "old  3"),
        GOOD.replace("old 3", "old \u0663"),
        GOOD.replace("old 3", "old 8"),
        GOOD.replace("old 3", "OLD 3"),
        GOOD.replace("old 3\n", "old 3\r\n"),
        GOOD.replace("old 3\n", "old 3\nAAAA\n"),
        GOOD.replace("old 3\n", "old 3\n!\n"),
        request_text(3, [LEAVES[0]] * 64, note(7)),
        "old 3\n\nno checkpoint\n",
    ],
)
def test_what_is_no_request(text: str) -> None:
    with pytest.raises(NoteError):
        parse_request(text)


# --- processes


def cli(home: Path, file: Path, key: str, **options: object) -> subprocess.Popen[str]:
    code = "import sys; from runner.surfaces.cli.main import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "audit", "witness", str(file), "--key", key]
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RUNNER_HOME": str(home)},
        **options,
    )


def write(path: Path, request: WitnessRequest) -> Path:
    path.write_text(request_text(request.old, request.proof, request.note))
    return path


def test_of_two_forks_at_once_one_is_cosigned(home: Path, tmp_path: Path) -> None:
    files = [
        write(tmp_path / "one", ask(3, 9)),
        write(tmp_path / "other", ask(3, 8, FORK)),
    ]
    Witness(home, FakeClock()).cosign(ask(0, 3), LOG.vkey)
    started = [cli(home, files[n % 2], LOG.vkey) for n in range(6)]
    ended = [(*each.communicate(timeout=120), each.returncode) for each in started]
    cosigned = [out for out, _, code in ended if code == 0]
    assert len(cosigned) == 1
    assert all(code in (0, 1) for _, _, code in ended), ended
    assert all(err.startswith("refused: the") and not out for out, err, code in ended if code)
    # And it is the one that is remembered.
    size = 9 if cosigned[0].startswith(note(9)) else 8
    leaves = LEAVES if size == 9 else FORK
    assert Witness(home, FakeClock()).cosign(ask(size, 20, leaves), LOG.vkey)


def test_of_many_at_once_each_step_is_cosigned_once(home: Path, tmp_path: Path) -> None:
    """Four processes ask for the same steps, as fast as they can, and two of them for a fork's."""
    steps = range(4, 34)
    Witness(home, FakeClock()).cosign(ask(0, 3), LOG.vkey)
    workers = []
    for number, leaves in enumerate([LEAVES, FORK, LEAVES, FORK]):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                witness, done = Witness(home, FakeClock()), []
                for new in steps:
                    with contextlib.suppress(RefusedError):
                        witness.cosign(ask(new - 1, new, leaves), LOG.vkey)
                        done.append(new)
                (tmp_path / f"done-{number}").write_text(" ".join(map(str, done)))
                code = 0
            finally:
                os._exit(code)
        workers.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers] == [0] * 4
    done = [
        [int(word) for word in (tmp_path / f"done-{number}").read_text().split()]
        for number in range(4)
    ]
    log, fork = sorted(done[0] + done[2]), sorted(done[1] + done[3])
    # The first step decides which of the two goes on; no step of it is cosigned twice.
    assert (log, fork).count([]) == 1
    assert max(log, fork) == list(range(4, 4 + len(max(log, fork))))


def test_first_use_by_several_at_once_makes_one_key(home: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "request", ask(0, 9))
    started = [cli(home, file, LOG.vkey) for _ in range(4)]
    ended = [(*each.communicate(timeout=120), each.returncode) for each in started]
    assert sorted(code for _, _, code in ended) == [0, 1, 1, 1], ended
    (found,) = [out for out, _, code in ended if code == 0]
    assert cosigned_at(found, Witness(home, FakeClock()).vkey()) is not None
    assert len(list((home / "witness" / "keys").glob("*.key"))) == 1


def test_what_can_not_be_remembered_is_not_cosigned(home: Path, tmp_path: Path) -> None:
    witness = Witness(home, FakeClock())
    witness.cosign(ask(0, 6), LOG.vkey)
    file = write(tmp_path / "request", ask(6, 9))

    def no_byte_more() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    # stdout and stderr are pipes, which the limit is not about.
    asked = cli(home, file, LOG.vkey, preexec_fn=no_byte_more)
    out, err = asked.communicate(timeout=120)
    assert asked.returncode == 125, err
    assert not out
    assert "the witness's memory can't be used" in err
    assert witness.cosign(ask(6, 7), LOG.vkey)
