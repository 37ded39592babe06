"""`runner policy import`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = folder / "settings.json"
    rules = {"allow": ["Bash(git status)"], "deny": ["Bash(git push *)", "mcp__x"]}
    path.write_text(json.dumps({"permissions": rules}))
    return path


def test_the_profile_decides_and_what_differs_is_told(run_cli, settings):
    done = run_cli("policy", "import", "claude-code", "settings.json", "-o", "mine.yaml")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "settings.json: 3 rules, 1 carried over as written",
        '  stricter  permissions.deny[0] "Bash(git push *)": the words count wherever they stand '
        "among the arguments",
        '  looser    permissions.deny[1] "mcp__x": rules here speak of commands, and a tool of an '
        "MCP server is none",
    ]
    for text, code in (("git status", 0), ("git push", 126), ("git fetch", 126)):
        done = run_cli("check", "--profile", "./mine.yaml", "-c", text)
        assert done.returncode == code, text
    assert run_cli("policy", "lint", "mine.yaml").returncode == 0


def test_stdout_holds_the_file_and_stderr_the_report(run_cli, settings):
    done = run_cli("policy", "import", "claude-code", "settings.json", "--layer")
    assert "extends" not in done.stdout
    Path("layer.yaml").write_text(done.stdout)
    Path("layer.cases.yaml").write_text(
        "policy: ./layer.yaml\ncases:\n  - { run: git status, expect: allow }\n"
        "  - { run: git -C x push, expect: deny }\n  - { run: make, expect: ask }\n"
    )
    assert run_cli("policy", "test").stdout == "3 cases, 0 examples: 3 hold, 0 do not\n"


def test_what_is_wrong_is_said_in_a_sentence(run_cli, settings):
    settings.write_text("{")
    for words, told in (
        (["settings.json"], "settings.json is no settings file in JSON"),
        (["missing.json"], "missing.json can't be read"),
    ):
        done = run_cli("policy", "import", "claude-code", *words, "-o", "x.yaml")
        assert (done.returncode, done.stdout) == (2, "")
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
        assert not Path("x.yaml").exists()


def test_no_file_is_written_over(run_cli, settings):
    done = run_cli("policy", "import", "claude-code", "settings.json", "-o", "settings.json")
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert settings.read_text().startswith("{")


def test_a_policy_of_the_governance_toolkit(run_cli, settings):
    Path("policy.yaml").write_text(
        "apiVersion: governance.toolkit/v1\nname: p\nagents: ['*']\nrules:\n"
        "  - { name: git, condition: \"tool_name == 'git'\", action: allow }\n"
    )
    done = run_cli("policy", "import", "governance", "policy.yaml", "-o", "mine.yaml")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "policy.yaml: 1 rule, 1 carried over as written\n"
    for text, code in (("git status", 0), ("make", 126)):
        assert run_cli("check", "--profile", "./mine.yaml", "-c", text).returncode == code
    assert run_cli("policy", "import", "governance", "settings.json").returncode == 2
