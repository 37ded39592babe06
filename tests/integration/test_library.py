"""`Runner` and `AsyncRunner` as other programs use them, on the native backend."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import anyio
import psutil
import pytest

from runner import AsyncRunner, Outcome, Runner, RunnerError
from runner.errors import (
    BackendError,
    PolicyError,
    ProfileError,
    RequestError,
    SettingsError,
    StateError,
)
from runner.model.decision import Effect
from runner.model.limits import LimitName
from runner.model.outcome import Termination
from runner.settings import PolicyFolder, Setting, Settings, load_settings
from runner.streams import CallbackSink, Cancellation, FdSink
from runner.testing.backend_harness import expect_no_process_with


def kinds(runner: Runner, run_id: str | None = None) -> list[str]:
    return [event.kind for event in runner.store.events(run_id)]


def asleep(marker: str) -> list[psutil.Process]:
    """Processes that have this word on their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and marker in (
            process.info["cmdline"] or []
        ):
            found.append(process)
    return found


def unique_seconds() -> str:
    return f"97{os.getpid()}.{time.monotonic_ns()}"


def test_one_of_four_forms(runner, work):
    script = work / "hello.py"
    script.write_text("import sys\nprint('script', sys.argv[1:])\n")
    outcomes = [
        runner.run(["echo", "argv"], cwd=work),
        runner.run(shell="echo shell | cat", cwd=work),
        runner.run(script="hello.py", args=["a", "b"], cwd=work),
        runner.run(script=script, cwd=work),
        runner.run(code="print('code')", language="python", cwd=work),
        runner.run(code=b"echo bytes $1", language="sh", args=["x"], cwd=work),
    ]
    said = [outcome.stdout.data.decode().strip() for outcome in outcomes]
    assert said == ["argv", "shell", "script ['a', 'b']", "script []", "code", "bytes x"]
    assert all(isinstance(outcome, Outcome) and outcome.ok for outcome in outcomes)
    assert len({outcome.run_id for outcome in outcomes}) == 6


def test_an_outcome_is_whole(runner, work):
    outcome = runner.run(shell="echo out; echo err >&2; touch made; exit 3", cwd=work)
    assert (outcome.termination, outcome.exit_code, outcome.status) == (Termination.EXITED, 3, 3)
    assert (outcome.backend, outcome.profile, outcome.ok) == ("native", "agent", False)
    assert (outcome.stdout.data, outcome.stderr.data) == (b"out\n", b"err\n")
    assert [(change.path, change.kind) for change in outcome.changes] == [("made", "created")]
    assert outcome.usage.wall_s is not None
    assert outcome.usage.connections is None
    assert "seccomp" in outcome.protections
    assert kinds(runner, outcome.run_id) == ["run.decided", "run.started", "run.ended"]
    events = list(runner.store.events(outcome.run_id))
    assert (outcome.audit.first_seq, outcome.audit.last_seq) == (events[0].seq, events[-1].seq)
    assert outcome.audit.head == events[-1].leaf_hash.hex()
    assert runner.store.kept_output(outcome.run_id, "stdout") == b"out\n"
    assert runner.store.verify().failure is None


def test_denials_and_limits_are_outcomes(runner, work):
    denied = runner.run(["sudo", "true"], cwd=work)
    assert (denied.termination, denied.status) == (Termination.DENIED, 126)
    assert denied.decision.effect is Effect.DENY
    assert kinds(runner, denied.run_id) == ["run.decided", "run.ended"]
    limited = runner.run(["sleep", "60"], cwd=work, limits={"wall": 0.3})
    assert (limited.termination, limited.limit) == (Termination.LIMIT, LimitName.WALL)
    assert limited.status == 124


def test_stdin_of_every_kind(runner, work, tmp_path):
    (tmp_path / "input").write_bytes(b"from a file")
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"from a pipe")
    os.close(write_fd)
    with open(tmp_path / "input", "rb") as file, os.fdopen(read_fd, "rb"):
        given = [None, b"\x00\xff", "t\u00e9xt", file.fileno(), read_fd]
        said = [runner.run(["cat"], cwd=work, stdin=stdin).stdout.data for stdin in given]
    assert said == [b"", b"\x00\xff", "t\u00e9xt".encode(), b"from a file", b"from a pipe"]


def test_sinks_get_output_as_it_comes(runner, work):
    """The program goes on only after its first word was heard."""
    read_fd, write_fd = os.pipe()
    heard: list[bytes] = []

    def hear(data: bytes) -> None:
        heard.append(data)
        if data == b"ready\n":
            os.write(write_fd, b"go\n")
            os.close(write_fd)

    with os.fdopen(read_fd, "rb"):
        outcome = runner.run(
            shell="echo ready; read word; echo $word >&2",
            cwd=work,
            stdin=read_fd,
            stdout=CallbackSink(hear),
            stderr=CallbackSink(heard.append),
        )
    assert heard == [b"ready\n", b"go\n"]
    assert outcome.stderr.data == b"go\n"


def test_a_sink_that_fails_is_recorded_as_runners_failure(runner, work):
    def fail(data: bytes) -> None:
        raise ValueError("no place for it")

    with pytest.raises(ValueError, match="no place"):
        runner.run(["echo", "x"], cwd=work, stdout=CallbackSink(fail))
    last = list(runner.store.events())[-1]
    assert b'"termination":"runner_failed"' in last.body
    assert runner.run(["true"], cwd=work).ok


def test_eight_runs_at_once(runner, work):
    """Each waits until all have begun; their outputs and records don't mix."""
    begun = threading.Barrier(8)
    outcomes: dict[int, Outcome] = {}

    def one(number: int) -> None:
        read_fd, write_fd = os.pipe()

        def start(data: bytes) -> None:
            if data.startswith(b"begun"):
                begun.wait(timeout=120)
                os.write(write_fd, b"go\n")

        text = f"echo begun; read go; echo {number} > mine; cat mine; exit {number}"
        try:
            outcomes[number] = runner.run(
                shell=text, cwd=work, stdin=read_fd, stdout=CallbackSink(start)
            )
        finally:
            os.close(read_fd)
            os.close(write_fd)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == list(range(8))
    for number, outcome in outcomes.items():
        assert outcome.exit_code == number
        assert outcome.stdout.data == f"begun\n{number}\n".encode()
        assert kinds(runner, outcome.run_id) == ["run.decided", "run.started", "run.ended"]
    assert list(work.iterdir()) == []
    assert runner.store.verify().failure is None


def test_a_token_ends_the_run(runner, work):
    marker = unique_seconds()
    with Cancellation() as cancel:
        outcome = runner.run(
            shell=f"trap '' TERM; echo ready; sleep {marker}; sleep {marker}",
            cwd=work,
            stdout=CallbackSink(lambda _: cancel.set()),
            cancel=cancel,
        )
    assert (outcome.termination, outcome.status) == (Termination.CANCELLED, 130)
    assert asleep(marker) == []
    assert kinds(runner, outcome.run_id)[-1] == "run.ended"


WRONG = {
    "no form": ({"argv": None}, RequestError, "exactly one of"),
    "two forms": ({"shell": "true"}, RequestError, "argv, shell"),
    "text as argv": ({"argv": "true"}, RequestError, "shell="),
    "empty argv": ({"argv": []}, RequestError, "empty"),
    "number in argv": ({"argv": ["a", 1]}, RequestError, "int"),
    "NUL in argv": ({"argv": ["a\0b"]}, RequestError, "NUL"),
    "no language": ({"argv": None, "code": "1"}, RequestError, "language"),
    "language": ({"argv": None, "code": "1", "language": "cobol"}, RequestError, "cobol"),
    "half a pair": ({"argv": None, "code": "'\ud800'", "language": "sh"}, RequestError, "pair"),
    "args of argv": ({"args": ["x"]}, RequestError, "args"),
    "missing script": ({"argv": None, "script": "no.py"}, RequestError, "no.py"),
    "folder as script": ({"argv": None, "script": "."}, RequestError, "not a file"),
    "missing folder": ({"cwd": "/no/such/folder"}, RequestError, "/no/such/folder"),
    "the machine": ({"cwd": "/"}, RequestError, "whole machine"),
    "limit": ({"limits": {"wall": "soon"}}, RequestError, "soon"),
    "unknown limit": ({"limits": {"speed": 1}}, RequestError, "speed"),
    "looser limit": ({"limits": {"wall": "10h"}}, RequestError, "wall"),
    "variable": ({"env": {"A=B": "x"}}, RequestError, "A=B"),
    "number as variable": ({"env": {"A": 1}}, RequestError, "int"),
    "agent": ({"agent": "a\nb"}, RequestError, "agent"),
    "closed stdin": ({"stdin": 1 << 20}, RequestError, "descriptor"),
    "profile": ({"profile": "agnet"}, ProfileError, "'agent'"),
    "backend": ({"backend": "cloud"}, SettingsError, "cloud"),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    (folder / "work").mkdir()
    with Runner(home=folder / "home", settings=settings_at(folder)) as made:
        yield made, folder / "work"


def settings_at(folder: Path, **changes: object) -> Settings:
    env = {"HOME": str(folder / "nobody")}
    settings = load_settings({"home": folder / "home"}, env=env, etc=folder / "etc")
    return replace(settings, **changes)


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_an_error_of_its_kind_and_recorded(shared, case):
    runner, work = shared
    options, kind, says = WRONG[case]
    with pytest.raises(kind) as caught:
        runner.run(**{"argv": ["true"], "cwd": work, **options})
    error = caught.value
    assert isinstance(error, RunnerError)
    assert says in str(error)
    assert "\n" not in str(error)
    assert (error.exit_code, error.outcome) == (2, None)
    last = list(runner.store.events())[-1]
    assert last.kind == "request.refused"
    assert error.code.encode() in last.body
    assert runner.store.verify().failure is None


def test_an_error_of_a_begun_run_carries_its_outcome(runner, work, monkeypatch):
    backend = runner.backend()

    def fail(*_: object) -> None:
        raise BackendError("the wall fell down")

    monkeypatch.setattr(backend, "acquire", fail)
    with pytest.raises(BackendError) as caught:
        runner.run(["true"], cwd=work)
    outcome = caught.value.outcome
    assert isinstance(outcome, Outcome)
    assert (outcome.termination, outcome.status) == (Termination.RUNNER_FAILED, 125)
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.message) == (
        "backend_failed",
        "the wall fell down",
    )
    assert caught.value.exit_code == 125
    assert kinds(runner, outcome.run_id) == ["run.decided", "run.ended"]


def test_a_state_folder_or_policy_that_cant_be_used(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StateError) as caught:
        Runner(home=blocked)
    assert (caught.value.code, caught.value.exit_code) == ("state_unusable", 125)
    policies = tmp_path / "policy.d"
    policies.mkdir()
    (policies / "a.yaml").write_text("rules: 3\n")
    folder = PolicyFolder(policies, "user")
    settings = settings_at(tmp_path, policy_dirs=Setting((folder,), "test"))
    with pytest.raises(PolicyError, match=r"a\.yaml:1"):
        Runner(settings=settings)


LAYER = """
limits: { wall: 3s }
environment: { deny: [TOKEN_*] }
rules:
  list:
    - id: no-printing
      effect: deny
      match: { command: printf }
      message: Use echo.
"""
LOOSE = """
name: loose
extends: agent
description: As loose as can be.
limits: { wall: 60s }
rules: { default: allow, list: [{ id: printing, effect: allow, match: { command: printf },
                                  message: fine }] }
"""


@pytest.mark.parametrize("kind", [pytest.param("organisation", marks=pytest.mark.root), "user"])
def test_a_layer_tightens_a_profile_that_is_given_as_a_file(tmp_path, native, work, kind):
    folder = tmp_path / "layers"
    folder.mkdir(mode=0o755)
    (folder / "10.yaml").write_text(LAYER)
    (tmp_path / "loose.yaml").write_text(LOOSE)
    layers = Setting((PolicyFolder(folder, kind),), "test")
    options = {"profile": str(tmp_path / "loose.yaml"), "cwd": work}
    with Runner(settings=settings_at(tmp_path, policy_dirs=layers)) as runner:
        printing = runner.run(["printf", "x"], **options)
        assert printing.termination is Termination.DENIED
        assert "no-printing" in printing.decision.reason
        token = runner.run(["true"], env={"TOKEN_A": "1"}, **options)
        assert token.termination is Termination.DENIED
        slow = runner.run(["sleep", "60"], **options)
        assert (slow.termination, slow.limit) == (Termination.LIMIT, LimitName.WALL)
        with pytest.raises(RequestError, match="wall"):
            runner.run(["true"], limits={"wall": "20s"}, **options)
        assert runner.run(["echo", "x"], env={"OTHER": "1"}, **options).ok
    with Runner(settings=settings_at(tmp_path)) as runner:  # the twin without that layer
        assert runner.run(["printf", "x"], env={"TOKEN_A": "1"}, **options).ok


def test_a_layer_names_the_profiles_that_may_be_used(tmp_path, native, work):
    folder = tmp_path / "policy.d"
    folder.mkdir()
    (folder / "10.yaml").write_text("profiles: [ci]\n")
    layers = Setting((PolicyFolder(folder, "user"),), "test")
    with Runner(settings=settings_at(tmp_path, policy_dirs=layers)) as runner:
        with pytest.raises(RunnerError, match="agent") as caught:
            runner.run(["true"], cwd=work)
        assert caught.value.exit_code in (2, 126)
        assert runner.run(["true"], cwd=work, profile="ci").ok


FOREIGN = {
    "10.cedar": 'permit(principal, action, resource);\n@message("Use echo.")\n'
    'forbid(principal, action, resource == Command::"printf");\n',
    "10.rego": "package runner\nallow := true\n"
    'deny contains "Use echo." if input.resource.name == "printf"\n',
}


@pytest.mark.parametrize(("name", "package"), [("10.cedar", "cedarpy"), ("10.rego", "regopy")])
def test_policies_in_other_languages_are_asked_beside_the_rules(
    tmp_path, native, work, name, package
):
    if find_spec(package) is None:  # never imported here: regopy is for a process of its own
        pytest.skip(f"{package} is not installed")
    folder = tmp_path / "policy.d"
    folder.mkdir()
    (folder / name).write_text(FOREIGN[name])
    layers = Setting((PolicyFolder(folder, "user"),), "test")
    with Runner(settings=settings_at(tmp_path, policy_dirs=layers)) as runner:
        printing = runner.run(["printf", "x"], cwd=work)
        assert printing.termination is Termination.DENIED
        assert "Use echo." in printing.decision.reason
        assert runner.run(["echo", "x"], cwd=work).ok
        # The profile's own rules hold as they did.
        refused = runner.run(["sudo", "id"], cwd=work)
        assert refused.termination is Termination.DENIED
        assert refused.decision.rules[0].layer == "profile:agent"
    with Runner(settings=settings_at(tmp_path)) as runner:  # the twin without that policy
        other = runner.run(["printf", "x"], cwd=work)
        assert other.ok
        assert other.decision.policy_digest != printing.decision.policy_digest


@pytest.mark.parametrize("name", ["10.cedar", "10.rego"])
def test_a_policy_in_another_language_that_cant_be_used_is_no_runner(tmp_path, name):
    folder = tmp_path / "policy.d"
    folder.mkdir()
    (folder / name).write_text("nonsense (\n")
    layers = Setting((PolicyFolder(folder, "user"),), "test")
    with pytest.raises(PolicyError, match=name):
        Runner(settings=settings_at(tmp_path, policy_dirs=layers))


KILLED = """
import sys
from runner import Runner
from runner.streams import FdSink
with Runner(home=sys.argv[1]) as runner:
    runner.run(shell=f"echo ready; sleep {sys.argv[3]}", cwd=sys.argv[2], stdout=FdSink(1))
"""


def test_a_run_whose_supervisor_was_killed_is_closed_as_unknown(tmp_path, native, work):
    home, marker = tmp_path / "home", unique_seconds()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(home), str(work), marker], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    expect_no_process_with(marker)
    with Runner(home=home) as runner:
        (run_id,) = runner.recovered
        assert kinds(runner, run_id) == ["run.decided", "run.started", "run.recovered"]
        assert runner.store.kept_output(run_id, "stdout") == b"ready\n"
        assert runner.run(["true"], cwd=work).ok
        assert runner.store.verify().failure is None
    with Runner(home=home) as runner:
        assert runner.recovered == []


def test_a_run_of_a_living_supervisor_is_left_alone(runner, tmp_path, work):
    seen: list[list[str]] = []

    def look(_: bytes) -> None:
        with Runner(home=tmp_path / "home") as other:
            seen.append(other.recovered)

    outcome = runner.run(["echo", "x"], cwd=work, stdout=CallbackSink(look))
    assert outcome.ok
    assert seen == [[]]


def test_async_runs_side_by_side(tmp_path, native, work):
    async def main() -> list[Outcome]:
        found: list[Outcome] = []
        async with AsyncRunner(home=tmp_path / "home") as runner:

            async def one(number: int) -> None:
                found.append(await runner.run(["sh", "-c", f"exit {number}"], cwd=work))

            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(one, number)
        return found

    outcomes = anyio.run(main)
    assert sorted(outcome.exit_code or 0 for outcome in outcomes) == [0, 1, 2]


def test_async_errors_come_as_they_are(tmp_path, work):
    async def main() -> None:
        async with AsyncRunner(home=tmp_path / "home") as runner:
            await runner.run(script="missing.py", cwd=work)

    with pytest.raises(RequestError, match=r"missing\.py") as caught:
        anyio.run(main)
    assert caught.value.code == "bad_request"


def test_a_cancelled_scope_ends_the_run(tmp_path, native, work):
    marker, home = unique_seconds(), tmp_path / "home"
    ended: list[str] = []

    async def main() -> None:
        async with AsyncRunner(home=home) as runner:
            with anyio.CancelScope() as scope:
                loop_token = anyio.lowlevel.current_token()

                def stop(_: bytes) -> None:
                    anyio.from_thread.run_sync(scope.cancel, token=loop_token)

                await runner.run(
                    shell=f"trap '' TERM; echo ready; sleep {marker}",
                    cwd=work,
                    stdout=CallbackSink(stop),
                )
                ended.append("ran to its end")
            assert scope.cancelled_caught
            # Whoever cancelled finds the run over and written down, not on its way to it.
            assert asleep(marker) == []
            ended.append("cancelled")
            assert (await runner.run(["true"], cwd=work)).ok

    anyio.run(main)
    assert ended == ["cancelled"]
    with Runner(home=home) as runner:
        assert runner.recovered == []
        first = next(e.run_id for e in runner.store.events() if e.run_id is not None)
        last = list(runner.store.events(first))[-1]
        assert last.kind == "run.ended"
        assert b'"termination":"cancelled"' in last.body


def test_check_and_plan_run_nothing(runner, work):
    from runner.intake import build_request

    request = build_request(argv=["touch", "made"], cwd=work)
    assert runner.check(request).effect is Effect.ALLOW
    plan = runner.plan(request)
    assert plan.spec is not None
    assert plan.spec.argv == ("touch", "made")
    assert kinds(runner) == ["log.created", "decision.checked"]
    refused = build_request(argv=["true"], cwd=work, profile="nope")
    with pytest.raises(ProfileError):
        runner.check(refused)
    assert kinds(runner)[-1] == "request.refused"


def test_output_to_a_descriptor(runner, work):
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb") as reader:
        outcome = runner.run(["echo", "x"], cwd=work, stdout=FdSink(write_fd))
        os.close(write_fd)
        assert reader.read() == b"x\n"
    assert outcome.stdout.bytes_total == 2
