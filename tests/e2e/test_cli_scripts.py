"""What `runner run` can be given: scripts in their forms, folders, variables, environments."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.usefixtures("native")


FORMS = {
    "by suffix, python": ("a.py", "import sys; print('py', *sys.argv[1:])", "py x -y\n"),
    "by suffix, shell": ("a.sh", 'echo sh "$@"', "sh x -y\n"),
    "first line": ("tool", '#!/bin/sh\necho tool "$@"\n', "tool x -y\n"),
    "first line before suffix": ("b.py", '#!/bin/sh\necho sh "$@"\n', "sh x -y\n"),
    "first line with an argument": ("c", "#!/bin/sh -e\necho c $1\nfalse\necho no\n", "c x\n"),
    "env": ("d", "#!/usr/bin/env python3\nprint('env')\n", "env\n"),
    "env -S": ("e", "#!/usr/bin/env -S sh -e\necho e\nfalse\necho no\n", "e\n"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_scripts_interpreter(run_cli, workspace, form):
    name, text, out = FORMS[form]
    (workspace / name).write_bytes(text.encode())
    done = run_cli("run", name, "x", "-y")
    assert (done.stdout, done.stderr) == (out, "")
    assert done.returncode == (1 if name in "ce" else 0)


def test_a_script_from_stdin(run_cli, workspace):
    done = run_cli("run", "-", "one", input='#!/bin/sh\necho "$1"; cat; echo end\n')
    assert (done.returncode, done.stdout) == (0, "one\nend\n")  # stdin was the script
    done = run_cli("run", "--language", "python", "-", input="print(1 + 1)")
    assert (done.returncode, done.stdout) == (0, "2\n")
    done = run_cli("run", "-", input="print(1)")
    assert done.returncode == 2
    assert "--language" in done.stderr
    assert done.stderr.count("\n") == 1


def test_folder_variables_labels_and_names(run_cli, workspace, tmp_path):
    inner = workspace / "inner"
    inner.mkdir()
    (inner / "show.sh").write_text("pwd; echo $GREETING; ls\n")
    done = run_cli(
        "run", "-C", "inner", "--env", "GREETING=a=b c", "--env", "EMPTY=", "--agent", "worker",
        "--parent", "boss", "--session", "s1", "--tenant", "t1", "--label", "task=7=x",
        "--label", "note=", "show.sh",
    )  # fmt: skip
    assert done.stdout == f"{inner.resolve()}\na=b c\nshow.sh\n", done.stderr
    shown = run_cli("audit", "show", "--json").stdout.splitlines()
    first = next(event for event in map(json.loads, shown) if event["kind"] == "run.decided")
    principal = first["principal"]
    assert principal["uid"] == os.getuid()
    assert (principal["agent"], principal["parent"]) == ("worker", "boss")
    assert (principal["session"], principal["tenant"]) == ("s1", "t1")
    assert first["data"]["labels"] == {"task": "7=x", "note": ""}
    assert sorted(first["data"]["environment"]) == ["EMPTY", "GREETING"]
    assert "a=b c" not in json.dumps(first)  # a value may be a secret


def test_the_callers_environment_stays_outside(run_cli, workspace):
    env = {**os.environ, "SECRET_OF_MINE": "canary"}
    done = run_cli("run", "--", "env", env=env)
    assert done.returncode == 0
    assert "PATH=" in done.stdout
    assert "canary" not in done.stdout


def test_words_behind_the_script_and_the_dashes_are_the_programs(run_cli, workspace):
    (workspace / "a.sh").write_text('printf "%s|" "$@"\n')
    assert run_cli("run", "a.sh", "--json", "--", "-c").stdout == "--json|--|-c|"
    assert run_cli("run", "--label", "a=b", "--", "printf", "%s|", "--json").stdout == "--json|"
    # Without dashes the first word is a script, never a program that happens to be there.
    done = run_cli("run", "true")
    assert done.returncode == 2
    assert "true" in done.stderr


def test_names_that_are_not_utf8(run_cli, workspace):
    name = os.fsdecode(b"n\xff.sh")
    (workspace / name).write_text("echo $1\n")
    done = run_cli("run", name, os.fsdecode(b"a\xfe"), text=False)
    assert (done.returncode, done.stdout) == (0, b"a\xfe\n")
    assert run_cli("audit", "verify").returncode == 0
    assert run_cli("audit", "show").returncode == 0


def test_what_is_decided_is_what_runs(run_cli, workspace):
    """A script can't be another by the time that its next line is read."""
    (workspace / "a.sh").write_text("echo echo changed > a.sh\ncat a.sh | wc -l\n")
    done = run_cli("run", "a.sh")
    assert done.stdout.strip() == "2"
    assert "Read-only" in done.stderr
    assert run_cli("run", "-c", "echo echo changed > a.sh; cat a.sh").stdout == "echo changed\n"


def test_a_virtual_environment_in_the_workspace(run_cli, workspace):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "venv"], check=True)
    site = next((workspace / "venv" / "lib").glob("python3*")) / "site-packages"
    (site / "greeting.py").write_text("def main():\n    print('hello from the environment')\n")
    script = workspace / "venv" / "bin" / "greet"
    script.write_text(
        f"#!{workspace.resolve()}/venv/bin/python\nimport greeting\ngreeting.main()\n"
    )
    script.chmod(0o755)
    prefix = "import sys; print(sys.prefix)"
    done = run_cli("run", "--", "venv/bin/python", "-c", prefix)
    assert (done.stdout, done.stderr) == (f"{workspace.resolve()}/venv\n", "")
    hello = "hello from the environment\n"
    assert run_cli("run", "--", "./venv/bin/greet").stdout == hello
    assert run_cli("run", "venv/bin/greet").stdout == hello
    assert run_cli("run", "-c", ". venv/bin/activate && greet").stdout == hello
    (workspace / "main.py").write_text("import greeting; greeting.main()\n")
    assert run_cli("run", "--", "venv/bin/python", "main.py").stdout == hello
