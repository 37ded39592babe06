"""Attacks from the host's side: with folders, links and mounts around a run, and in requests."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from case_stage import SECRET

from runner import Runner
from runner.compile import compile_spec
from runner.errors import BackendError
from runner.intake import build_request
from runner.streams import CallbackSink
from runner.testing.backend_harness import Given, run_lease


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(home=tmp_path_factory.mktemp("state") / "home", backend="native") as made:
        yield made
        assert made.store.verify().failure is None


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("name", ["a,b:c\\d", "upperdir=x", "new\nline", "sp ace\t", "\udcff"])
def test_a_workspace_by_an_odd_name(name: str, runner: Runner, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "file").write_text("here")
    outcome = runner.run(shell="cat file; echo new > made", cwd=folder)
    assert (outcome.stdout.data, [change.path for change in outcome.changes]) == (b"here", ["made"])
    assert not (folder / "made").exists()


@pytest.mark.usefixtures("native")
def test_a_folder_above_the_workspace_swapped_for_a_link(runner: Runner, tmp_path: Path) -> None:
    work, elsewhere = tmp_path / "above" / "work", tmp_path / "elsewhere" / "work"
    for folder in (work, elsewhere):
        folder.mkdir(parents=True)
    (work / "file").write_text("decided about")
    (elsewhere / "file").write_bytes(SECRET)
    request = build_request(argv=["cat", "file"], cwd=work)
    spec = compile_spec(request, runner.policy(request, "native").profile)
    lease = runner.backend().acquire(spec, "before")
    work.parent.rename(tmp_path / "was")
    (tmp_path / "above").symlink_to(elsewhere.parent)
    try:
        assert run_lease(lease, spec, Given()).stdout == b"decided about"
    finally:
        lease.release()
    with pytest.raises(BackendError, match="replaced meanwhile"):
        runner.backend().acquire(spec, "after")


@pytest.mark.root
@pytest.mark.usefixtures("native")
def test_what_a_mount_in_the_workspace_covers(runner: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "in\\ner place"
    folder.mkdir()
    (folder / "file").write_bytes(SECRET)
    subprocess.run(["mount", "-t", "tmpfs", "cover", folder], check=True)
    try:
        with pytest.raises(BackendError, match="mounted at"):
            runner.run(["ls"], cwd=tmp_path)
    finally:
        subprocess.run(["umount", folder], check=True)
    assert runner.run(shell="cat */file", cwd=tmp_path).stdout.data == SECRET


@pytest.mark.root
@pytest.mark.usefixtures("native")
def test_root_gives_a_run_no_more_than_the_workspaces_owner_has(
    runner: Runner, tmp_path: Path
) -> None:
    """On an overlay no other can be laid and no owner mapped: the workspace is copied."""
    work, layers = tmp_path / "work", tmp_path / "layers"
    work.mkdir()
    layers.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "layers", layers], check=True)
    try:
        for name in ("lower", "upper", "space"):
            (layers / name).mkdir()
        options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/space"
        subprocess.run(["mount", "-t", "overlay", "work", "-o", options, work], check=True)
        try:
            _fill(work)
            outcome = runner.run(shell="cat own shown folder/shown closed folder/closed", cwd=work)
        finally:
            subprocess.run(["umount", work], check=True)
    finally:
        subprocess.run(["umount", layers], check=True)
    assert outcome.stdout.data == b"own;shown;shown;"
    assert SECRET not in outcome.stdout.data


def _fill(work: Path) -> None:
    """A user's folder, in which root has closed files, in a folder of root's own too."""
    (work / "folder").mkdir()
    for folder in (work, work / "folder"):
        (folder / "shown").write_text("shown;")
        (folder / "closed").write_bytes(SECRET)
        (folder / "closed").chmod(0o600)
    (work / "own").write_text("own;")
    (work / "own").chmod(0o600)
    for path in (work, work / "own"):
        os.chown(path, 12345, 12345)


HOST = """
import socket
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\\0runner-meeting")
tcp = socket.create_server(("127.0.0.1", 40404))
abstract.listen()
print("ready", flush=True)
import sys; sys.stdin.read()
for listener in (abstract, tcp):
    listener.setblocking(False)
    try:
        print("reached by", listener.accept())
    except BlockingIOError:
        pass
with socket.socket(socket.AF_UNIX) as own:
    print("by itself", own.connect_ex("\\0runner-meeting"))
"""
GUEST = """
import os, socket
for address in ("\\0runner-meeting", ("127.0.0.1", 40404)):
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as own:
        print(own.connect_ex(address))
print(sum(name.isdigit() for name in os.listdir("/proc")))
"""


@pytest.mark.usefixtures("native")
def test_two_runs_at_once_do_not_meet(runner: Runner, tmp_path: Path) -> None:
    ready = threading.Event()
    waits, go = os.pipe()
    with ThreadPoolExecutor() as pool:
        said = CallbackSink(lambda data: ready.set())
        more = {"language": "python", "cwd": tmp_path}
        host = pool.submit(runner.run, code=HOST, stdin=waits, stdout=said, **more)
        try:
            assert ready.wait(60)
            guest = runner.run(code=GUEST, **more)
        finally:
            os.close(go)
    os.close(waits)
    assert guest.stdout.data == b"111\n111\n1\n"
    assert host.result().stdout.data == b"ready\nby itself 0\n"


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("target", ["inside", "outside", "/etc", "/usr/bin"])
def test_a_linked_folder_above_the_script_that_is_mounted(
    target: str, runner: Runner, tmp_path: Path
) -> None:
    """What was decided about is mounted where no link of the workspace is followed to."""
    work, outside = tmp_path / "work", tmp_path / "outside"
    for folder in (work / "inside", outside):
        folder.mkdir(parents=True)
        (folder / "script.py").write_text("print('decided about')")
    (work / "linked").symlink_to({"outside": outside}.get(target, target))
    place = work / "linked" / "script.py"
    if target.startswith("/"):
        place = work / "script.py"
        place.write_text("print('decided about')")
    outcome = runner.run(script=place, cwd=work)
    assert outcome.stdout.data == b"decided about\n"
    assert not any(Path(folder, "script.py").exists() for folder in ("/etc", "/usr/bin"))
    assert (outside / "script.py").read_text() == "print('decided about')"


@pytest.mark.usefixtures("native")
def test_a_folder_that_read_names_by_a_link_is_shown_where_the_link_stands(
    runner: Runner, tmp_path: Path
) -> None:
    """And not what the link is swapped for, once it was opened; the workspace covers the rest."""
    work, real = tmp_path / "work", tmp_path / "real"
    work.mkdir()
    real.mkdir()
    (real / "shown").write_text("shown")
    (tmp_path / "link").symlink_to(real)
    (work / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(SECRET)
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"name: shows\nextends: agent\nread: ['{tmp_path}/link/shown']\n")
    shown = runner.run(["cat", f"{tmp_path}/link/shown"], cwd=work, profile=str(profile))
    assert shown.stdout.data == b"shown"
    profile.write_text(f"name: shows\nextends: agent\nread: ['{work}/link']\n")
    covered = runner.run(["cat", "link"], cwd=work, profile=str(profile))
    assert SECRET not in covered.stdout.data


INTERPRETERS = (
    b"/proc/self/exe",
    b"/proc/thread-self/exe",
    b" \t/proc/self/exe -i",
    b"/proc/self/fd/../exe",
    b"/proc/../proc/self/task/../exe\0",
    b"/proc/1/exe",
    b"./linked-python",
    b"./a\v/../linked-python",
)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("nested", [False, True])
def test_no_program_is_the_launchers_own(
    interpreter: bytes, nested: bool, runner: Runner, tmp_path: Path
) -> None:
    """As a script's first line may ask for (CVE-2019-5736), while the launcher still stands there.

    Landlock forbids it too, where there is Landlock.
    """
    (tmp_path / "linked-python").symlink_to("/proc/self/exe")
    (tmp_path / "a\v").mkdir()
    (tmp_path / "a").write_bytes(b"honest")
    for name, first in (("program", interpreter), ("outer", b"./program")):
        (tmp_path / name).write_bytes(b"#!" + first + b"\nprint('started')\n")
        (tmp_path / name).chmod(0o755)
    outcome = runner.run(["./outer" if nested else "./program"], cwd=tmp_path)
    assert (outcome.exit_code, outcome.stdout.data) == (127, b"")
    # By ELOOP, where Landlock would say EACCES; init's is not even there.
    said = "not in the sandbox" if b"/1/" in interpreter else "levels of symbolic links"
    assert said in str(outcome.failure)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(
    "first", [b"/usr/bin/python3", b" /usr/bin/env python3", b"./own", b"/usr/bin/python3 -s\r"]
)
def test_a_program_by_an_honest_first_line_starts(
    first: bytes, runner: Runner, tmp_path: Path
) -> None:
    (tmp_path / "own").write_bytes(
        b"#!/usr/bin/python3\nimport sys; exec(open(sys.argv[1]).read())"
    )
    (tmp_path / "real").write_bytes(b"#!" + first.replace(b" -s\r", b"") + b"\nprint('started')\n")
    (tmp_path / "program").symlink_to("real")
    for name in ("own", "real"):
        (tmp_path / name).chmod(0o755)
    outcome = runner.run(["./program"], cwd=tmp_path)
    assert (outcome.exit_code, outcome.stdout.data) == (0, b"started\n")


@pytest.mark.usefixtures("native")
def test_programs_are_looked_at_where_openat2_is_refused(runner: Runner, tmp_path: Path) -> None:
    """As it is with `workspace: bind`, or where a profile says so."""
    profile = tmp_path / "refuses.yaml"
    profile.write_text("name: refuses\nextends: agent\nsyscalls: {deny: [openat2]}\n")
    work = tmp_path / "work"
    work.mkdir()
    (work / "linked-python").symlink_to("/proc/self/exe")
    for name, first in (("honest", "/usr/bin/env python3"), ("attack", "./linked-python")):
        (work / name).write_text(f"#!{first}\nprint('started')\n")
        (work / name).chmod(0o755)
    honest = runner.run(["./honest"], cwd=work, profile=str(profile))
    assert (honest.exit_code, honest.stdout.data) == (0, b"started\n")
    attack = runner.run(["./attack"], cwd=work, profile=str(profile))
    assert "levels of symbolic links" in str(attack.failure)


PLANTED = (
    "mkdir -p .git/hooks",
    "echo x > .git/hooks/pre-commit",
    "echo x >> .bashrc",
    "printf x | tee .vscode/tasks.json",
    "git config core.hooksPath /tmp",
)


@pytest.mark.parametrize("text", PLANTED)
def test_what_plainly_plants_is_denied_before_launch(
    text: str, runner: Runner, tmp_path: Path
) -> None:
    outcome = runner.run(shell=text, cwd=tmp_path)
    assert (outcome.termination, outcome.status) == ("denied", 126)
    kinds = [str(event.kind) for event in runner.store.events(outcome.run_id)]
    assert kinds == ["run.decided", "run.ended"]
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("native")
def test_writing_to_files_of_ones_own_is_allowed(runner: Runner, tmp_path: Path) -> None:
    text = "mkdir -p src && echo x > src/git-hooks.txt && printf x | tee bashrc.md && git --version"
    outcome = runner.run(shell=text, cwd=tmp_path)
    assert outcome.ok
    assert {change.path for change in outcome.changes} >= {"src/git-hooks.txt", "bashrc.md"}


VARIABLES = (
    "LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "PYTHONSTARTUP", "PYTHONHOME",
    "BASH_ENV", "ENV", "BASH_FUNC_ls%%", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "GIT_EXEC_PATH",
    "NODE_OPTIONS", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "PROMPT_COMMAND",
)  # fmt: skip


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_that_loads_code_is_denied(name: str, runner: Runner, tmp_path: Path) -> None:
    outcome = runner.run(["true"], cwd=tmp_path, env={name: "/tmp/x"})
    assert (outcome.termination, outcome.status) == ("denied", 126)
    kinds = [str(event.kind) for event in runner.store.events(outcome.run_id)]
    assert kinds == ["run.decided", "run.ended"]


@pytest.mark.usefixtures("native")
def test_a_credential_that_a_run_is_given_is_in_no_record(runner: Runner, tmp_path: Path) -> None:
    """It is the program's: what that prints is output, and no log holds a run's output."""
    given = {"API_TOKEN": "a-credential-of-the-caller"}
    told = runner.run(["printenv", "API_TOKEN"], cwd=tmp_path, env=given)
    assert told.stdout.data == b"a-credential-of-the-caller\n"
    lost = runner.run(["./none"], cwd=tmp_path, env=given)
    assert lost.failure is not None
    denied = runner.run(["true"], cwd=tmp_path, env=given | {"LD_PRELOAD": "x"})
    for outcome in (told, lost, denied):
        kept = [event.body for event in runner.store.events(outcome.run_id)]
        words = f"{kept} {outcome.failure} {outcome.decision.reason}"
        assert "a-credential-of-the-caller" not in words


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("command", [["ls"], ["rm", "-rf", "deep"]])
def test_a_workspace_deeper_than_any_name(
    command: list[str], runner: Runner, tmp_path: Path
) -> None:
    depth = 1100
    here = os.open(tmp_path, os.O_PATH)
    for _ in range(depth):
        os.mkdir("deep", dir_fd=here)
        inner = os.open("deep", os.O_PATH, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        outcome = runner.run(command, cwd=tmp_path)
        assert outcome.ok
        assert (tmp_path / "deep").is_dir()
        assert runner.run(["true"], cwd=tmp_path).ok
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)


@pytest.mark.usefixtures("native")
def test_more_words_than_an_exec_takes(runner: Runner, tmp_path: Path) -> None:
    for more in (["x" * 3_000_000], ["x" * 1000] * 5000):
        outcome = runner.run(["true", *more], cwd=tmp_path)
        assert (outcome.termination, outcome.exit_code) == ("exited", 127)
        assert "Argument list too long" in str(outcome.failure)
    assert runner.run(["true", "x" * 100_000], cwd=tmp_path).ok


@pytest.mark.parametrize("name", ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"])
def test_a_rule_holds_behind_the_loader(name: str, runner: Runner, tmp_path: Path) -> None:
    """As behind any wrapper; what only running tells is not decided at the exec yet."""
    denied = runner.run([f"/lib64/{name}", "/usr/bin/sudo", "id"], cwd=tmp_path)
    assert denied.status == 126
    decision = runner.check(build_request(argv=[f"/lib64/{name}", "/usr/bin/ls"], cwd=tmp_path))
    assert decision.effect == "allow"


TRACED = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
print("asked", libc.ptrace(0, 0, 0, 0), flush=True)
os.kill(os.getpid(), {number})
print("went on", flush=True)
sys.exit(7)
"""


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(("number", "limit"), [(0, None), (19, "wall"), (17, "wall")])
def test_a_program_that_init_would_trace(
    number: int, limit: str | None, runner: Runner, tmp_path: Path
) -> None:
    """Where a profile allows ptrace: who stops for a tracer that nobody is stops until the end."""
    profile = tmp_path / "profile.yaml"
    profile.write_text("name: traces\nextends: agent\nsyscalls: {allow: [ptrace]}\n")
    outcome = runner.run(
        code=TRACED.format(number=number),
        language="python",
        cwd=tmp_path,
        profile=str(profile),
        limits={"wall": "2s"},
    )
    assert outcome.limit == limit
    assert outcome.exit_code == (None if limit else 7)
    assert outcome.stdout.data.startswith(b"asked 0\n")
