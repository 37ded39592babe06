"""Commands that a server of the same user carries out: nobody can tell but by the time it takes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from serving import COMMAND, Server

from runner import Runner
from runner.testing.backend_harness import expect_no_process_with

pytestmark = pytest.mark.usefixtures("native")

HOW = ("never", "always")
VOLATILE = re.compile(r"run-[0-9a-f]{20}")


class AtHome(Server):
    """A server where commands look for it."""

    def __init__(self, home: Path, *options: str, **variables: str) -> None:
        self.path = home / "serve.sock"
        self.environment = {**os.environ, "RUNNER_HOME": str(home), **variables}
        self.process = subprocess.Popen(
            [*COMMAND, "serve", *options], env=self.environment, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        assert first == f"runner: listening at unix:{self.path}\n", first

    def carried(self) -> int:
        """How many runs this server has carried out."""
        with self.client() as client:
            text = client.get("/metrics").text
        return sum(
            int(float(value)) for value in re.findall(r"(?m)^runner_runs_total\{.*\} (\S+)$", text)
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "home"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[AtHome]:
    made = AtHome(home)
    yield made
    said = made.end()
    assert said == "", said


def cli(
    server: Server, *words: str, cwd: Path, stdin: Any = subprocess.DEVNULL, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    extra = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    return subprocess.run(
        [*COMMAND, *words], env={**server.environment, **variables}, cwd=cwd,
        capture_output=True, timeout=120, check=False, **extra,
    )  # fmt: skip


def normal(text: bytes) -> str:
    return VOLATILE.sub("run-…", text.decode("utf-8", "backslashreplace"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "sub").mkdir(parents=True)
    (folder / "hello.py").write_text("import sys\nprint(sys.argv, sys.stdin.read())\n")
    (folder / "old").write_text("old\n")
    return folder


CASES: dict[str, tuple[list[str], bytes, int]] = {
    "success": (["--", "true"], b"", 0),
    "both streams": (["-c", "echo out; echo err >&2; exit 3"], b"", 3),
    "no text": (["-c", "printf '\\377\\000'; printf '\\376' >&2"], b"", 0),
    "signal": (["-c", "kill -9 $$"], b"", 137),
    "denied": (["--", "rm", "-rf", "/"], b"", 126),
    "limit": (["--limit", "wall=300ms", "--", "sleep", "60"], b"", 124),
    "output limit": (["--limit", "output=64KiB", "--", "yes"], b"", 124),
    "no program": (["--", "no-such-program"], b"", 127),
    "bad limit": (["--limit", "wall=x", "--", "true"], b"", 2),
    "bad profile": (["--profile", "nope", "--", "true"], b"", 2),
    "bad label": (["--label", "x", "--", "true"], b"", 2),
    "nothing": ([], b"", 2),
    "no folder": (["-C", "nowhere", "--", "true"], b"", 2),
    "no script": (["missing.py"], b"", 2),
    "script": (["hello.py", "a b", "c"], b"read", 0),
    "folder": (["-C", "sub", "--", "pwd"], b"", 0),
    "stdin": (["--", "cat"], b"x\0\xff" * 100_000, 0),
    "environment": (["--env", "A=b c", "--", "env"], b"", 0),
    "who": (
        ["--agent", "a", "--parent", "p", "--session", "s", "--tenant", "t", "--label", "k=v",
         "--profile", "ci", "--", "true"], b"", 0,
    ),
    "language": (["-c", "echo $0", "--language", "sh"], b"", 127),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_same_comes_of_it(name, server, work, tmp_path):
    words, stdin, code = CASES[name]
    found = []
    for how in HOW:
        result = tmp_path / f"{how}.json"
        done = cli(
            server, "run", "--server", how, "--result", str(result), *words, cwd=work, stdin=stdin,
            LANG="de_DE.UTF-8",
        )  # fmt: skip
        told = json.loads(result.read_text()) if result.exists() else {}
        for volatile in ("run_id", "usage", "audit"):
            told.pop(volatile, None)
        found.append((done.returncode, done.stdout, normal(done.stderr), told))
    if name in ("nothing", "bad label", "no folder"):
        assert found[1][0] == 2  # the server is not asked, which `always` says
        found[1] = found[0]
    assert found[0] == found[1]
    if name != "language":
        assert found[0][0] == code, found


@pytest.mark.parametrize("words", [["-c", "echo x; exit 2"], ["--", "rm", "-rf", "/"]])
def test_the_same_json_is_printed(words, server, work):
    documents = []
    for how in HOW:
        done = cli(server, "run", "--server", how, "--json", *words, cwd=work)
        document = json.loads(done.stdout)
        for volatile in ("run_id", "usage", "audit"):
            del document[volatile]
        documents.append((done.returncode, list(document), document))
    assert documents[0] == documents[1]
    checked = [cli(server, "check", "--server", how, "--json", *words, cwd=work) for how in HOW]
    assert (checked[0].returncode, checked[0].stdout) == (checked[1].returncode, checked[1].stdout)
    checked = [cli(server, "check", "--server", how, *words, cwd=work) for how in HOW]
    assert (checked[0].returncode, checked[0].stdout) == (checked[1].returncode, checked[1].stdout)


def test_it_is_used_by_itself(server, work):
    before = server.carried()
    assert cli(server, "run", "--", "true", cwd=work).returncode == 0
    assert server.carried() == before + 1
    assert cli(server, "run", "--", "true", cwd=work, RUNNER_SERVER="never").returncode == 0
    assert server.carried() == before + 1
    place = f"unix:{server.path}"
    assert cli(server, "run", "--", "true", cwd=work, RUNNER_SERVER=place).returncode == 0
    assert server.carried() == before + 2
    shown = json.loads(cli(server, "config", "show", "--json", cwd=work).stdout)
    assert shown["server"] == {"value": "auto", "origin": "default"}
    wrong = cli(server, "run", "--server", "maybe", "--", "true", cwd=work)
    assert wrong.returncode == 2
    assert b"--server: 'maybe' is none of auto, never, always" in wrong.stderr
    with Runner(home=server.environment["RUNNER_HOME"]) as runner:
        assert runner.store.verify().failure is None


OTHERWISE: dict[str, tuple[list[str], bytes, dict[str, str]]] = {
    "a profile's file": (["--profile", "./mine.yaml", "--", "echo", "x"], b"", {}),
    "a script from stdin": (["-"], b"#!/bin/sh\necho x\n", {}),
    "a backend": (["--backend", "native", "--", "echo", "x"], b"", {}),
    "other settings": (["--", "echo", "x"], b"", {"RUNNER_KEEP_OUTPUT_BYTES": "5"}),
    "another configuration": (["--", "echo", "x"], b"", {"XDG_CONFIG_HOME": "/nowhere"}),
    "no UTF-8": (["--", "echo", "x", os.fsdecode(b"\xff")], b"", {}),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_a_server_can_t_do_is_done_here(name, server, work):
    words, stdin, variables = OTHERWISE[name]
    (work / "mine.yaml").write_text("extends: agent\n")
    before = server.carried()
    done = cli(server, "run", *words, cwd=work, stdin=stdin, **variables)
    assert (done.returncode, done.stdout[:1]) == (0, b"x"), done.stderr
    assert server.carried() == before
    refused = cli(server, "run", "--server", "always", *words, cwd=work, stdin=stdin, **variables)
    assert refused.returncode == 2, refused.stderr
    assert refused.stdout == b""
    assert server.carried() == before


def test_where_no_server_listens(tmp_path, work):
    nowhere = {**os.environ, "RUNNER_HOME": str(tmp_path / "none")}
    server: Any = SimpleNamespace(environment=nowhere)
    assert cli(server, "run", "--", "true", cwd=work).returncode == 0
    for how in ("always", f"unix:{tmp_path}/nothing"):
        done = cli(server, "run", "--server", how, "--", "true", cwd=work)
        assert done.returncode == 125
        assert b"no server" in done.stderr
    # One that was killed leaves its socket.
    made = AtHome(tmp_path / "none")
    made.end(signal.SIGKILL)
    assert made.path.exists()
    assert cli(made, "run", "--", "true", cwd=work).returncode == 0


def test_policies_that_changed_count_at_once(tmp_path, work):
    """A server decides by what it read when it began; a command by what stands there now."""
    config = tmp_path / "config"
    (config / "runner" / "policy.d").mkdir(parents=True)
    server = AtHome(tmp_path / "home", XDG_CONFIG_HOME=str(config))
    try:
        assert cli(server, "run", "--server", "always", "--", "true", cwd=work).returncode == 0
        rule = "{ id: x, effect: deny, match: { command: 'true' }, message: No. }"
        layer = f"rules:\n  list:\n    - {rule}\n"
        (config / "runner" / "policy.d" / "mine.yaml").write_text(layer)
        assert cli(server, "run", "--", "true", cwd=work).returncode == 126
        done = cli(server, "run", "--server", "always", "--", "true", cwd=work)
        assert done.returncode == 2
        assert b"policies have changed" in done.stderr
        (config / "runner" / "config.yaml").write_text("server: never\n")
        done = cli(server, "run", "--server", "always", "--", "true", cwd=work)
        assert b"settings have changed" in done.stderr or b"other settings" in done.stderr
        shown = json.loads(cli(server, "config", "show", "--json", cwd=work).stdout)
        assert shown["server"]["value"] == "never"
    finally:
        server.end()


def test_a_server_that_runs_nothing_there_is_not_used(tmp_path, work):
    (tmp_path / "only").mkdir()
    server = AtHome(tmp_path / "home", "--folder", str(tmp_path / "only"))
    try:
        assert cli(server, "run", "--", "true", cwd=work).returncode == 0
        assert server.carried() == 0
        assert cli(server, "run", "--", "true", cwd=tmp_path / "only").returncode == 0
        assert server.carried() == 1
        server.path.parent.chmod(0o770)  # as others may write there, anybody may have listened
        done = cli(server, "run", "--server", "always", "--", "true", cwd=tmp_path / "only")
        assert b"alone" in done.stderr
    finally:
        server.path.parent.chmod(0o700)
        server.end()


@pytest.mark.parametrize("how", HOW)
def test_who_waits_is_told_for_what(how, tmp_path, work):
    profiles = tmp_path / "config" / "runner" / "profiles"
    profiles.mkdir(parents=True)
    rule = "{ id: x, effect: ask, match: { command: touch }, message: Say yes. }"
    (profiles / "asks.yaml").write_text(f"extends: agent\nrules:\n  list:\n    - {rule}\n")
    server = AtHome(tmp_path / "home", XDG_CONFIG_HOME=str(tmp_path / "config"))
    try:
        words = (
            "run",
            "--server",
            how,
            "--profile",
            "asks",
            "--ask-wait",
            "60s",
            "--",
            "touch",
            "a",
        )
        process = subprocess.Popen(
            [*COMMAND, *words], env=server.environment, cwd=work, stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        told = process.stderr.readline()
        found = re.search(r"waiting for `runner approvals approve (ask-\w+)`", told)
        assert found, told
        done = cli(server, "approvals", "approve", found[1], "--reason", "fine", cwd=work)
        assert done.returncode == 0, done.stderr
        assert process.wait(timeout=60) == 0
        process.communicate()
        assert server.carried() == HOW.index(how)
    finally:
        server.end()


def started(server: Server, how: str, work: Path, *words: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [*COMMAND, "run", "--server", how, *words], env=server.environment, cwd=work,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("how", HOW)
def test_signals_cancel_the_run(how, server, work):
    for number in (signal.SIGINT, signal.SIGTERM):
        process = started(server, how, work, "-c", "echo ready; sleep 60")
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert normal(said) == "runner: cancelled: the run run-… was ended\n"


def test_a_command_that_is_killed_takes_its_run_along(server, work):
    marker = f"97{os.getpid()}.{time.monotonic_ns()}"
    process = started(server, "always", work, "-c", f"echo ready; sleep {marker}")
    for _ in range(300):  # the shell has said that it is about to begin it
        if any(marker in (p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the program was not started")
    process.kill()
    process.communicate(timeout=60)
    expect_no_process_with(marker)


@pytest.mark.parametrize("how", HOW)
def test_streams_are_the_callers_own(how, server, work):
    """What is written is there at once, what is read comes when it comes, and a reader that leaves
    ends the program as it would without runner."""
    process = started(server, how, work, "-c", "echo ready; read x; echo got $x >&2; exec cat")
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stderr.readline() == b"got one\n"
    out, _ = process.communicate(b"two\n", timeout=60)
    assert (out, process.returncode) == (b"two\n", 0)
    process = started(server, how, work, "-c", "echo ready; exec yes")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    with open(work / "out", "wb") as file:
        file.write(b"before\n")
        file.flush()
        done = subprocess.run(
            [*COMMAND, "run", "--server", how, "--", "head", "-c", "3000000", "/dev/zero"],
            env=server.environment, cwd=work, stdin=subprocess.DEVNULL, stdout=file, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert (work / "out").stat().st_size == len(b"before\n") + 3_000_000


def test_only_the_server_s_own_user_may_say_so(server, work):
    key = server.cli(
        "keys", "create", "all", "--agents", "*", "--tenant", "*", "--profile", "*", "--verb", "run"
    ).stdout.strip()
    asked: dict[str, Any] = {"argv": ["true"], "cwd": str(work)}
    attach = {"stdin": {"descriptor": 0, "device": 1, "inode": 1}}
    with server.client() as client:
        for more in (
            {"attach": attach},
            {"environment": {"A": "b"}},
            {"script": "hello.py", "argv": None},
        ):
            body = {**asked, **more}
            answer = client.post("/v1/runs", json=body, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code in (400, 403), answer.text
            body.pop("cwd")
            answer = client.post("/v1/runs", json=body, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == 403, answer.text
        # Its own user, with a descriptor that is not what it says, or is not there.
        for wrong in (attach, {"stdout": {"descriptor": 60_000, "device": 1, "inode": 1}}):
            answer = client.post("/v1/runs", json={**asked, "attach": wrong})
            assert (answer.status_code, answer.json()["error"]["code"]) == (412, "other_server")
        answer = client.post("/v1/runs", json={**asked, "attach": attach, "stdin": "x"})
        assert answer.status_code == 400


LOADED = """
import sys
from runner.surfaces.cli.main import app
try:
    app(["run", "--server", "always", "--", "true"])
except SystemExit as ended:
    code = ended.code
heavy = ["pydantic", "fastapi", "cryptography", "yaml", "rich", "orjson", "sqlite3", "psutil",
         "runner.app", "runner.settings", "runner.schema", "runner.stores", "runner.backends"]
print(code, [name for name in heavy if name in sys.modules])
"""


def test_little_is_loaded_for_it(server, work):
    done = subprocess.run(
        [sys.executable, "-c", LOADED], env=server.environment, cwd=work, capture_output=True,
        text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("0 []\n", "")
