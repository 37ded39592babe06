"""`runner audit prove`, `verify-proof`, `consistency` and `witness`, as people call them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from runner.audit import verify_proof
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.stores import sqlite
from runner.testing.fakes import FakeClock

WHO = Principal(1000, "coder")
PROGRAM = {"argv": ["true"]}


def record(home: Path, run: str) -> None:
    """What a run that was denied leaves, without a checkpoint over it until the store is closed."""
    with closing(sqlite.create(home, FakeClock(time.time()))) as store, store.transaction() as tx:
        decided = {"decision": {"effect": "deny"}, "program": PROGRAM}
        tx.append(EventDraft(EventKind.RUN_DECIDED, decided, WHO, run))
        ended = {"termination": "denied", "limit": None, "exit_code": None, "signal": None}
        tx.append(EventDraft(EventKind.RUN_ENDED, ended, WHO, run))


@pytest.fixture
def log(run_cli, runner_home, workspace, tmp_path):
    """The command line, over a log of five events."""
    record(runner_home, "run-1")
    record(runner_home, "run-2")
    (tmp_path / "key").write_text(run_cli("audit", "key", "show").stdout)
    return run_cli


@pytest.fixture
def auditor(tmp_path, tmp_path_factory):
    """The single file by itself, far from the repository: its words, what it says."""
    folder = tmp_path_factory.mktemp("auditor")
    shutil.copy(verify_proof.__file__, folder / "check.py")

    def check(*words):
        return subprocess.run(
            [sys.executable, "-I", folder / "check.py", *words],
            cwd=folder,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return check


def test_a_run_is_proved_to_who_has_only_the_key(log, auditor, tmp_path):
    key, proof = tmp_path / "key", tmp_path / "proof.json"
    done = log("audit", "prove", "run-1", "--output", proof)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert log("audit", "prove", "run-1").stdout == proof.read_text()
    here, there = log("audit", "verify-proof", proof, "--key", key), auditor(proof, "--key", key)
    assert there.returncode == 0, there.stderr
    assert here.stdout == there.stdout
    assert there.stdout.endswith(
        "run run-1: these are all of its events up to its end\nthe proof holds\n"
    ), there.stdout
    # The key as a word, too.
    assert auditor(proof, "--key", key.read_text().strip()).returncode == 0
    proof.write_text(proof.read_text().replace('"deny"', '"allow"'))
    for found in (log("audit", "verify-proof", proof, "--key", key), auditor(proof, "--key", key)):
        assert found.returncode == 1
        assert found.stdout == ""
        assert found.stderr == "does not hold: event 1: its leaf hash is not that of its bytes\n"


def test_one_event_by_number_and_by_hash(log, auditor, tmp_path):
    by_number = log("audit", "prove", "--index", "3").stdout
    leaf = json.loads(by_number)["events"][0]["leaf"]
    assert log("audit", "prove", "--event", leaf).stdout == by_number
    (tmp_path / "proof").write_text(by_number)
    assert auditor(tmp_path / "proof", "--key", tmp_path / "key").returncode == 0


def test_a_checkpoint_is_made_if_none_is_over_the_run(log, runner_home, auditor, tmp_path):
    store = sqlite.create(runner_home, FakeClock(time.time()))
    with store.transaction() as tx:
        tx.append(EventDraft(EventKind.REQUEST_REFUSED, {"message": "x"}, WHO))
    before = log("audit", "checkpoint", "--list").stdout
    proof = log("audit", "prove", "--index", "5")
    store.close()
    assert proof.returncode == 0, proof.stderr
    assert json.loads(proof.stdout)["checkpoint"].splitlines()[1] == "6"
    assert log("audit", "checkpoint", "--list").stdout.startswith(before)
    (tmp_path / "proof").write_text(proof.stdout)
    assert auditor(tmp_path / "proof", "--key", tmp_path / "key").returncode == 0


def test_witnessed(log, runner_home, auditor, tmp_path):
    key, away = tmp_path / "key", {**os.environ, "RUNNER_HOME": str(tmp_path / "witness")}
    shown = log("audit", "witness", "--show-key", env=away).stdout
    (tmp_path / "witness-key").write_text(shown)
    vkey = shown.strip()
    asked = log("audit", "consistency", "--request", "--from", "0").stdout
    done = log("audit", "witness", "--key", key, env=away, input=asked)
    assert done.returncode == 0, done.stderr
    assert "was taken on trust" in done.stderr
    first = tmp_path / "first"
    first.write_text(done.stdout)
    record(runner_home, "run-3")
    asked = log("audit", "consistency", "--request", "--from", first).stdout
    (tmp_path / "request").write_text(asked)
    done = log("audit", "witness", tmp_path / "request", "--key", key, env=away)
    assert (done.returncode, done.stderr) == (0, "")
    second = tmp_path / "second"
    second.write_text(done.stdout)
    refused = log("audit", "witness", tmp_path / "request", "--key", key, env=away)
    assert refused.returncode == 1
    assert refused.stderr.startswith("refused: the proof begins with 5 events, but ")
    # The owner proves under what the witness has seen; and that it was only added to.
    run, grown = tmp_path / "run", tmp_path / "grown"
    log("audit", "prove", "run-1", "--checkpoint", second, "--output", run)
    log("audit", "consistency", "--from", first, "--to", second, "--output", grown)
    for proof in (run, grown):
        for witness in (vkey, tmp_path / "witness-key"):
            words = (proof, "--key", key, "--witness", witness)
            told = auditor(*words)
            assert told.returncode == 0, told.stderr
            assert f"cosigned by {vkey.partition('+')[0]} at 20" in told.stdout
            assert log("audit", "verify-proof", *words).stdout == told.stdout
    plain = log("audit", "prove", "run-1").stdout
    (tmp_path / "plain").write_text(plain)
    told = auditor(tmp_path / "plain", "--key", key, "--witness", vkey)
    assert told.returncode == 1
    assert "its checkpoint is not cosigned by the witness" in told.stderr
    # And who has the log asks for it, too.
    done = log("audit", "verify", "--against", second, "--key", key, "--witness", vkey)
    assert done.returncode == 0, done.stderr
    assert f"the witness {vkey.partition('+')[0]} cosigned the first 7 events at" in done.stdout
    export = tmp_path / "export"
    export.write_text(log("audit", "export").stdout)
    done = log("audit", "verify", export, "--against", first, "--witness", vkey)
    assert "cosigned the first 5 events" in done.stdout, done.stderr
    kept = tmp_path / "kept"
    kept.write_text(log("audit", "checkpoint").stdout)
    done = log("audit", "verify", "--against", kept, "--witness", vkey)
    assert done.returncode == 1
    assert "has cosigned no checkpoint that was kept" in done.stderr
    forged = second.read_text().splitlines(keepends=True)
    forged[-1] = first.read_text().splitlines(keepends=True)[-1]
    kept.write_text("".join(forged))
    done = log("audit", "verify", "--against", kept, "--witness", vkey)
    assert done.returncode == 1
    assert "the cosignature by runner.witness/" in done.stderr


def test_a_log_that_was_made_anew_is_refused(log, runner_home, tmp_path):
    """The whole log, keys included, in the hands of who rewrites it; the witness is not."""
    away = {**os.environ, "RUNNER_HOME": str(tmp_path / "witness")}
    copy = tmp_path / "copy"
    shutil.copytree(runner_home, copy)
    record(runner_home, "run-3")
    record(copy, "run-4")
    first = log("audit", "consistency", "--request", "--from", "0").stdout
    key = tmp_path / "key"
    assert log("audit", "witness", "--key", key, env=away, input=first).returncode == 0
    for _ in range(2):
        other = {**os.environ, "RUNNER_HOME": str(copy)}
        ask = ("audit", "consistency", "--request", "--from", "7")
        request = log(*ask, env=other).stdout
        done = log("audit", "witness", "--key", key, env=away, input=request)
        assert done.returncode == 1
        assert done.stdout == ""
        assert "refused: the log has forked" in done.stderr
        record(copy, "run-5")
    assert log("audit", "verify", env=other).returncode == 0, "by itself it holds"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("prove",), 2, "name what is to be proved"),
        (("prove", "run-1", "--index", "1"), 2, "name what is to be proved"),
        (("prove", "--index", "99"), 2, "there is no event 99: the log has 5"),
        (("prove", "--index", "-1"), 2, "-1"),
        (("prove", "--event", "abc"), 2, "is no leaf hash"),
        (("prove", "--event", "0" * 64), 2, "no event of the log has the leaf hash"),
        (("prove", "run-9"), 2, "there is no run 'run-9'"),
        (("prove", "run-1", "--checkpoint", "/no/such"), 2, "can't be read"),
        (("prove", "run-1", "--checkpoint", "/dev/null"), 2, "it holds no checkpoint"),
        (("prove", "run-1", "--output", "/no/such/file"), 2, "can't be written to"),
        (("verify-proof", "/no/such", "--key", "KEY"), 2, "can't be checked: /no/such"),
        (("verify-proof", "KEY", "--key", "KEY"), 1, "does not hold: it is no canonical JSON"),
        (("verify-proof", "KEY", "--key", "x+y+z"), 2, "x+y+z is no key of a log"),
        (("verify-proof", "KEY", "--key", "KEY", "--witness", "KEY"), 2, "no key of a witness"),
        (("verify-proof", "KEY"), 2, "--key"),
        (("consistency",), 2, "--from"),
        (("consistency", "--from", "4"), 2, "there is no checkpoint over 4 events"),
        (("consistency", "--from", "0"), 2, "there is no checkpoint over 0 events"),
        (("consistency", "--request", "--from", "9"), 2, "the witness has seen 9"),
        (("consistency", "--from", "KEY"), 2, "is no checkpoint"),
        (("witness",), 2, "--show-key"),
        (("witness", "--key", "KEY", "--show-key"), 2, "--show-key"),
        (("witness", "--key", "KEY", "KEY"), 2, "is no request for a witness"),
        (("witness", "--key", "nothing"), 2, "'nothing' can't be read"),
        (("verify", "--witness", "KEY"), 2, "name it with --against"),
        (("verify", "--witness", "KEY", "--against", "KEY"), 2, "can't be held against a log"),
    ],
)
def test_bad_input(log, tmp_path, words, code, said):
    given = [str(tmp_path / "key") if word == "KEY" else word for word in words]
    done = log("audit", *given, input="")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_is_a_page(log):
    page = log("audit", "--help").stdout
    for command in ("prove", "verify-proof", "consistency", "witness"):
        assert command in page
        assert "--" in log("audit", command, "--help").stdout
