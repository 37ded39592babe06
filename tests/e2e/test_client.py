"""A server's runner is the embedded one, by its methods, its results and its errors."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from cutting import cutting
from serving import COMMAND, Server, serving

from runner import AsyncRunner, Outcome, RemoteRunner, Runner, connect
from runner.errors import (
    ForbiddenError,
    NotFoundError,
    OtherServerError,
    ProfileError,
    RequestError,
    RunnerError,
    TooLargeError,
    UnauthenticatedError,
    UnreachableError,
)
from runner.model.decision import Effect
from runner.model.following import Began, Missed, Over, Used, WaitsForAnswer, Written
from runner.model.kill import KillScope
from runner.model.outcome import Termination
from runner.model.usage import Usage
from runner.streams import CallbackSink, Cancellation, FdSink

pytestmark = pytest.mark.usefixtures("native")

LONG = "echo; sleep 60"
LEFT = {"termination": "cancelled", "agent": "left"}
ASKS = """
extends: agent
rules:
  list:
    - id: ask-touch
      effect: ask
      match: { command: touch }
      message: Somebody has to say yes.
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served") / "home") as (server, _):
        yield server


@pytest.fixture(scope="module")
def remote(served: Server) -> Iterator[RemoteRunner]:
    with connect(f"unix:{served.path}") as runner:
        yield runner


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(home=tmp_path_factory.mktemp("embedded") / "home") as runner:
        yield runner


def comparable(outcome: Outcome) -> Outcome:
    """Without what differs from run to run, and without what JSON does not tell."""
    return replace(
        outcome,
        run_id="",
        usage=Usage(),
        audit=replace(outcome.audit, first_seq=0, last_seq=0, head=""),
        decision=replace(outcome.decision, obligations=()),
        changes=tuple(replace(each, original=None) for each in outcome.changes),
    )


REQUESTS: dict[str, dict[str, Any]] = {
    "success": {"argv": ["echo", "out"]},
    "own code": {"shell": "echo out; echo err >&2; exit 3"},
    "signal": {"shell": "kill -9 $$"},
    "wall": {"argv": ["sleep", "60"], "limits": {"wall": "300ms"}},
    "output": {"argv": ["yes"], "limits": {"output": "64KiB"}},
    "denied": {"shell": "sudo ls", "agent": "a", "session": "s", "tenant": "t"},
    "no program": {"argv": ["no-such-program"]},
    "no text": {"shell": "printf '\\377\\000'; printf '\\303' >&2"},
    "code": {
        "code": "import os, sys; print(sys.argv[1:], sys.stdin.read(), os.environ['A'])",
        "language": "python",
        "args": ["x", "y z"],
        "stdin": "from stdin",
        "env": {"A": "b"},
    },
    "bytes on stdin": {"argv": ["cat"], "stdin": b"\xff\x00"},
    "changes": {"shell": "echo new > new; echo more >> old; rm gone; mkdir folder"},
    "labels": {"argv": ["true"], "labels": {"task": "7"}, "parent": "p", "profile": "ci"},
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_comes_of_it(name, work, embedded, remote):
    (work / "old").write_text("old\n")
    (work / "gone").write_text("gone\n")
    asked = REQUESTS[name]
    here, there = embedded.run(cwd=work, **asked), remote.run(cwd=work, **asked)
    assert comparable(there) == comparable(here)
    if here.usage.wall_s is not None:  # the rest is sampled where there is no cgroup
        assert there.usage.wall_s is not None
    program = {k: v for k, v in asked.items() if k != "stdin"}
    decision = remote.check(cwd=work, **program)
    assert decision == replace(embedded.check(cwd=work, **program), obligations=())
    assert remote.outcome(there.run_id) == there


@pytest.mark.parametrize("name", ["own code", "denied", "no text", "bytes on stdin", "output"])
def test_the_same_happens_meanwhile(name, work, embedded, remote):
    told = []
    for runner in (embedded, remote):
        with runner.stream(cwd=work, **REQUESTS[name]) as events:
            every = [each for each in events if not isinstance(each, Used)]
        texts = {"stdout": b"", "stderr": b""}
        for each in every:
            if isinstance(each, Written):
                assert each.offset_bytes == len(texts[each.stream])
                texts[each.stream] += each.data
        kinds = [type(each) for each in every if not isinstance(each, Written)]
        assert kinds == [Began, Over]
        assert isinstance(every[0], Began)
        assert isinstance(every[-1], Over)
        assert every[0].run_id == every[-1].outcome.run_id
        told.append((texts, every[0].decision.effect, comparable(every[-1].outcome)))
    assert told[0] == told[1]


WRONG: dict[str, tuple[type[RunnerError], dict[str, Any]]] = {
    "nothing": (RequestError, {}),
    "two forms": (RequestError, {"argv": ["true"], "shell": "true"}),
    "no profile": (ProfileError, {"argv": ["true"], "profile": "nope"}),
    "a limit": (RequestError, {"argv": ["true"], "limits": {"wall": "x"}}),
    "a language": (RequestError, {"code": "x", "language": "cobol"}),
    "a wait": (RequestError, {"argv": ["true"], "ask_wait": "soon"}),
    "argv as a text": (RequestError, {"argv": "true"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_same_is_refused_in_the_same_words(name, work, embedded, remote):
    kind, asked = WRONG[name]
    messages = []
    for runner in (embedded, remote):
        with pytest.raises(kind) as caught:
            runner.run(cwd=work, **asked)
        assert type(caught.value) is kind
        messages.append(str(caught.value))
        with pytest.raises(kind):
            runner.stream(cwd=work, **asked)
    assert messages[0] == messages[1]


def test_scripts_are_read_here(work, embedded, remote):
    script = work / "hello.py"
    script.write_text("import sys\nprint('hello', sys.argv[1:])\n")
    for runner in (embedded, remote):
        outcome = runner.run(script="hello.py", cwd=work, args=["x"])
        assert outcome.stdout.data == b"hello ['x']\n"
        with pytest.raises(RequestError, match="can't be read"):
            runner.run(script="missing.py", cwd=work)
    (work / "odd").write_text("#!/usr/bin/awk -f\n")
    with pytest.raises(RequestError, match="awk"):
        remote.run(script="odd", cwd=work)
    files = {"data/n": "7", "raw": b"\xff"}
    outcome = remote.run(shell="cat data/n raw", files=files)
    assert outcome.stdout.data == b"7\xff"
    with pytest.raises(RequestError, match="files go into a fresh folder"):
        remote.run(["true"], files=files, cwd=work)


def test_sinks_get_all_however_slow_they_are(work, remote):
    """What is more than a server holds: the program waits."""
    reader, writer = os.pipe()
    got = bytearray()

    def read() -> None:
        while data := os.read(reader, 4096):
            got.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    errors = bytearray()
    text = "head -c 3000000 /dev/urandom > f; cat f; sha256sum f | cut -c 1-64 >&2"
    outcome = remote.run(
        shell=text, cwd=work, stdout=FdSink(writer), stderr=CallbackSink(errors.extend)
    )
    os.close(writer)
    thread.join()
    os.close(reader)
    assert outcome.ok
    assert len(got) == outcome.stdout.bytes_total == 3_000_000
    assert hashlib.sha256(got).hexdigest() == outcome.stdout.sha256
    assert errors.decode().strip() == outcome.stdout.sha256


def test_a_run_waits_for_who_follows_it(work, remote):
    with remote.stream(shell="yes | head -c 5000000; echo > done", cwd=work) as events:
        first = next(each for each in events if isinstance(each, Written))
        # Nobody takes anything: it can't have ended, for far more is to come than is held.
        assert remote.outcome(events.run_id) is None
        total = len(first.data) + sum(len(e.data) for e in events if isinstance(e, Written))
    assert total == 5_000_000


def test_where_nobody_reads_the_run_ends(work, remote):
    reader, writer = os.pipe()
    os.close(reader)
    outcome = remote.run(["yes"], cwd=work, stdout=FdSink(writer))
    os.close(writer)
    assert outcome.termination is Termination.CANCELLED


def test_a_run_is_cancelled(work, remote, embedded):
    for runner in (embedded, remote):
        with Cancellation() as cancel:
            timer = threading.Timer(0.5, cancel.set)
            timer.start()
            outcome = runner.run(["sleep", "60"], cwd=work, cancel=cancel)
            timer.join()
        assert outcome.termination is Termination.CANCELLED
        with runner.stream(["sleep", "60"], cwd=work) as events:
            assert isinstance(next(events), Began)
            events.cancel()
            last = [each for each in events if isinstance(each, Over)]
        assert [each.outcome.termination for each in last] == [Termination.CANCELLED]
        with runner.stream(["sleep", "60"], cwd=work) as events:
            began = next(events)
        ended = [each.kind for each in runner.audit.events(run=began.run_id)]
        assert ended[-1] == "run.ended"


def test_changes_are_looked_at_and_applied(work, embedded, remote):
    (work / "old").write_text("old\n")
    found = []
    for runner in (embedded, remote):
        outcome = runner.run(shell="echo new > new; echo more >> old", cwd=work)
        changes = runner.changes(outcome.run_id)
        assert (changes.run_id, changes.left) == (outcome.run_id, (0, 1))
        tried = runner.apply(outcome.run_id, ["old"], dry_run=True)
        applied = runner.apply(outcome.run_id, ["old"])
        assert runner.discard(outcome.run_id)
        assert not runner.discard(outcome.run_id)
        diff = outcome.run_id and runner.changes(outcome.run_id).gone
        (work / "old").write_text("old\n")
        found.append(
            (
                replace(changes, run_id=""),
                replace(tried, run_id=""),
                replace(applied, run_id=""),
                diff,
            )
        )
    assert found[0] == found[1]
    outcome = remote.run(shell="echo more >> old", cwd=work)
    (told,) = remote.diff(outcome.run_id, ["old"])
    assert (told.added, told.removed) == (1, 0)
    assert b"+more" in told.text
    with pytest.raises(RequestError, match="x"):
        remote.diff(outcome.run_id, ["x"])
    with pytest.raises(NotFoundError):
        remote.changes("run-00000000000000000000")


def test_the_log_is_searched_with_its_hashes(work, remote, served):
    for number in range(3):
        remote.run(["true"], cwd=work, agent=f"agent-{number}", labels={"n": "ä"})
    with Runner(home=served.environment["RUNNER_HOME"]) as beside:
        for asked in (
            {},
            {"newest_first": True},
            {"kind": "run.ended"},
            {"agent": ["agent-0", "agent-2"], "since": "1h"},
            {"label": "n=ä", "kind": "run.decided"},
        ):
            every = list(remote.audit.events(**asked))
            assert every == list(beside.audit.events(**asked))
            assert every
        run = next(iter(remote.audit.events(kind="run.ended"))).run_id
        assert remote.audit.proof(run) == beside.audit.proof(run)
        assert remote.audit.checkpoint()[1] == beside.audit.checkpoint()[1]
        for runner in (remote, beside):
            with pytest.raises(RunnerError):
                list(runner.audit.events(since="whenever"))
    assert remote.budgets.standing() == ()


def test_budgets_are_changed(tmp_path, work, monkeypatch):
    config = tmp_path / "config"
    (config / "runner" / "profiles").mkdir(parents=True)
    (config / "runner" / "profiles" / "counted.yaml").write_text(
        "extends: agent\ndescription: counted\nbudgets: [{id: few, of: agent, per: 1h, calls: 1}]\n"
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    with serving(tmp_path / "home") as (server, _), connect(f"unix:{server.path}") as remote:
        run = {"argv": ["true"], "cwd": work, "profile": "counted", "agent": "a"}
        of = {"scope": "agent:a", "profile": "counted"}
        assert remote.run(**run).ok
        assert remote.run(**run).termination is Termination.DENIED
        (told,) = remote.budgets.set("few", {"calls": "2"}, "more", lasting="1h", **of)
        assert (told.used, told.amount) == (1, 2)
        assert remote.run(**run).ok
        (told,) = remote.budgets.unset("few", "enough", **of)
        assert (told.used, told.amount) == (2, 1)
        assert remote.run(**run).termination is Termination.DENIED
        (told,) = remote.budgets.reset("few", "a new day", **of)
        assert told.used == 0
        assert remote.run(**run).ok
        for wrong in ({}, {"calls": "many"}, {"tokens": "1"}):
            with pytest.raises(RequestError):
                remote.budgets.set("few", wrong, "r", lasting="1h", **of)
        with pytest.raises(RequestError):
            remote.budgets.reset("many", "r", **of)
        changed = remote.audit.events(kind=["budget.set", "budget.reset"])
        by = [json.loads(event.body)["data"]["by"] for event in changed]
        assert by == [f"uid:{os.getuid()}"] * 3


def test_questions_are_answered_and_runs_killed(tmp_path, work, monkeypatch):
    config = tmp_path / "config"
    (config / "runner" / "profiles").mkdir(parents=True)
    (config / "runner" / "profiles" / "asks.yaml").write_text(ASKS)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    with serving(tmp_path / "home") as (server, _), connect(f"unix:{server.path}") as remote:
        asked = {"argv": ["touch", "x"], "cwd": work, "profile": "asks"}
        denied = remote.run(**asked)
        assert (denied.termination, denied.decision.effect) == (Termination.DENIED, Effect.ASK)
        with remote.stream(ask_wait="60s", **asked) as events:
            question = next(each for each in events if isinstance(each, WaitsForAnswer))
            (waiting,) = remote.approvals.waiting()
            assert waiting == remote.approvals.get(question.approval_id)
            assert (waiting.id, waiting.rules) == (question.approval_id, ("ask-touch",))
            said = remote.approvals.answer(waiting.id, "looks fine", yes=True)
            assert said.answer is not None
            outcome = next(each.outcome for each in events if isinstance(each, Over))
        assert outcome.ok
        assert outcome.decision.approved is not None
        assert outcome.decision.approved.reason == "looks fine"

        with remote.stream(["sleep", "60"], cwd=work, agent="wild") as events:
            began = next(events)
            assert isinstance(began, Began)
            assert remote.kills.kill(KillScope.AGENT, "wild", "too wild") == (began.run_id,)
            outcome = next(each.outcome for each in events if isinstance(each, Over))
        assert (outcome.status, outcome.kill and outcome.kill.reason) == (137, "too wild")
        (kill,) = remote.kills.all()
        assert (kill.name, kill.reason) == ("wild", "too wild")
        refused = remote.run(["true"], cwd=work, agent="wild")
        assert refused.termination is Termination.DENIED
        remote.kills.lift(KillScope.AGENT, "wild", "tamed")
        assert remote.kills.all() == ()
        assert remote.run(["true"], cwd=work, agent="wild").ok


def decided(runner: RemoteRunner) -> int:
    return len(list(runner.audit.events(kind="run.decided")))


def test_a_cut_connection_runs_nothing_twice(work, served, remote):
    """The answer is cut: before it, in it, and again at the next try."""
    for cuts in ({1: 0}, {1: 30}, {1: 0, 2: 0, 3: 10}):
        before = decided(remote)
        with cutting(served.path, cuts) as cutter, connect(f"unix:{cutter.path}") as cut:
            cut.close()  # so that the next call has a connection of its own
            outcome = cut.run(shell="sleep 0.3; echo once", cwd=work)
            assert outcome.stdout.data == b"once\n"
            assert cutter.connections > len(cuts)
        assert decided(remote) == before + 1


def test_a_stream_that_is_cut_goes_on(work, served, remote):
    text = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done"
    for cuts in ({1: 0}, {1: 400}, {1: 1500}, {1: 1200, 2: 700, 3: 600}):
        before = decided(remote)
        with cutting(served.path, cuts) as cutter, connect(f"unix:{cutter.path}") as cut:
            cut.close()
            with cut.stream(shell=text, cwd=work) as events:
                every = list(events)
        assert not [each for each in every if isinstance(each, Missed)]
        data = b"".join(each.data for each in every if isinstance(each, Written))
        assert data == b"1\n2\n3\n4\n5\n6\n"
        assert isinstance(every[-1], Over)
        assert every[-1].outcome.stdout.data == data
        assert decided(remote) == before + 1


def test_what_may_have_been_done_is_not_asked_again(work, served, remote):
    outcome = remote.run(shell="echo > new", cwd=work)
    with cutting(served.path, {1: 0}) as cutter, connect(f"unix:{cutter.path}") as cut:
        cut.close()
        with pytest.raises(UnreachableError, match="cut") as caught:
            cut.apply(outcome.run_id)
        assert caught.value.sent
        assert cutter.connections == 2


def test_a_server_that_vanishes(tmp_path, work):
    """Killed in the middle of a run; with another one in its place, the run is not begun again."""
    home = tmp_path / "home"
    first = Server(home)
    with connect(f"unix:{first.path}") as remote:
        with remote.stream(shell="echo one; sleep 60", cwd=work) as events:
            assert isinstance(next(events), Began)
            assert isinstance(next(e for e in events if not isinstance(e, Used)), Written)
            first.end(signal.SIGKILL)
            with pytest.raises(UnreachableError, match=events.run_id):
                list(events)
        with pytest.raises(UnreachableError, match="no server answers"):
            remote.run(["true"], cwd=work)

    second = Server(home)
    with connect(f"unix:{second.path}") as remote:
        with remote.stream(shell="echo one; sleep 60", cwd=work) as events:
            began = next(events)
            assert isinstance(began, Began)
            second.end(signal.SIGKILL)
            third = Server(home)
            every = list(events)
        assert isinstance(every[-1], Over)
        assert every[-1].outcome.termination is Termination.UNKNOWN
        assert every[-1].outcome.run_id == began.run_id

        failed: list[BaseException] = []

        def run() -> None:
            try:
                remote.run(shell="sleep 60", cwd=work)
            except RunnerError as error:
                failed.append(error)

        before = decided(remote)
        thread = threading.Thread(target=run)
        thread.start()
        with connect(f"unix:{third.path}") as beside:
            while decided(beside) == before:
                pass
        third.end(signal.SIGKILL)
        fourth = Server(home)
        try:
            thread.join()
            assert isinstance(failed[0], UnreachableError)
            assert decided(remote) == before + 1
        finally:
            fourth.end()


def test_a_request_for_another_server_is_not_carried_out(served, remote, work):
    with served.client() as client:
        here = client.get("/healthz").headers["runner-server"]
        asked = {"argv": ["true"], "cwd": str(work)}
        done = client.post("/v1/runs", json=asked, headers={"Runner-Server": here})
        assert done.status_code == 200
        other = client.post("/v1/runs", json=asked, headers={"Runner-Server": "0" * 16})
        assert (other.status_code, other.json()["error"]["code"]) == (412, OtherServerError.code)
        for path in ("/v1/runs", "/v1/decisions"):
            other = client.post(path, json=asked, headers={"Runner-Settings": "0" * 64})
            assert (other.status_code, other.json()["error"]["code"]) == (412, "other_server")


def test_keys_over_a_port_with_tls(tmp_path, monkeypatch):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-days", "2", "-nodes",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    environment = {**os.environ, "RUNNER_HOME": str(tmp_path / "home")}
    key = subprocess.run(
        [*COMMAND, "keys", "create", "bot", "--agent", "bot", "--profile", "agent"],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    server = subprocess.Popen(
        [*COMMAND, "serve", "--listen", "127.0.0.1:0", "--tls-cert", tmp_path / "cert.pem",
         "--tls-key", tmp_path / "key.pem"],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stderr is not None
        port = int(server.stderr.readline().rpartition(":")[2])
        where = f"https://127.0.0.1:{port}"
        with pytest.raises(UnreachableError, match="self-signed"):
            connect(where, key=key)
        with connect(where, key=key, ca=tmp_path / "cert.pem") as remote:
            outcome = remote.run(["cat", "a"], files={"a": "b"}, agent="bot")
            assert outcome.stdout.data == b"b"
            with remote.stream(shell="echo x") as events:
                assert [e.data for e in events if isinstance(e, Written)] == [b"x\n"]
            for agent in ("other", None):
                with pytest.raises(ForbiddenError):
                    remote.run(["true"], agent=agent or "x")
            with pytest.raises(RequestError, match="no folder that this server runs"):
                remote.run(["true"], cwd="/tmp")
            with pytest.raises(ForbiddenError):
                remote.approvals.answer("ask-00000000", "x", yes=True)
            with pytest.raises(TooLargeError):
                remote.run(["cat"], stdin=b"x" * (17 << 20))
        nobody = connect(where, key="rnk_no", ca=tmp_path / "cert.pem")
        with nobody, pytest.raises(UnauthenticatedError):
            nobody.run(["true"])
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)


def test_async_callers(work, served, tmp_path):
    async def through(make: Callable[[], Any]) -> list[Any]:
        found: list[Any] = []
        async with await make() as runner:

            async def one(number: int) -> None:
                found.append((await runner.run(["sh", "-c", f"exit {number}"], cwd=work)).status)

            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(one, number)
            found.sort()
            data = [
                each.data
                async for each in runner.stream(shell="echo 1; echo 2", cwd=work)
                if isinstance(each, Written)
            ]
            found.append(b"".join(data))
            found.append((await runner.check(["true"], cwd=work)).effect)
            with pytest.raises(ProfileError):
                await runner.run(["true"], cwd=work, profile="nope")
            began = anyio.Event()
            async with anyio.create_task_group() as group:

                async def follow() -> None:
                    async for each in runner.stream(shell=LONG, cwd=work, agent="left"):
                        if isinstance(each, Written):
                            began.set()

                group.start_soon(follow)
                await began.wait()
                group.cancel_scope.cancel()
            # Whoever cancelled finds the run over and written down.
            ended = await runner.call(
                lambda: [e.kind for e in runner.blocking.audit.events(**LEFT)]
            )
            found.append(ended)
            async with anyio.create_task_group() as group:
                token = anyio.lowlevel.current_token()

                def stop(_: bytes) -> None:
                    anyio.from_thread.run_sync(group.cancel_scope.cancel, token=token)

                async def run() -> None:
                    await runner.run(shell=LONG, cwd=work, agent="left", stdout=CallbackSink(stop))
                    found.append("ran to its end")

                group.start_soon(run)
            ended = await runner.call(
                lambda: [e.kind for e in runner.blocking.audit.events(**LEFT)]
            )
            found.append(ended)
        return found

    async def embedded() -> AsyncRunner:
        return AsyncRunner(home=tmp_path / "embedded")

    async def remote() -> AsyncRunner:
        return await AsyncRunner.connect(f"unix:{served.path}")

    here, there = anyio.run(through, embedded), anyio.run(through, remote)
    assert here == there
    assert here == [0, 1, 2, b"1\n2\n", Effect.ALLOW, ["run.ended"], ["run.ended"] * 2]


def test_nobody_answers(tmp_path):
    with pytest.raises(UnreachableError, match="no server answers"):
        connect(f"unix:{tmp_path}/none")
    with pytest.raises(UnreachableError):
        connect("http://127.0.0.1:1")
