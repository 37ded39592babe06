"""Sessions: a sandbox that a process of its own keeps, and the commands that come into it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import RUNNER_COMMAND

from runner import Runner
from runner.errors import BackendError, RequestError, RunnerError, UnreachableError
from runner.model.event import EventKind
from runner.model.kill import KillScope
from runner.model.limits import LimitName
from runner.model.outcome import Termination
from runner.model.session import FileDeed, FileTask
from runner.sessions.client import Session
from runner.streams import Cancellation
from runner.surfaces.keeping.process import _sweep

pytestmark = pytest.mark.usefixtures("native")


def until(true: Callable[[], object], what: str) -> None:
    """Wait for it; a minute is long on any machine."""
    deadline_s = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


@pytest.fixture
def session(runner: Runner, work: Path) -> Iterator[Session]:
    (work / "a").write_text("first\n")
    with runner.sessions.start(cwd=work, agent="bot", lifetime="10m") as begun:
        yield begun


def keeper_of(session: Session) -> int:
    """The process that keeps it."""
    for _ in range(100):  # a descriptor that is closed meanwhile makes it look like none
        if (found := _keeper_of(session)) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("nobody keeps it")


def _keeper_of(session: Session) -> int | None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                held = [os.readlink(fd) for fd in (entry / "fd").iterdir()]
            except OSError:
                continue
            ours = any(f"{session._home}/" in each for each in held)
            if ours and b"runner.surfaces.keeping" in words:
                return int(entry.name)
    return None


def events(runner: Runner, run_id: str) -> list[str]:
    return [event.kind for event in runner.store.events(run_id)]


def test_a_keeper_that_is_stopped_holds_nobody(
    runner: Runner, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.sessions.client.ANSWER_S", 1.0)
    keeper = keeper_of(session)
    os.kill(keeper, signal.SIGSTOP)
    try:
        for ask in (session.state, session.processes, lambda: session.end_process(1)):
            with pytest.raises(UnreachableError, match="does not answer"):
                ask()
    finally:
        os.kill(keeper, signal.SIGCONT)
    assert session.state().id == session.id


def test_sockets_of_killed_keepers_are_swept(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(keeper_of(session), signal.SIGKILL)
    folder = os.open(session._home / "sessions", os.O_PATH)
    place = Path(f"/proc/self/fd/{folder}")  # a path may be longer than an address can be

    def names() -> set[str]:
        return {each.name for each in place.iterdir()}

    def answers(name: str) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as tried:
            return tried.connect_ex(str(place / name)) == 0

    until(lambda: not answers(session.id), "the keeper is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(str(place / "new"))  # and is listened at a moment later
        _sweep(folder)
        assert names() == {session.id, "new"}
        monkeypatch.setattr("runner.surfaces.keeping.process.OLD_S", 0.0)
        other.listen()
        _sweep(folder)
        assert names() == {"new"}
    os.close(folder)


def test_an_upload_that_is_cut_is_put_nowhere(session: Session) -> None:
    """Of a size that nobody knows, from a process that is killed in the middle."""
    session.write("f", "as it was")
    begun = subprocess.Popen(
        [*RUNNER_COMMAND, "session", "put", session.id, "-", "f"],
        stdin=subprocess.PIPE,
        env={**os.environ, "RUNNER_HOME": str(session._home)},
    )
    assert begun.stdin is not None
    begun.stdin.write(b"x" * (1 << 20))  # more than a pipe holds: it is read
    begun.kill()
    begun.wait()
    begun.stdin.close()
    assert session.read("f") == b"as it was"
    with pytest.raises(RequestError, match="needs its size"):
        session._ask("file", {"do": "write", "path": "f"})
    done = session.do(FileTask(FileDeed.WRITE, "f"), io.BytesIO(b"whole"))
    assert (done.problem, session.read("f")) == (None, b"whole")


def test_files_and_processes_live_on(session: Session, work: Path) -> None:
    assert session.run(shell="cat a; echo second > b").stdout.data == b"first\n"
    assert session.run(shell="cat b").stdout.data == b"second\n"
    assert session.run(shell="sleep 600 & echo $! > pid").ok
    (found,) = session.processes()
    assert found.argv == ("sleep", "600")
    # One command may end what another one left.
    assert session.run(shell="kill $(cat pid)").ok
    until(lambda: not session.processes(), "the process is there")
    assert not (work / "b").exists()
    outcome = session.stop()
    assert outcome.ok
    assert [change.path for change in outcome.changes] == ["b", "pid"]
    assert outcome.run_id == session.id


def test_what_it_changed_is_applied_like_a_runs(
    session: Session, runner: Runner, work: Path
) -> None:
    assert session.run(shell="echo new > b; rm a").ok
    session.stop()
    assert runner.apply(session.id).status == 0
    assert (work / "b").read_text() == "new\n"
    assert not (work / "a").exists()


def test_each_command_is_decided_metered_and_recorded(session: Session, runner: Runner) -> None:
    allowed = session.run(["true"], labels={"step": "1"})
    denied = session.run(["sudo", "true"])
    assert denied.termination is Termination.DENIED
    assert denied.status == 126
    assert events(runner, allowed.run_id) == ["run.decided", "run.started", "run.ended"]
    assert events(runner, denied.run_id) == ["run.decided", "run.ended"]
    first = json.loads(next(iter(runner.store.events(allowed.run_id))).body)
    assert first["data"]["within"] == session.id
    assert first["data"]["labels"] == {"step": "1"}
    assert first["principal"]["agent"] == "bot"
    assert first["principal"]["session"] == session.id
    assert events(runner, session.id) == ["run.decided", "run.started"]
    assert allowed.usage.wall_s is not None
    assert allowed.protections
    assert session.stop().ok
    assert events(runner, session.id) == ["run.decided", "run.started", "run.ended"]


def test_scripts_and_input(session: Session, work: Path) -> None:
    code = "import sys; print(sys.argv[1:], sys.stdin.read()); open(__file__, 'w')"
    done = session.run(code=code, language="python", args=["x y"], stdin="given")
    assert done.exit_code == 1
    assert done.stdout.data == b"['x y'] given\n"
    assert b"Read-only file system" in done.stderr.data
    (work / "fix.sh").write_text("#!/bin/sh\necho from a file $0\n")
    done = session.run(script=work / "fix.sh")
    assert done.stdout.data == b"from a file /run/runner/fix.sh\n"
    assert session.run(["nothing-like-it"]).status == 127


def test_no_command_sees_the_script_of_another(session: Session) -> None:
    waiting = threading.Thread(
        target=session.run, kwargs={"code": "import time; time.sleep(5)", "language": "python"}
    )
    waiting.start()
    until(session.processes, "it does not begin")
    assert session.run(shell="ls /run/runner").stdout.data == b""
    waiting.join()


@pytest.mark.parametrize(
    ("limits", "shell", "limit"),
    [
        ({"wall": "1s"}, "setsid sleep 60 & sleep 60", LimitName.WALL),
        ({"cpu_time": "1s"}, "while :; do :; done", LimitName.CPU_TIME),
        ({"output": "4KiB"}, "yes", LimitName.OUTPUT),
    ],
)
def test_limits_end_a_command_with_all_it_started_and_no_more(
    session: Session, limits: dict[str, str], shell: str, limit: LimitName
) -> None:
    assert session.run(shell="sleep 600 &").ok
    ended = session.run(shell=shell, limits=limits)
    assert ended.termination is Termination.LIMIT
    assert ended.limit is limit
    (left,) = session.processes()
    assert left.argv == ("sleep", "600")
    assert session.run(["true"]).ok


def test_memory_is_the_sessions_and_ends_the_command(runner: Runner, work: Path) -> None:
    with runner.sessions.start(cwd=work, limits={"memory": "128MiB"}) as session:
        hungry = session.run(code="b'x' * (1 << 29)", language="python")
        assert not hungry.ok
        if "cgroup" in hungry.protections:
            assert hungry.limit is LimitName.MEMORY
        assert session.run(["true"]).ok


def test_a_fork_bomb_is_ended(runner: Runner, work: Path) -> None:
    with runner.sessions.start(cwd=work, limits={"processes": 20}) as session:
        bomb = "import os\nwhile True:\n    os.fork()"
        ended = session.run(code=bomb, language="python", limits={"wall": "20s"})
        assert ended.termination is Termination.LIMIT or ended.exit_code == 1
        if "cgroup" in ended.protections:
            assert session.run(["true"]).ok
            assert not session.processes()


def test_what_is_written_is_bounded(runner: Runner, work: Path) -> None:
    with runner.sessions.start(cwd=work, limits={"workspace": "4MiB"}) as session:
        full = session.run(shell="head -c 10000000 /dev/zero > big")
        assert full.limit is LimitName.WORKSPACE
        assert session.run(shell="rm big; echo fits > small").ok


def test_limits_of_the_whole_are_stated_where_it_begins(session: Session) -> None:
    with pytest.raises(RequestError, match="memory: holds for the session as a whole"):
        session.run(["true"], limits={"memory": "64MiB"})
    with pytest.raises(RequestError, match="asks for"):
        session.run(["true"], limits={"wall": "99h"})


def test_cancelling_ends_a_command_and_all_it_started(session: Session, runner: Runner) -> None:
    with Cancellation() as cancel:
        threading.Timer(0.5, cancel.set).start()
        ended = session.run(shell="setsid sleep 600 & sleep 600", cancel=cancel)
    assert ended.termination is Termination.CANCELLED
    assert not session.processes()
    assert session.run(["true"]).ok


def test_who_goes_away_ends_its_command(session: Session, runner: Runner, tmp_path: Path) -> None:
    words = (
        "from runner import Runner\nimport sys\n"
        "with Runner(home=sys.argv[1]) as r:\n"
        "    r.sessions.get(sys.argv[2]).run(shell='echo > begun; sleep 600')\n"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", words, str(tmp_path / "home"), session.id], stdin=subprocess.DEVNULL
    )
    begun = FileTask(FileDeed.STAT, "begun")
    until(lambda: session.do(begun).done, "it does not begin")
    caller.kill()
    caller.wait()
    until(lambda: not session.processes(), "it goes on")
    until(lambda: not [r for r in runner.kills.running() if r.run_id != session.id], "it is open")
    assert session.run(["test", "-e", "begun"]).ok


def test_many_at_once(session: Session) -> None:
    found: list[bytes] = []

    def one(number: int) -> None:
        found.append(session.run(shell=f"sleep 0.2; echo {number}").stdout.data)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [b"%d\n" % number for number in range(8)]


def test_lifetime(runner: Runner, work: Path) -> None:
    for lifetime_s in (3, 10, 60):  # slow machines need more to begin with it
        session = runner.sessions.start(cwd=work, lifetime=lifetime_s)
        try:
            ended = session.run(shell="sleep 600")
            break
        except (BackendError, UnreachableError):
            continue
    assert ended.termination is Termination.LIMIT
    assert ended.limit is LimitName.WALL
    until(lambda: events(runner, session.id)[-1] == "run.ended", "it goes on")
    last = json.loads([*runner.store.events(session.id)][-1].body)["data"]
    assert last["limit"] == "wall"
    with pytest.raises((UnreachableError, BackendError)):
        session.run(["true"])


def test_idle(runner: Runner, work: Path) -> None:
    session = runner.sessions.start(cwd=work, idle=1)
    assert session.run(shell="sleep 1.5; sleep 600 &").ok  # that one runs on does not count
    until(lambda: events(runner, session.id)[-1] == "run.ended", "it goes on")
    last = json.loads([*runner.store.events(session.id)][-1].body)["data"]
    assert last["limit"] == "idle"


def test_it_can_only_be_begun_with_less(runner: Runner, work: Path) -> None:
    with pytest.raises(RequestError, match="session_lifetime"):
        runner.sessions.start(cwd=work, lifetime="3d")
    with pytest.raises(RequestError, match="idle 'soon'"):
        runner.sessions.start(cwd=work, idle="soon")
    with pytest.raises(RunnerError, match="no-such-profile"):
        runner.sessions.start(cwd=work, profile="no-such-profile")
    kinds = [event.kind for event in runner.store.events()]
    assert kinds.count(EventKind.REQUEST_REFUSED) >= 1


def test_it_outlives_who_began_it(work: Path, tmp_path: Path) -> None:
    with Runner(home=tmp_path / "home") as first:
        session = first.sessions.start(cwd=work, lifetime="5m")
        session.run(shell="echo kept > b")
    with Runner(home=tmp_path / "home") as second:
        assert not second.recovered
        (found,) = second.sessions.all()
        assert found.id == session.id
        with found:
            assert found.run(["cat", "b"]).stdout.data == b"kept\n"


def test_a_killed_keeper_leaves_nothing(session: Session, tmp_path: Path) -> None:
    assert session.run(shell="sleep 601 &").ok
    keeper = keeper_of(session)
    os.kill(keeper, signal.SIGKILL)
    until(lambda: not _runs(b"sleep\0601"), "the sandbox outlives its keeper")

    def is_closed() -> bool:
        with Runner(home=tmp_path / "home") as other:
            return events(other, session.id)[-1] == "run.recovered"

    until(is_closed, "its record is open")
    with Runner(home=tmp_path / "home") as other:
        assert not other.sessions.all()
        assert not other.kills.running()
    with pytest.raises(UnreachableError):
        session.run(["true"])


def test_sigterm_ends_it_as_stopped(session: Session, runner: Runner) -> None:
    os.kill(keeper_of(session), signal.SIGTERM)
    until(lambda: events(runner, session.id)[-1] == "run.ended", "it goes on")
    assert json.loads([*runner.store.events(session.id)][-1].body)["data"]["exit_code"] == 0


@pytest.mark.parametrize(
    ("scope", "name"), [(KillScope.AGENT, "bot"), (KillScope.ALL, ""), (KillScope.RUN, None)]
)
def test_the_kill_switch(
    session: Session, runner: Runner, scope: KillScope, name: str | None
) -> None:
    assert session.run(shell="sleep 602 &").ok
    runner.kills.order(scope, session.id if name is None else name, "it runs wild")
    until(lambda: events(runner, session.id)[-1] == "run.ended", "it goes on")
    assert json.loads([*runner.store.events(session.id)][-1].body)["data"]["killed"]
    assert not _runs(b"sleep\0602")


def test_budgets_hold_for_its_commands(runner: Runner, work: Path, tmp_path: Path) -> None:
    profile = tmp_path / "small.yaml"
    profile.write_text(
        "name: small\nextends: agent\ndescription: few calls\nbudgets:\n"
        "  - {id: few, of: session, calls: 3, per: 1h}\n"
        "  - {id: one, of: agent, at_once: 1}\n"
    )
    with runner.sessions.start(cwd=work, profile=str(profile), agent="thrifty") as session:
        # Beginning it was the first; and of what is open at once it is one, with all its commands.
        assert session.run(["true"]).ok
        assert session.run(["true"]).ok
        refused = session.run(["true"])
        assert refused.termination is Termination.DENIED
        assert "'few'" in refused.decision.reason


def test_cpu_time_that_commands_left_behind_is_the_sessions(runner: Runner, work: Path) -> None:
    session = runner.sessions.start(cwd=work, lifetime="5m")
    burning = session.run(shell="(timeout 2 sh -c 'while :; do :; done') > /dev/null 2>&1 &")
    assert burning.ok
    until(lambda: not session.processes(), "it goes on")
    outcome = session.stop()
    assert outcome.usage.cpu_user_s is not None
    if "cgroup" in outcome.protections:
        assert outcome.usage.cpu_user_s > 0.2 > (burning.usage.cpu_user_s or 0.0)


def test_another_profile_needs_another_session(runner: Runner, work: Path, tmp_path: Path) -> None:
    profile = tmp_path / "own.yaml"
    text = "name: own\nextends: agent\ndescription: mine\n"
    profile.write_text(text)
    with runner.sessions.start(cwd=work, profile=str(profile)) as session:
        assert session.run(["true"]).ok
        profile.write_text(text + "limits: {memory: 64MiB}\n")
        with pytest.raises(BackendError, match="another than when the session began"):
            session.run(["true"])
        # What rules say holds at once.
        rule = "{id: no-true, effect: deny, match: {command: 'true'}, message: No.}"
        profile.write_text(f"{text}rules:\n  list: [{rule}]\n")
        assert session.run(["true"]).termination is Termination.DENIED
        assert session.run(["false"]).exit_code == 1


def test_a_profile_without_namespaces_has_no_sessions(
    runner: Runner, work: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunnerError, match="isolation: full"):
        runner.sessions.start(cwd=work, profile="agent-process")


def test_what_is_under_way_as_it_ends_is_recorded(runner: Runner, work: Path) -> None:
    session = runner.sessions.start(cwd=work, lifetime="5m")

    def go_on() -> None:
        with contextlib.suppress(RunnerError):  # that it has ended
            while True:
                session.run(shell="sleep 0.05")

    threads = [threading.Thread(target=go_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(session.state().runs) > 1, "nothing runs")
    session.stop()
    for thread in threads:
        thread.join()
    until(lambda: not runner.kills.running(), "something is open")
    last: dict[str | None, str] = {}
    for event in runner.store.events():
        last[event.run_id] = event.kind
    assert {last[run] for run in last if run is not None} == {"run.ended"}


class TestFiles:
    def test_written_and_read_in_its_own_view(self, session: Session, work: Path) -> None:
        content = bytes(range(256)) * 5000
        session.write("deep/er/file", content)
        assert session.read("deep/er/file") == content
        assert session.read("deep/er/file", offset=10, length=5) == content[10:15]
        session.write("tool", "#!/bin/sh\necho hi\n", executable=True)
        assert session.run(["./tool"]).stdout.data == b"hi\n"
        assert not (work / "tool").exists()

    def test_no_link_leads_out(self, session: Session, work: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("outside")
        (work / "link").symlink_to(tmp_path / "secret")
        fresh = session.run(shell=f"ln -s / root; ln -s {tmp_path}/secret own; ln -s .. up")
        assert fresh.ok
        paths = ("own", f"root{tmp_path}/secret", "up/secret", f"{tmp_path}/secret")
        for path in paths:
            with pytest.raises(RequestError, match="No such file"):
                session.read(path)
        for path in paths:
            # A link is replaced and never written through; else it goes where a program would.
            assert session.do(FileTask(FileDeed.WRITE, path, size_bytes=0)).done
        assert (tmp_path / "secret").read_text() == "outside"

    def test_what_can_not_be(self, session: Session) -> None:
        assert session.run(shell="mkfifo pipe; mkdir full; touch full/x").ok
        for path, why in (
            ("nothing", "No such file"),
            ("full", "Is a directory"),
            ("pipe", "Invalid argument"),
            ("/dev/zero", "Invalid argument"),
            ("/proc/self/mem", "Permission denied"),
        ):
            with pytest.raises(RequestError, match=why):
                session.read(path)
        with pytest.raises(RequestError, match="Read-only file system"):
            session.write("/usr/x", "no")
        with pytest.raises(RequestError, match="Is a directory"):
            session.write("full", "no")
        assert session.do(FileTask(FileDeed.REMOVE, "full")).problem == "Directory not empty"

    def test_a_write_is_whole_or_not_at_all(self, session: Session) -> None:
        session.write("f", "old")
        short = session.do(FileTask(FileDeed.WRITE, "f", size_bytes=100))
        assert short.problem == "Broken pipe"
        assert session.read("f") == b"old"
        assert session.run(["ls", "-A"]).stdout.data == b"a\nf\n"

    def test_listed(self, session: Session, tmp_path: Path) -> None:
        session.write("d/x", "12345")
        assert session.run(shell="ln -s x d/y; mkdir d/z").ok
        listing = tmp_path / "listing"
        with listing.open("wb") as file:
            assert session.do(FileTask(FileDeed.LIST, "d"), target=file).done
        found = [json.loads(line) for line in listing.read_text().splitlines()]
        assert [(each["name"], each["type"]) for each in found] == [
            ("x", "file"), ("y", "symlink"), ("z", "directory"),
        ]  # fmt: skip
        assert found[0]["size_bytes"] == 5
        assert session.do(FileTask(FileDeed.STAT, "d/y")).told["target"] == "x"

    def test_decided_by_the_rules_on_paths_and_recorded(
        self, runner: Runner, work: Path, tmp_path: Path
    ) -> None:
        profile = tmp_path / "own.yaml"
        profile.write_text(
            "name: own\nextends: agent\ndescription: mine\nrules:\n  list:\n"
            "    - {id: no-keys, effect: deny, match: {reads: './keys/**'}, message: No.}\n"
            "    - {id: no-src, effect: deny, match: {writes: './src/**'}, message: No.}\n"
        )
        for folder in ("keys", "src"):
            (work / folder).mkdir()
            (work / folder / "f").write_text("x")
        with runner.sessions.start(cwd=work, profile=str(profile)) as session:
            for deed, path, permitted in (
                (FileDeed.READ, "keys/f", False),
                (FileDeed.READ, "src/../keys/f", False),
                (FileDeed.READ, "src/f", True),
                (FileDeed.REMOVE, "src/f", False),
            ):
                assert session.do(FileTask(deed, path)).decision.permits is permitted, path
            told = [e for e in runner.store.events(session.id) if e.kind == "session.file"]
            assert len(told) == 4
            data = json.loads(told[0].body)["data"]
            assert data["path"] == str(work / "keys/f")
            assert data["decision"]["effect"] == "deny"


def test_processes_are_ended_from_outside(session: Session, runner: Runner) -> None:
    assert session.run(shell="sleep 603 & trap '' TERM; (trap '' TERM; sleep 604) &").ok
    numbers = {" ".join(each.argv): each.number for each in session.processes()}
    assert session.end_process(numbers["sleep 603"])
    until(lambda: len(session.processes()) < len(numbers), "it goes on")
    assert not session.end_process(1)
    assert not session.end_process(99999)
    with pytest.raises(RequestError, match="no signal 999"):
        session.end_process(numbers["sleep 604"], 999)
    told = [e for e in runner.store.events(session.id) if e.kind == "session.signal"]
    assert len(told) == 1


def test_nobody_is_reached_by_another_name(runner: Runner, session: Session) -> None:
    for name in ("", ".", "..", "../store.db", "a/b", session.id + "x", "ses-\x00"):
        with pytest.raises((UnreachableError, ValueError)):
            runner.sessions.get(name)


def _runs(words: bytes) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if words in (entry / "cmdline").read_bytes():
                    return True
            except OSError:
                continue
    return False
