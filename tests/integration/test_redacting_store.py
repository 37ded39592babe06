"""No secret is in clear in anything that a state folder keeps, whichever way it came."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from runner import Runner
from runner.audit.redaction import MARK
from runner.errors import RecordError
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal
from runner.model.rule import CountOf
from runner.replay import again
from runner.settings import load_settings
from runner.stores.redacting import KEY_PATH, redactor_of
from runner.stores.sqlite import create as open_store
from runner.testing.fakes import FakeClock

GITHUB = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0hJ3lO6"
INHERITED = "kn0wn-to-the-profile+1"
PATTERN = "corp_[a-z0-9]{12,40}"
OWN = "corp_abcdef012345"
SECRETS = (GITHUB, INHERITED, OWN, "hunter22")

PROFILE = """
name: deploying
extends: agent
description: gets a token of its supervisor's
environment:
  inherit: [DEPLOY_TOKEN]
"""


def kept_bytes(home: Path) -> bytes:
    return b"".join(
        path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and "keys" not in path.parts
    )


@pytest.fixture
def patterned(native, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPLOY_TOKEN", INHERITED)
    settings = load_settings(
        {"home": str(tmp_path / "home"), "redact_patterns": [PATTERN], "backend": "native"}
    )
    with Runner(settings=settings) as opened:
        yield opened


def test_no_secret_is_in_clear_in_what_is_kept(patterned, tmp_path, work):
    profile = tmp_path / "deploying.yaml"
    profile.write_text(PROFILE)
    script = work / "deploy.sh"
    script.write_text(f"T={GITHUB}\nprintf '%s\\n' $T; printf '%s' '{OWN}' >&2\n")
    secret_argv = ["printf", "%s %s", "--token", GITHUB]
    outcomes = [
        patterned.run(secret_argv, cwd=work),
        patterned.run(shell=f"echo {GITHUB}; echo {OWN}", cwd=work, agent=f"a-{GITHUB}"),
        patterned.run(shell="printf '%s' \"$DEPLOY_TOKEN\"; printf '%s' \"$DEPLOY_TOKEN\" | base64",
                      cwd=work, profile=str(profile)),
        patterned.run(shell=f"echo {INHERITED}", cwd=work, profile=str(profile)),
        patterned.run(script=script, cwd=work, labels={"password": "hunter22", GITHUB: "x"}),
        patterned.run(shell="sudo echo --password hunter22", cwd=work),
        patterned.run(shell=": " + "x" * (16 * 1024 - 12) + f"; echo {GITHUB}", cwd=work),
    ]  # fmt: skip
    # The caller has its output as it was.
    assert GITHUB.encode() in outcomes[0].stdout.data
    assert outcomes[2].stdout.data.startswith(INHERITED.encode())
    with pytest.raises(Exception, match="no-such"):
        patterned.run(["true"], cwd=work, profile=f"no-such-{GITHUB}")
    patterned.store.close()
    kept = kept_bytes(tmp_path / "home")
    for secret in SECRETS:
        assert secret.encode() not in kept, secret
    assert GITHUB[:12].encode() not in kept
    assert b"[redacted:github:" in kept
    assert b"[redacted:known:" in kept
    assert b"[redacted:pattern:" in kept
    redactor = redactor_of(tmp_path / "home")
    assert redactor.text(GITHUB).encode() in kept


def test_digests_over_secrets_are_keyed_and_others_are_not(patterned, work):
    held = patterned.run(shell=f"echo {GITHUB}", cwd=work)
    plain = patterned.run(shell="echo hello", cwd=work)

    def digests(run_id):
        events = [json.loads(event.body)["data"] for event in patterned.store.events(run_id)]
        return [events[0]["program"]["sha256"], events[-1]["stdout"]["sha256"]]

    assert all(MARK.fullmatch(each) for each in digests(held.run_id))
    assert all(len(each) == 64 for each in digests(plain.run_id))
    log, home = patterned.store.reader, patterned.settings.home.value
    assert again(log, plain.run_id, home)
    with pytest.raises(Exception, match="it held a secret, which is not kept"):
        again(log, held.run_id, home)
    assert patterned.store.verify().failure is None


def test_an_agent_can_not_hide_its_words_by_calling_them_a_secret(patterned, work):
    command = "echo gone > important-file"
    outcome = patterned.run(shell=command, cwd=work, env={"MY_TOKEN": command})
    first = next(iter(patterned.store.events(outcome.run_id)))
    assert json.loads(first.body)["data"]["program"]["text"] == command


def test_names_count_the_same_redacted(tmp_path):
    store = open_store(tmp_path / "home", FakeClock())
    who = Principal(uid=os.getuid(), agent=f"agent {GITHUB}")
    for run_id in ("run-1", "run-2"):
        with store.transaction() as tx:
            tx.open_run(run_id, who, "agent", "native")
            tx.append(EventDraft(EventKind.RUN_DECIDED, {}, who, run_id))
            assert tx.runs_since(who, CountOf.AGENT, 0.0) == int(run_id[-1])
    assert store.runs_since(who, CountOf.AGENT, 0.0) == 2
    assert store.runs_since(Principal(uid=1, agent="agent"), CountOf.AGENT, 0.0) == 0
    assert all(GITHUB not in each.key for each in store.totals())
    store.close()
    assert GITHUB.encode() not in kept_bytes(tmp_path / "home")


def _mark(home, barrier, answers):
    barrier.wait()
    answers.put(redactor_of(home).text(GITHUB))


def test_several_processes_make_one_key(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(6), context.Queue()
    processes = [context.Process(target=_mark, args=(home, barrier, answers)) for _ in range(6)]
    for process in processes:
        process.start()
    assert len({answers.get(timeout=60) for _ in processes}) == 1
    for process in processes:
        process.join()
    key = home / KEY_PATH
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert key.stat().st_size == 32
    assert [each.name for each in key.parent.iterdir()] == [key.name]


@pytest.mark.parametrize("what", ["open", "short", "link"])
def test_without_its_key_nothing_that_needs_it_is_recorded(tmp_path, what):
    store = open_store(tmp_path / "home", FakeClock())
    key = tmp_path / "home" / KEY_PATH
    if what == "link":
        (tmp_path / "elsewhere").write_bytes(b"k" * 32)
        key.symlink_to(tmp_path / "elsewhere")
    else:
        key.write_bytes(b"k" * (32 if what == "open" else 3))
        key.chmod(0o644 if what == "open" else 0o600)
    size = store.head().size
    with pytest.raises(RecordError, match=r"redaction\.key"), store.transaction() as tx:
        tx.append(EventDraft(EventKind.REQUEST_REFUSED, {"message": GITHUB}))
    with store.transaction() as tx:  # the twin
        tx.append(EventDraft(EventKind.REQUEST_REFUSED, {"message": "nothing"}))
    assert store.head().size == size + 1
    store.close()
