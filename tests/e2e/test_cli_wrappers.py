"""Wrappers that people add count on every surface."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner import Runner

ROWS = "wrappers: [{names: corp-run, operands: 1}]\n"
COMMAND = ("--", "corp-run", "x", "sudo", "id")


@pytest.fixture
def rows(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "wrappers.d"
    folder.mkdir(mode=0o755)
    (folder / "team.yaml").write_text(ROWS)
    (folder / "team.yaml").chmod(0o644)
    monkeypatch.setenv("RUNNER_WRAPPER_DIRS", str(folder))
    return folder


def test_without_them_nothing_stands_behind(run_cli, workspace):
    assert run_cli("check", *COMMAND).returncode == 0


@pytest.mark.usefixtures("native")
def test_run_check_and_explain(run_cli, workspace, rows):
    for command in ("run", "check", "explain"):
        done = run_cli(command, *COMMAND)
        assert done.returncode == 126, done
        assert "'sudo id' behind corp-run" in done.stdout + done.stderr
        assert run_cli(command, "--", "true", "corp-run").returncode == 0


def test_the_library_and_what_is_in_force(run_cli, workspace, rows):
    with Runner() as runner:
        (row,) = runner.wrappers.added
        outcome = runner.run(["corp-run", "x", "sudo", "id"], cwd=workspace)
    assert row.source == str(rows / "team.yaml")
    assert outcome.termination == "denied"
    shown = json.loads(run_cli("config", "show", "--json").stdout)["wrapper_dirs"]
    assert shown["value"] == ["/etc/runner/wrappers.d", str(rows)]


@pytest.mark.usefixtures("native")
def test_doctor_lists_them(run_cli, workspace, rows):
    file = str(rows / "team.yaml")
    told = json.loads(run_cli("doctor", "--json").stdout)
    assert told["wrappers"] == [{"names": ["corp-run"], "file": file}]
    assert f"corp-run                       {file}" in run_cli("doctor").stdout


def test_a_wrong_file_fails_every_run(run_cli, workspace, rows):
    (rows / "team.yaml").write_text("wrappers: [{names: sudo}]\n")
    done = run_cli("check", "--", "true")
    assert done.returncode == 2
    assert "team.yaml:1:13: wrappers[0].names: 'sudo' is read already" in done.stderr
    (rows / "team.yaml").chmod(0o666)
    assert "can be written by its group or by all" in run_cli("run", "--", "true").stderr


TEAM = """\
extends: agent
rules:
  list:
    - id: no-id
      effect: deny
      match: { command: id }
      message: Ask a person.
      examples: { catches: corp-run x id }
"""
CASES = "profile: ./team.yaml\n{}cases: [{{run: corp-run x id, expect: deny}}]\n"


def test_cases_and_examples_are_read_by_the_rows_that_are_named(run_cli, workspace, rows):
    (workspace / "team.yaml").write_text(TEAM)
    (workspace / "team.cases.yaml").write_text(CASES.format(""))
    # This machine's own have no say.
    assert "0 hold, 2 do not" in run_cli("policy", "test").stdout
    assert run_cli("policy", "lint", "team.yaml").returncode == 1
    (workspace / "rows.yaml").write_text(ROWS)
    assert "2 hold, 0 do not" in run_cli("policy", "test").stdout
    assert run_cli("policy", "lint", "team.yaml", "rows.yaml").returncode == 0
    assert "0 hold, 2 do not" in run_cli("policy", "test", "team.yaml").stdout
    (workspace / "team.cases.yaml").write_text(CASES.format("wrappers: rows.yaml\n"))
    assert "1 hold, 1 does not" in run_cli("policy", "test", "team.yaml").stdout
    (workspace / "team.cases.yaml").write_text(CASES.format("wrappers: none.yaml\n"))
    done = run_cli("policy", "test", "team.yaml")
    assert (done.returncode, "none.yaml, which holds no wrappers" in done.stderr) == (2, True)


def test_what_is_logged_is_decided_again_with_them(run_cli, workspace, rows):
    (workspace / "old.yaml").write_text(TEAM.replace("corp-run x id", "id"))
    (workspace / "new.yaml").write_text(TEAM.replace("command: id", "command: nothing"))
    assert run_cli("check", "--profile", "./old.yaml", "--", "corp-run", "x", "id").returncode
    done = run_cli("policy", "diff", "./old.yaml", "./new.yaml")
    assert "1 would change: 0 tighter, 1 looser" in done.stdout, done


def test_their_schema(run_cli):
    made = json.loads(run_cli("policy", "schema", "wrappers").stdout)
    assert made["$id"].endswith("wrappers.json")
