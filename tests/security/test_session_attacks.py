"""What a program in a session tries against its keeper, its builder and other commands.

Each attack stands beside honest work in the same session that goes on to work.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import Runner
from runner.errors import RunnerError
from runner.model.outcome import Termination
from runner.model.session import FileDeed, FileTask
from runner.sessions.client import Session

pytestmark = pytest.mark.usefixtures("native")


@pytest.fixture
def session(runner: Runner, work: Path) -> Iterator[Session]:
    with runner.sessions.start(cwd=work, agent="attacker", lifetime="10m") as begun:
        yield begun


def test_no_descriptor_is_there_but_the_streams(session: Session) -> None:
    listed = session.run(code="import os; print(sorted(os.listdir('/proc/self/fd')))",
                         language="python")  # fmt: skip
    assert listed.stdout.data == b"['0', '1', '2', '3']\n"  # the last is the listing's own


def test_everything_that_can_be_killed_is_the_sessions_own(session: Session) -> None:
    assert session.run(shell="sleep 600 &").ok
    killing = """
import os, signal
for pid in range(1, 500):
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
"""
    session.run(code=killing, language="python")
    session.run(shell="kill -9 -1; kill -9 1; kill -STOP 1")
    assert not session.processes()
    assert session.run(shell="echo works").stdout.data == b"works\n"


def test_a_new_command_can_not_be_looked_into_before_it_runs(session: Session) -> None:
    spying = """
import os, time
seen = set()
end = time.monotonic() + 3
while time.monotonic() < end:
    for pid in range(2, 400):
        for what in ("environ", "cmdline", "maps", "mem", "fd/3", "cwd", "root"):
            try:
                with open(f"/proc/{pid}/{what}", "rb") as file:
                    if b"launcher" in file.read(65536):
                        seen.add((pid, what))
            except OSError:
                pass
open("seen", "w").write(repr(seen))
"""
    assert session.run(code=f"import os\nif os.fork() == 0:\n    os.setsid()\n    exec({spying!r})",
                       language="python").ok  # fmt: skip
    until_s = time.monotonic() + 3.5
    while time.monotonic() < until_s:
        assert session.run(["true"]).ok
    deadline_s = time.monotonic() + 60
    while session.processes() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert session.read("seen") == b"set()"


def test_one_that_hides_from_looks_is_ended_with_its_command(session: Session) -> None:
    hidden = """
import ctypes, os, time
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
time.sleep(600)
"""
    ended = session.run(code=hidden, language="python", limits={"wall": "2s"})
    assert ended.termination is Termination.LIMIT
    assert not session.processes()
    assert session.run(["true"]).ok


def test_one_that_never_stands_still_is_ended_or_takes_the_session_along(
    session: Session, runner: Runner
) -> None:
    chain = "import os\nwhile True:\n    if os.fork():\n        os._exit(0)\n    os.setsid()\n"
    # Each parent ends at once: what was begun has ended, and what it left belongs to the session.
    assert session.run(code=chain, language="python").ok
    held = "import os, time\nif os.fork() == 0:\n" + "".join(
        f"    {line}\n" for line in chain.splitlines()
    ) + "time.sleep(600)\n"  # fmt: skip
    ended = session.run(code=held, language="python", limits={"wall": "2s"})
    assert ended.termination is Termination.LIMIT
    try:
        session.stop()
    except RunnerError:
        assert not [run for run in runner.kills.running() if run.run_id == session.id]
    assert not _descend_from_launchers(b"os.setsid()")


def test_no_namespace_and_no_privilege_can_be_had(session: Session) -> None:
    tries = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print([libc.unshare(flag) for flag in (0x20000, 0x10000000, 0x40000000, 0x20000000)])
for kind in ("mnt", "pid", "user", "net"):
    fd = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY)
    print(kind, libc.setns(fd, 0))
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")])
print(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), libc.umount2(b"/run/runner", 2))
"""
    told = session.run(code=tries, language="python")
    assert told.exit_code == 0
    lines = told.stdout.data.decode().splitlines()
    assert lines[0] == "[-1, -1, -1, -1]"
    assert all(line.endswith("-1") for line in lines[1:5])
    assert set(lines[5]) <= set("[]'0, ")
    assert lines[6] == "-1 -1"


def test_the_keepers_socket_is_not_there(session: Session, tmp_path: Path) -> None:
    looking = f"import os; print(os.path.exists({str(tmp_path / 'home')!r}))"
    assert session.run(code=looking, language="python").stdout.data == b"False\n"


def test_no_file_deed_gets_more_than_a_program(session: Session) -> None:
    for path in ("/proc/self/environ", "/proc/self/maps", "/proc/uptime"):
        with pytest.raises(RunnerError, match="Permission denied"):
            session.read(path)
    session.run(shell="ln -s /proc/self/fd f; ln -s /dev/stdin i")
    for path in ("f/0", "f/3", "i"):
        with pytest.raises(RunnerError):
            session.read(path)
    for deed, path in ((FileDeed.LIST, "/proc/self/fd"), (FileDeed.STAT, "/proc/self/exe")):
        assert session.do(FileTask(deed, path)).problem == "Permission denied"


@pytest.fixture
def guarded(runner: Runner, work: Path, tmp_path: Path) -> Iterator[Session]:
    """With a rule that denies what is in `secret`, and programs that may get at it all the same."""
    (tmp_path / "own.yaml").write_text(
        "name: own\nextends: agent\ndescription: d\nrules:\n  list:\n"
        "    - {id: no-secret, match: {paths: './secret/**'}, effect: deny, message: kept.}\n"
    )
    for folder in ("secret/sub", "open/sub"):
        (work / folder).mkdir(parents=True)
        (work / folder / "key").write_text(folder)
        (work / folder / "../key").write_text(folder)
    profile = str(tmp_path / "own.yaml")
    with runner.sessions.start(cwd=work, profile=profile, lifetime="10m") as begun:
        yield begun


LINKED = """
import os
for to in ("sec" + "ret", "open"):
    os.symlink(to, f"to-{to}")
    os.symlink(f"to-{to}/sub", f"sub-{to}")
    os.symlink(f"{os.getcwd()}/{to}/key", f"key-{to}")
    os.symlink(f"to-{to}/new", f"new-{to}")
os.symlink("loop", "loop")
"""


def test_a_link_leads_round_no_rule_on_paths(guarded: Session) -> None:
    assert guarded.run(code=LINKED, language="python").ok

    def permitted(deed: FileDeed, path: str) -> bool:
        size_bytes = 0 if deed is FileDeed.WRITE else None
        done = guarded.do(FileTask(deed, path, size_bytes=size_bytes))
        assert done.done is done.decision.permits, (deed, path, done.problem)
        return done.decision.permits

    for deed, path in (
        (FileDeed.READ, "to-{}/key"),
        (FileDeed.READ, "sub-{}/key"),
        (FileDeed.READ, "sub-{}/../key"),  # which is `key` by its letters, and another by the way
        (FileDeed.READ, "key-{}"),
        (FileDeed.STAT, "to-{}/key"),
        (FileDeed.LIST, "sub-{}"),
        (FileDeed.LIST, "to-{}/sub/"),
        (FileDeed.WRITE, "to-{}/new"),
        (FileDeed.WRITE, "sub-{}/made/new"),
        (FileDeed.REMOVE, "to-{}/sub/key"),
        (FileDeed.REMOVE, "sub-{}/../key"),
    ):
        assert not permitted(deed, path.format("secret")), (deed, path)
        assert permitted(deed, path.format("open")), (deed, path)
    # A link itself is told of, replaced and removed, wherever it leads.
    for deed in (FileDeed.STAT, FileDeed.WRITE):
        assert permitted(deed, "new-secret")
    assert permitted(FileDeed.REMOVE, "key-secret")
    assert guarded.do(FileTask(FileDeed.READ, "loop")).problem == (
        "Too many levels of symbolic links"
    )
    changed = {change.path for change in guarded.stop().changes}
    assert {path for path in changed if path.startswith("secret")} == set()
    assert {"open/new", "open/sub/key", "open/sub/made/new", "new-secret"} <= changed


def test_names_that_change_meanwhile_lead_round_no_rule(guarded: Session) -> None:
    """`d` is now a folder of its own, now a link to what the rule denies."""
    changing = """
import os, time
os.makedirs("d/sub")
open("d/key", "w").write("own")
os.symlink("sec" + "ret", "l")
if os.fork() == 0:
    os.setsid()
    end = time.monotonic() + 60
    while time.monotonic() < end and not os.path.exists("enough"):
        for one, other in (("d", "t"), ("l", "d"), ("d", "l"), ("t", "d")):
            os.rename(one, other)
"""
    assert guarded.run(code=changing, language="python").ok
    ways = set()
    for number in range(150):
        target = io.BytesIO()
        read = guarded.do(FileTask(FileDeed.READ, "d/key"), target=target)
        assert target.getvalue() in (b"own", b"")
        written = guarded.do(FileTask(FileDeed.WRITE, f"d/n{number}", size_bytes=0))
        ways |= {(done.done, done.decision.permits) for done in (read, written)}
    guarded.write("enough", "")
    assert {(True, True), (False, False)} <= ways  # both were met
    changed = {change.path for change in guarded.stop().changes}
    assert {path for path in changed if path.startswith("secret")} == set()
    assert any(path.rpartition("/")[2].startswith("n") for path in changed)


def test_what_processes_call_themselves_moves_nobodys_cursor(session: Session, capsys) -> None:
    from runner.surfaces.cli import session as cli

    code = "import os, sys, time\nif os.fork() == 0:\n    time.sleep(600)"
    named = session.run(shell=f"exec -a $'\\e[2Jevil\\nname' python3 -c {code!r}")
    del named
    assert session.run(shell="(exec -a $'\\e[2Jevil' sleep 600) > /dev/null 2>&1 &").ok
    os.environ["RUNNER_HOME"] = str(session._home)
    try:
        cli.ps(session.id)
    finally:
        del os.environ["RUNNER_HOME"]
    told = capsys.readouterr().out
    assert "evil" in told
    assert "\x1b" not in told


def _descend_from_launchers(words: bytes) -> bool:
    time.sleep(0.2)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if words in (entry / "cmdline").read_bytes():
                    return True
            except OSError:
                continue
    return False
