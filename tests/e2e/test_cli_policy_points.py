"""Policies in Cedar and Rego, in the tools for people who write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CEDAR = """\
permit(principal, action, resource);
@id("no-recursion") @message("Move it to trash/.")
forbid(principal, action == Action::"exec", resource == Command::"rm")
  when { context.flags.contains("-r") };
"""
REGO = """\
package runner
allow := true
handles := {"dynamic_arguments", "escaped_text"}
deny contains "no make here" if input.resource.name == "make"
"""
FAILING = """\
package runner
decision := "perhaps" if input.resource.name == "make"
allow := true
handles := {"dynamic_arguments", "escaped_text"}
"""


@pytest.fixture
def policies(tmp_path, monkeypatch) -> Path:
    pytest.importorskip("cedarpy")
    pytest.importorskip("regopy")
    folder = tmp_path / "policy.d"
    folder.mkdir()
    (folder / "10.cedar").write_text(CEDAR)
    (folder / "20.rego").write_text(REGO)
    monkeypatch.setenv("RUNNER_POLICY_DIRS", str(folder))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return folder


def explained(run_cli, *words: str) -> dict:
    done = run_cli("explain", "--json", *words)
    return {**json.loads(done.stdout), "exit": done.returncode}


def test_explain_tells_what_each_point_says(run_cli, policies):
    found = explained(run_cli, "-c", "cd x; rm -r y; make z; sudo id")
    assert found["exit"] == 126
    cedar, rego = found["beside"]
    assert (cedar["effect"], rego["effect"]) == ("deny", "deny")
    assert cedar["point"] == f"Cedar policies of user:{policies}"
    assert rego["point"] == f"Rego policy of user:{policies}"
    assert "Move it to trash/." in cedar["reason"]
    assert "no make here" in rego["reason"]
    parts = {part["shown"]: part for part in found["parts"]}
    assert parts["rm -r y"]["beside"] == [
        {"id": "no-recursion", "layer": f"user:{policies}/10.cedar", "effect": "deny"}
    ]
    assert parts["make z"]["beside"][0]["id"] == "deny"
    assert parts["sudo id"]["beside"] == []
    # Each change was tried with all of them.
    assert parts["rm -r y"]["changes"] == ["leave out -r", "use another command than 'rm'"]
    assert parts["make z"]["changes"] == ["use another command than 'make'"]
    assert "run 'id' by itself, without sudo" in parts["sudo id"]["changes"]
    # What only the rules refuse would still be denied without them.
    assert (found["obstacles"][0]["rule"], found["without_obstacles"]) == ("privileges", "deny")


def test_explain_of_what_all_allow(run_cli, policies):
    found = explained(run_cli, "-c", "rm y")
    assert found["exit"] == 0
    assert [each["effect"] for each in found["beside"]] == ["allow", "allow"]
    assert all(part["beside"] == [] for part in found["parts"])
    text = run_cli("explain", "-c", "rm -r y").stdout
    assert "      deny     'no-recursion' of" in text
    assert "asked beside the rules" in text


def test_a_point_that_fails_is_a_denial_that_is_told(run_cli, policies):
    (policies / "20.rego").write_text(FAILING)
    found = explained(run_cli, "--", "make", "x")
    assert found["exit"] == 126
    assert found["beside"][1]["effect"] == "deny"
    assert "decision holds 'perhaps', which runner does not know" in found["beside"][1]["reason"]
    assert found["parts"][0]["changes"] == ["use another command than 'make'"]
    assert explained(run_cli, "--", "true")["exit"] == 0


CASES = """\
{}cases:
  - {{ run: rm -r x, expect: deny, rule: no-recursion, reason: trash }}
  - {{ run: rm x, expect: allow }}
  - {{ run: make x, expect: {} }}
"""


def test_cases_are_decided_by_all_points(run_cli, policies):
    work = Path.cwd()
    # This machine's own have no say: the policy stands beside its cases, or they name it.
    (work / "org.cedar").write_text(CEDAR)
    (work / "org.cases.yaml").write_text(CASES.format("", "allow"))
    for target in ("org.cedar", "org.cases.yaml", "."):
        done = run_cli("policy", "test", target)
        assert done.stdout == "3 cases, 0 examples: 3 hold, 0 do not\n", done
    (work / "org.cases.yaml").write_text(CASES.format("policy: ../policy.d\n", "deny"))
    assert "3 hold, 0 do not" in run_cli("policy", "test").stdout
    (work / "org.cases.yaml").write_text(CASES.format("policy: org.cedar\n", "deny"))
    done = run_cli("policy", "test")
    assert done.returncode == 1
    assert "policy 'policy0' of 'user:org.cedar' permits 'make x'" in done.stdout
    (work / "org.cedar").write_text("permit(nobody);")
    done = run_cli("policy", "test")
    assert (done.returncode, "org.cedar" in done.stderr) == (2, True)


def test_lint_says_what_it_does_not_look_into(run_cli, policies):
    files = [str(policies / "10.cedar"), str(policies / "20.rego")]
    for words in ((), (str(policies),)):
        done = run_cli("policy", "lint", *words)
        assert done.returncode == 0
        assert f"not looked into: {', '.join(files)}, for only Cedar and Rego can" in done.stdout
        told = json.loads(run_cli("policy", "lint", "--json", *words).stdout)
        assert told["not_looked_into"] == files
    (Path.cwd() / "team.yaml").write_text("extends: agent\n")
    assert "not looked into" not in run_cli("policy", "lint", "team.yaml").stdout


def test_diff_asks_the_points_of_both_sides(run_cli, policies):
    work = Path.cwd()
    (work / "old.cedar").write_text(CEDAR)
    (work / "new.cedar").write_text(CEDAR.replace('"-r"', '"-f"'))
    assert run_cli("check", "-c", "rm -r x").returncode == 126
    assert run_cli("check", "-c", "rm -f x").returncode == 0
    found = json.loads(run_cli("policy", "diff", "--json", "old.cedar", "new.cedar").stdout)
    assert [(each["old"]["effect"], each["new"]["effect"]) for each in found["changes"]] == [
        ("deny", "allow"),
        ("allow", "deny"),
    ]
    assert run_cli("policy", "diff", str(policies), str(policies)).returncode == 0
    # Over a profile those in force have their say on both sides.
    (work / "loose.yaml").write_text("name: agent\nextends: agent\n")
    found = json.loads(run_cli("policy", "diff", "--json", "agent", "./loose.yaml").stdout)
    assert (found["compared"], found["changed"]) == (2, 0)
