"""What a program in a session tries against its keeper, its builder and other commands.

Each attack stands beside honest work in the same session that goes on to work.
"""

from __future__ import annotations

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
