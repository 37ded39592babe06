"""`runner changes`, `diff`, `apply` and `discard` as they are typed."""

from __future__ import annotations

import json
import os
import pty
import subprocess

import pytest
from conftest import RUNNER_COMMAND

pytestmark = pytest.mark.usefixtures("native")

CODE = "open('a', 'w').write('new\\n'); open('odd\\x1b[31m', 'w').write('\\x1b[31mred')"


@pytest.fixture
def run_id(run_cli, workspace) -> str:
    (workspace / "a").write_text("old\n")
    (workspace / "change.py").write_text(CODE)
    told = json.loads(run_cli("run", "--json", "change.py").stdout)
    assert told["exit_code"] == 0
    assert [change["withheld"] for change in told["workspace"]["changes"]] == [None, None]
    found: str = told["run_id"]
    return found


def test_the_list(run_cli, run_id):
    shown = run_cli("changes", run_id)
    assert shown.stdout.splitlines() == [
        "M file               4 B  a",
        "A file               8 B  odd\\x1b[31m",
    ]
    told = json.loads(run_cli("changes", "latest", "--json").stdout)
    assert (told["run_id"], told["gone"]) == (run_id, None)
    assert [change["left"] for change in told["changes"]] == [True, True]
    assert told["changes"][0]["original"]["type"] == "file"


def test_the_diff(run_cli, run_id):
    shown = run_cli("diff", run_id, "a")
    assert shown.stdout.endswith("@@ -1 +1 @@\n-old\n+new\n")
    assert "(+1 -1)" in run_cli("diff", "--stat", run_id).stdout
    told = json.loads(run_cli("diff", "--json", run_id).stdout)
    assert [(each["added"], each["removed"]) for each in told["files"]] == [(1, 1), (1, 0)]


def test_a_terminal_is_not_written_to_by_what_a_program_wrote(run_cli, run_id):
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*RUNNER_COMMAND, "diff", run_id], stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while data := os.read(ours, 65536):
                said += data
        except OSError:  # EIO: the last writer is gone
            pass
        process.wait()
    os.close(ours)
    assert b"red" in said
    assert b"\x1b" not in said
    # A file gets the bytes, so that the diff can be applied.
    assert "\x1b[31mred" in run_cli("diff", run_id).stdout


def test_applying_ends_with_what_became_of_it(run_cli, run_id, workspace):
    dry = run_cli("apply", "--dry-run", run_id)
    assert (dry.returncode, (workspace / "a").read_text()) == (0, "old\n")
    assert "would be applied M a" in dry.stdout
    (workspace / "a").write_text("mine\n")
    refused = run_cli("apply", run_id)
    assert refused.returncode == 1
    assert "changed   M a: its content was changed meanwhile" in refused.stderr
    (workspace / "a").write_text("old\n")
    told = run_cli("apply", "--json", run_id)
    assert told.returncode == 0
    (row,) = json.loads(told.stdout)["results"]
    told_of = {name: row[name] for name in ("path", "kind", "fate", "why")}
    assert told_of == {"path": "a", "kind": "modified", "fate": "applied", "why": ""}
    assert row["original"]["sha256"] != row["sha256"]
    again = run_cli("apply", run_id)
    assert again.returncode == 2
    assert "its changes were applied" in again.stderr


def test_a_protected_path_is_a_refusal(run_cli, workspace):
    (workspace / "where").write_text(".envrc")
    (workspace / "change.py").write_text("open(open('where').read(), 'w').write('x')")
    assert run_cli("run", "change.py").returncode == 0
    refused = run_cli("apply", "latest")
    assert refused.returncode == 126
    assert "protected A .envrc" in refused.stderr
    (workspace / "mine.yaml").write_text("extends: agent\napply: {allow: [.envrc]}\n")
    assert run_cli("run", "--profile", "mine.yaml", "change.py").returncode == 0
    assert run_cli("apply", "latest").returncode == 0
    assert (workspace / ".envrc").read_text() == "x"


def test_discarding(run_cli, run_id):
    assert run_cli("discard", run_id).stdout == f"discarded: {run_id}\n"
    assert run_cli("discard", run_id).stdout == f"nothing is kept of {run_id}\n"
    assert run_cli("apply", run_id).returncode == 2
    assert "changes.discarded" in run_cli("audit", "show").stdout


@pytest.mark.parametrize("command", ["changes", "diff", "apply", "discard"])
def test_a_run_that_is_not_there(run_cli, workspace, command):
    for name in ("run-nothing", "../../etc", "\u00e9", "latest"):
        done = run_cli(command, name)
        assert done.returncode == 2
        assert done.stderr.startswith("runner: error: ")
