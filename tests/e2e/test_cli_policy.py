"""The tools for people who write rules, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from conftest import RUNNER_COMMAND

TEAM = """\
extends: agent
rules:
  list:
    - id: force-push
      effect: deny
      match: { command: git, args: [push, --force] }
      message: Push with --force-with-lease.
      examples:
        catches: [git push --force, git -C x push --force origin main]
        passes: [git push, git push --force-with-lease]
"""
CASES = """\
given: { agent: builder }
cases:
  - run: cd x && git push --force
    expect: deny
    rule: force-push
    reason: --force-with-lease
  - argv: [git, push]
    expect: allow
  - code: |
      import subprocess
      subprocess.run(["sudo", "id"])
    language: python
    expect: deny
    rule: privileges
  - name: what loads code
    run: make
    environment: [LD_PRELOAD]
    expect: deny
    rule: environment.deny
"""


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "team.yaml").write_text(TEAM)
    (folder / "team.cases.yaml").write_text(CASES)
    return folder


def test_cases_and_examples_that_hold(run_cli, workspace):
    for words in ([], ["."], ["team.yaml"], [str(workspace)]):
        done = run_cli("policy", "test", *words)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert done.stdout == "4 cases, 4 examples: 8 hold, 0 do not\n"
    assert run_cli("policy", "test", "team.cases.yaml").stdout.startswith("4 cases, 0 examples")
    told = run_cli("policy", "test", "-v").stdout.splitlines()
    assert told[0] == "team.cases.yaml:3: holds: cd x && git push --force"
    assert told[3] == "team.cases.yaml:15: holds: what loads code"
    # Nothing was decided for anybody, so nothing is in the log.
    assert run_cli("audit", "show").returncode == 125


def test_cases_and_examples_that_do_not_hold(run_cli, workspace):
    (workspace / "team.yaml").write_text(
        TEAM.replace("git push, git", "git push --force x, git").replace("[push, --force]", "push")
    )
    done = run_cli("policy", "test", "--junit", "out.xml")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "team.cases.yaml:7: git push",
        "    expected allow, and it is deny: rule 'force-push' of 'profile:team' denies "
        "'git push': Push with --force-with-lease.",
        "team.yaml:10: force-push passes: git push --force x",
        "    rule 'force-push' says that it passes 'git push --force x' and matches it; narrow its "
        "match, or change the example",
        "team.yaml:10: force-push passes: git push --force-with-lease",
        "    rule 'force-push' says that it passes 'git push --force-with-lease' and matches it; "
        "narrow its match, or change the example",
        "4 cases, 4 examples: 5 hold, 3 do not",
    ]
    root = ET.parse(workspace / "out.xml").getroot()
    assert root.attrib == {
        "name": "runner policy test", "tests": "8", "failures": "3", "errors": "0"
    }  # fmt: skip
    suites = {suite.get("name"): suite for suite in root}
    assert {name: suite.get("failures") for name, suite in suites.items()} == {
        "team.cases.yaml": "1", "team.yaml": "2"
    }  # fmt: skip
    failed = [case for case in suites["team.cases.yaml"] if case.find("failure") is not None]
    assert [(case.get("file"), case.get("line")) for case in failed] == [("team.cases.yaml", "7")]
    assert "expected allow" in failed[0].find("failure").get("message")


def test_a_catch_must_be_that_very_rules(run_cli, workspace):
    (workspace / "team.yaml").write_text(TEAM.replace("git push --force,", "sudo git fetch,"))
    done = run_cli("policy", "test", "team.yaml")
    assert done.returncode == 1
    assert "rule 'force-push' says that it catches 'sudo git fetch' and does not" in done.stdout


def test_policies_are_tried_over_a_profile_or_by_themselves(run_cli, workspace):
    (workspace / "org.yaml").write_text(
        "rules: { on_dynamic: ask, list: [{ id: no-curl, effect: deny, match: { command: curl }, "
        "message: There is no network. }] }\nenvironment: { deny: [AWS_*] }\n"
    )
    (workspace / "org.cases.yaml").write_text(
        "cases:\n"
        "  - { run: curl x, expect: deny, rule: no-curl }\n"
        "  - { run: sudo make, expect: allow }\n"
        "  - { run: $x, expect: ask, rule: on_dynamic }\n"
        "  - { run: make, environment: [AWS_KEY], expect: deny, reason: AWS_KEY }\n"
    )
    (workspace / "both.cases.yaml").write_text(
        "profile: agent\npolicy: [./org.yaml]\ncases:\n"
        "  - { run: curl x, expect: deny, rule: no-curl }\n"
        "  - { run: sudo make, expect: deny, rule: privileges }\n"
    )
    for name, number in (("org.cases.yaml", 4), ("both.cases.yaml", 2)):
        done = run_cli("policy", "test", name)
        assert done.stdout == f"{number} cases, 0 examples: {number} hold, 0 do not\n"


def test_time_and_earlier_runs_are_stated(run_cli, workspace):
    (workspace / "team.yaml").write_text(
        "extends: agent\nrules:\n  list:\n"
        "    - { id: night, effect: deny, message: Sleep., match: { command: deploy,\n"
        "        hours: { from: '22:00', to: '06:00' } } }\n"
        "    - { id: often, effect: ask, message: Slow down., match: { command: deploy,\n"
        "        calls: { window: 1h, at_least: 3 } } }\n"
    )
    (workspace / "team.cases.yaml").write_text(
        "given: { at: '2026-01-02T12:00:00Z' }\ncases:\n"
        "  - { run: deploy, expect: allow }\n"
        "  - { run: deploy, at: '2026-01-02T23:30:00+00:00', expect: deny, rule: night }\n"
        "  - { run: deploy, calls: { agent/60m: 3 }, expect: ask, rule: often }\n"
        "  - { run: deploy, calls: { agent/60m: 2 }, expect: allow }\n"
        "  - { run: deploy, calls: { agent/2h: 2 }, expect: allow }\n"
    )
    done = run_cli("policy", "test", "team.cases.yaml")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "team.cases.yaml:7: deploy",
        "    it states 'agent/7200s', which no rule counts; counted are 'agent/3600s'",
        "5 cases, 0 examples: 4 hold, 1 do not".replace("do not", "does not"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cases: []", "x.cases.yaml:1:1: cases: "),
        ("cases: [{ run: a, expect: maybe }]", "unknown value 'maybe'"),
        ("cases: [{ run: a }]", "cases[0].expect: is missing; add it"),
        ("cases:\n  - { run: a, argv: [a], expect: deny }", "x.cases.yaml:2:5: cases[0]: has run "
         "and argv of run, argv and code; give one"),
        ("cases: [{ expect: deny }]", "has none of run, argv and code; give one"),
        ("cases: [{ code: x, expect: deny }]", "needs language, such as python"),
        ("profile: agent\ncases: [{ code: x, language: cobol, expect: deny }]",
         "x.cases.yaml:2: language 'cobol' is not one of"),
        ("cases: [{ run: a, at: noon, expect: deny }]", "'noon' is no time; write it as 2026-"),
        ("cases: [{ run: a, calls: { me/1h: 1 }, expect: deny }]", "write one of agent/1h"),
        ("cases: [{ run: a, calls: { uid/x: 1 }, expect: deny }]", "duration"),
        ("cases: [{ run: a, rewrite: [b], expect: deny }]", "only for cases that expect: rewrite"),
        ("cases: [{ run: a, expects: deny, expect: deny }]", "did you mean 'expect'?"),
        ("cases: [{ run: a, expect: deny }]", "there is no x.yaml to test"),
        ("profile: nowhere\ncases: [{ run: a, expect: deny }]", "there is no profile 'nowhere'"),
        ("policy: team.yaml\ncases: [{ run: a, expect: deny }]", "name it under profile"),
    ],
)  # fmt: skip
def test_a_bad_file_is_told_in_a_sentence(run_cli, workspace, text, told):
    (workspace / "x.cases.yaml").write_text(text)
    done = run_cli("policy", "test", "x.cases.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_nothing_to_test_is_an_error(run_cli, workspace):
    (workspace / "empty").mkdir()
    done = run_cli("policy", "test", "empty")
    assert done.returncode == 2
    assert "there are no cases and no examples in empty" in done.stderr
    assert run_cli("policy", "test", "nowhere.yaml").returncode == 2
    done = run_cli("policy", "test", "--junit", "no/such/folder.xml")
    assert (done.returncode, done.stderr.startswith("runner: error: --junit")) == (2, True)


def test_schemas_are_printed(run_cli, workspace):
    schema = json.loads(run_cli("policy", "schema", "cases").stdout)
    assert {"profile", "policy", "wrappers", "given", "cases"} == schema["properties"].keys() - {
        "description"
    }
    assert "rules" in json.loads(run_cli("policy", "schema", "policy").stdout)["properties"]
    assert "extends" in json.loads(run_cli("policy", "schema", "profile").stdout)["properties"]
    done = run_cli("policy", "schema", "case")
    assert (done.returncode, "did you mean 'cases'?" in done.stderr) == (2, True)


def test_diff_tells_what_a_change_would_change(run_cli, workspace):
    for agent in ("one", "one", "two"):
        run_cli("check", "--agent", agent, "-c", "git push --force")
    run_cli("check", "-c", "git push")
    (workspace / "fix.py").write_text(
        "import subprocess\nsubprocess.run(['git', 'push', '--force'])\n"
    )
    run_cli("check", "fix.py")
    same = run_cli("policy", "diff", "agent", "agent")
    assert (same.returncode, same.stdout) == (
        0, "of 5 decisions in the last 7d 0 would change: 0 tighter, 0 looser\n"
    )  # fmt: skip
    done = run_cli("policy", "diff", "agent", "team.yaml")
    assert done.returncode == 1
    heading, *rows, _, summary = done.stdout.splitlines()
    assert heading.split() == ["OLD", "NEW", "AGENT", "COMMAND", "BECAUSE", "OF"]
    assert [row.split() for row in rows] == [
        [
            "allow",
            "deny",
            "one",
            "2x",
            *["git", "push", "--force", "profile:team", "/", "force-push"],
        ],
        ["allow", "deny", "two", *["git", "push", "--force", "profile:team", "/", "force-push"]],
        ["allow", "deny", "default", *["fix.py", "profile:team", "/", "force-push"]],
    ]
    assert summary == "of 5 decisions in the last 7d 4 would change: 4 tighter, 0 looser"
    looser = json.loads(run_cli("policy", "diff", "team.yaml", "agent", "--json").stdout)
    assert (looser["compared"], looser["changed"], looser["looser"]) == (5, 4, 4)
    assert looser["changes"][0]["old"]["effect"] == "deny"
    assert looser["changes"][0]["logged"] == "allow"
    # The script is another one now, and that is told, not guessed.
    (workspace / "fix.py").write_text("import sys\n")
    done = run_cli("policy", "diff", "agent", "team.yaml")
    assert "of 4 decisions in the last 7d 3 would change" in done.stdout
    assert "1 can't be decided again: a script's content was not kept, and" in done.stdout
    # What was decided is what it was: deciding again writes nothing.
    assert run_cli("audit", "verify").stdout.startswith("6 events")


@pytest.fixture
def ran(run_cli, workspace, native) -> str:
    """A run of a script that is gone, whose id is returned."""
    (workspace / "fix.py").write_text(
        "import subprocess\nsubprocess.run(['git', 'push', '--force'])\n"
    )
    done = run_cli("run", "--json", "--agent", "worker", "fix.py", "x")
    (workspace / "fix.py").unlink()
    return json.loads(done.stdout)["run_id"]


def test_what_was_kept_of_a_run_is_decided_again(run_cli, workspace, runner_home, ran):
    def log() -> str:
        return run_cli("audit", "verify").stdout.partition(",")[0]

    kept = runner_home / "runs" / ran / "program"
    # A run may also have swept up what another test's killed runner left, so none is counted on.
    events = log()
    assert events.endswith(" events")
    assert kept.read_bytes().startswith(b"import subprocess\n")
    assert kept.stat().st_mode & 0o777 == 0o600
    done = run_cli("policy", "diff", "agent", "team.yaml")
    assert "of 1 decisions in the last 7d 1 would change: 1 tighter, 0 looser" in done.stdout
    done = run_cli("explain", "--run", ran)
    assert done.returncode == 0
    assert done.stdout.startswith("then allow: ")
    assert "\nnow, under the same policy,\nallow: " in done.stdout
    told = json.loads(run_cli("explain", "--json", "--run", ran, "--profile", "team.yaml").stdout)
    assert told["then"]["effect"] == "allow"
    assert told["then"]["policy_digest"] != told["decision"]["policy_digest"]
    assert [rule["id"] for rule in told["decision"]["rules"]] == ["force-push"]
    # Nothing was recorded, and one whose text was changed is not taken for it.
    assert log() == events
    kept.write_bytes(b"print(1)\n")
    done = run_cli("explain", "--run", ran)
    assert done.returncode == 2
    assert "can't be decided again: a script's content was not kept" in done.stderr
    done = run_cli("policy", "diff", "agent", "team.yaml")
    assert "1 can't be decided again: a script's content was not kept" in done.stdout


def test_what_explain_of_a_run_refuses(run_cli, workspace, ran):
    for words, says in (
        (("run-00000000000000000000",), "the log knows no run"),
        (("../..",), "the log knows no run"),
        ((ran, "-c", "ls"), "give either --run RUN or a program"),
        ((ran, "fix.py"), "give either --run RUN or a program"),
    ):
        done = run_cli("explain", "--run", *words)
        assert (done.returncode, says in done.stderr) == (2, True), done


def test_a_denied_run_and_a_setting_that_keeps_nothing(run_cli, workspace, runner_home, native):
    script = workspace / "fix.sh"
    script.write_text("sudo id # a script\n")
    done = run_cli("run", "--json", "fix.sh")
    assert done.returncode == 126
    (kept,) = (runner_home / "runs").glob("*/program")
    assert kept.read_text() == "sudo id # a script\n"
    assert kept.parent.name == json.loads(done.stdout)["run_id"]
    # The log holds a command line itself; a script that is too large is not kept, nor any by 0.
    run_cli("run", "-c", "true")
    for size in ("0", "10"):
        assert run_cli("run", "fix.sh", env={**os.environ, "RUNNER_KEEP_PROGRAM_BYTES": size})
    assert len(list((runner_home / "runs").glob("*/program"))) == 1


def test_diff_is_about_decisions_under_either_profile(run_cli, workspace):
    run_cli("check", "--profile", "locked", "-c", "git push --force")
    done = run_cli("policy", "diff", "agent", "team.yaml")
    assert done.returncode == 0
    assert "under other profiles: locked (1); take them with --profile" in done.stdout
    assert run_cli("policy", "diff", "agent", "team.yaml", "--profile", "lock*").returncode == 1
    run_cli("check", "--profile", "./team.yaml", "-c", "git push --force")
    (workspace / "new.yaml").write_text(TEAM.replace("[push, --force]", "nothing"))
    assert run_cli("policy", "diff", "team.yaml", "new.yaml").returncode == 1


def test_diff_of_policies_is_over_each_decisions_profile(run_cli, workspace):
    for folder, rule in (("old", "curl"), ("new", "make")):
        (workspace / folder).mkdir()
        (workspace / folder / "10.yaml").write_text(
            f"rules: {{ list: [{{ id: no, effect: deny, match: {{ command: {rule} }}, "
            "message: No. }] }"
        )
    for command in ("curl x", "make", "sudo make", "echo"):
        run_cli("check", "-c", command)
    done = json.loads(run_cli("policy", "diff", "old", "new", "--json").stdout)
    assert (done["compared"], done["tighter"], done["looser"]) == (4, 1, 1)
    done = run_cli("policy", "diff", "agent", "new")
    assert (done.returncode, "compare two profiles or two policies" in done.stderr) == (2, True)


def test_a_budget_is_tried_explained_and_held(run_cli, workspace, monkeypatch, native):
    layers = workspace.parent / "policy.d"
    layers.mkdir()
    (layers / "who.yaml").write_text(
        "grants:\n  - { agents: lead, profiles: agent, budget: { calls: 2, per: 1h } }\n"
        "  - { agents: 'child-*', profiles: agent }\n"
    )
    (layers / "who.cases.yaml").write_text(
        "profile: agent\npolicy: [./who.yaml]\ngiven: { agent: child-1, parent: lead }\ncases:\n"
        "  - { run: make, calls: { parent/1h: 1 }, expect: allow }\n"
        "  - { run: make, calls: { agent/1h: 9 }, expect: allow }\n"
        "  - { run: make, calls: { parent/1h: 2 }, expect: deny, rule: grants.budget, "
        "reason: 2 runs within }\n"
        "  - { run: make, agent: lead, calls: { agent/60m: 2 }, expect: deny }\n"
        "  - { run: make, agent: child-2, calls: { session/1h: 2 }, expect: allow }\n"
    )
    done = run_cli("policy", "test", str(layers))
    assert done.stdout.splitlines()[1:] == [
        "    it states 'session/3600s', which no rule counts; counted are 'agent/3600s', "
        "'parent/3600s'",
        "5 cases, 0 examples: 4 hold, 1 does not",
    ]
    (layers / "who.cases.yaml").unlink()
    monkeypatch.setenv("RUNNER_POLICY_DIRS", str(layers))
    child = ("--agent", "child-1", "--parent", "lead")
    assert run_cli("explain", *child, "--", "true").returncode == 0
    first = run_cli("run", "--agent", "lead", "--", "true")
    assert first.returncode == 0, first.stderr
    assert run_cli("run", *child, "--", "true").returncode == 0
    told = run_cli("explain", *child, "--", "true")
    assert told.returncode == 126
    assert "grants the parent 'lead' 2 runs within 3600s" in " ".join(told.stdout.split())
    assert "what would have to change\n" in told.stdout
    asked = json.loads(run_cli("explain", "--json", *child, "--", "true").stdout)
    assert [rule["id"] for rule in asked["decision"]["rules"]] == ["grants.budget"]
    assert run_cli("check", *child, "--", "true").returncode == 126
    denied = run_cli("run", *child, "--", "true")
    assert denied.returncode == 126
    assert "wait until 20" in denied.stderr
    # Who has no part in that budget has none of its bounds.
    assert run_cli("run", "--agent", "child-1", "--", "true").returncode == 0
    run_id = json.loads(run_cli("run", "--json", *child, "--", "true").stdout)["run_id"]
    again = run_cli("explain", "--run", run_id)
    assert (again.returncode, "grants the parent 'lead'" in again.stdout) == (126, True)


def test_what_the_log_counts_is_counted_again(run_cli, workspace):
    (workspace / "often.yaml").write_text(
        "extends: agent\nrules: { list: [{ id: often, effect: ask, message: Slow down., "
        "match: { command: echo, calls: { window: 1h, at_least: 2 } } }] }"
    )
    for _ in range(4):  # denied runs count too, checks do not
        run_cli("run", "--", "sudo", "echo")
    run_cli("check", "--", "echo")
    run_cli("check", "--agent", "another", "--", "echo")
    done = json.loads(run_cli("policy", "diff", "agent", "often.yaml", "--json").stdout)
    assert [change["command"] for change in done["changes"]] == ["echo"]
    assert done["changes"][0]["new"]["rules"][0]["id"] == "often"


def test_observed_tells_what_would_have_been_refused(run_cli, workspace):
    (workspace / "watch.yaml").write_text(TEAM.replace("rules:", "rules:\n  mode: observe"))
    none = run_cli("check", "--agent", "a", "--profile", "watch.yaml", "--", "git", "push")
    assert none.returncode == 0
    assert "nothing that is only observed would" in run_cli("policy", "observed").stdout
    for agent, command in (("a", "git push --force"), ("b", "git push --force && sudo id")):
        done = run_cli("check", "--agent", agent, "--profile", "watch.yaml", "-c", command)
        assert done.returncode == 0
    run_cli("check", "-c", "sudo id")  # refused, so not observed
    told = json.loads(run_cli("policy", "observed", "--json").stdout)
    assert told["decisions"] == 2
    rules = {rule["rule"]: rule for rule in told["rules"]}
    assert {name: rule["times"] for name, rule in rules.items()} == {
        "force-push": 2, "privileges": 1
    }  # fmt: skip
    assert rules["force-push"]["agents"] == ["a", "b"]
    assert rules["force-push"]["example"]["command"] == "git push --force && sudo id"
    shown = run_cli("policy", "observed", "--agent", "a").stdout
    assert "1x deny  profile:watch / force-push" in shown
    assert "Push with --force-with-lease." in shown
    assert "privileges" not in shown
    assert rules["force-push"]["matched"] == [{"text": "git push --force", "times": 2}]
    assert "         matched  git push --force\n" in shown


def test_a_rule_and_a_policy_can_be_observed(run_cli, workspace, monkeypatch):
    (workspace / "watch.yaml").write_text(
        TEAM.replace("effect: deny", "effect: deny\n      observe: true")
    )
    policy = TEAM.replace("extends: agent", "observe: true").replace("force-push", "from-policy")
    folder = workspace / "policy.d"
    folder.mkdir()
    (folder / "10.yaml").write_text(policy)
    monkeypatch.setenv("RUNNER_POLICY_DIRS", str(folder))
    done = run_cli("check", "--profile", "watch.yaml", "-c", "git push --force; git push -f")
    assert done.returncode == 0
    assert "only observed, deny: profile:watch / force-push: git push --force" in done.stdout
    # What is refused all the same is no matter for what is observed.
    assert run_cli("check", "--profile", "watch.yaml", "-c", "git push --force; sudo id").returncode
    told = json.loads(run_cli("policy", "observed", "--json").stdout)
    assert told["decisions"] == 1
    assert {(each["rule"], each["layer"], each["times"]) for each in told["rules"]} == {
        ("force-push", "profile:watch", 1),
        ("from-policy", f"user:{folder}/10.yaml", 1),
    }
    assert told["rules"][0]["matched"] == [{"text": "git push --force", "times": 1}]
    explained = run_cli("explain", "--profile", "watch.yaml", "-c", "git push --force")
    assert explained.returncode == 0
    assert "only observed, without effect" in explained.stdout
    assert "rule 'force-push' of profile:watch (./watch.yaml:4)" in explained.stdout
    # Examples hold for a rule that is observed as for any.
    (workspace / "team.cases.yaml").unlink()
    assert "0 cases, 4 examples: 4 hold" in run_cli("policy", "test", "watch.yaml").stdout


def test_help_fits_and_shows_examples(run_cli, workspace):
    for command in ("test", "diff", "observed", "schema"):
        told = run_cli("policy", command, "--help").stdout
        assert max(map(len, told.splitlines())) <= 100
        assert "Exit code" in told or command in ("schema", "observed")


def test_a_reader_that_leaves_early(run_cli, workspace):
    done = subprocess.run(
        ["bash", "-c", '"$@" | true', "bash", *RUNNER_COMMAND, "policy", "schema"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
