"""`runner explain` and `runner policy lint`, as they are typed."""

from __future__ import annotations

import json
import re

import pytest

WIDE = "rules:\n  default: deny\n  on_doubt: matches\n"


def explained(run_cli, *words: str) -> tuple[int, str]:
    """Exit code, and what was printed with runs of blanks and line ends taken together."""
    done = run_cli("explain", *words)
    assert done.stderr == ""
    # 100 columns, but a word that is longer (a file's path) is not broken.
    assert all(len(line) <= 100 or " " not in line.strip() for line in done.stdout.splitlines())
    return done.returncode, re.sub(r"\s+", " ", done.stdout)


def test_it_says_what_check_says_and_records_nothing(run_cli, workspace):
    tried = ((["-c", "echo hi && sudo id"], 126), (["--", "true"], 0), (["-c", "if ("], 126),
             (["--env", "LD_PRELOAD=x", "--", "ls"], 126))  # fmt: skip
    for words, code in tried:
        checked = json.loads(run_cli("check", "--json", *words).stdout)["decision"]
        done = run_cli("explain", "--json", *words)
        assert done.returncode == code
        assert json.loads(done.stdout)["decision"] == checked
    before = run_cli("audit", "verify").stdout
    run_cli("explain", "-c", "sudo id")
    assert run_cli("audit", "verify").stdout == before


def test_a_refusal_is_told_with_its_reason_and_its_remedies(run_cli, workspace):
    code, told = explained(run_cli, "-c", "cd sub && timeout 5 sudo cat 'a b'")
    assert code == 126
    assert "read as bash: 4 commands" in told
    assert "3 sudo cat 'a b' behind timeout" in told
    assert re.search(r"deny rule 'privileges' of profile:agent \(\S+privilege\.yaml:\d+\)", told)
    assert "command sudo, su, doas, pkexec, runuser, sudoedit - yes: sudo" in told
    assert "paths ./cat or ./sub/cat, ./a b or ./sub/a b" in told  # as it may be after the cd
    assert "in 3 run 'cat a b' by itself, without sudo" in told
    assert "without these it would be: allow" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--profile", "locked", "-c", 'rm -rf "$x"'], "write what it stands for in place of"),
        (["--profile", "locked", "-c", 'rm -rf "$x"'], 'or leave out "$x"'),
        (["-c", "$tool --version"], "write a command that is allowed in place of $tool"),
        (["-c", "$tool --version"], "only running would tell what it runs"),
        (["--", "rm", "-rf", "/"], "in 1 leave out -rf or leave out /"),
        (["-c", "echo x > /etc/passwd"], "leave out the redirection that writes /etc/passwd"),
        (["--", "crontab", "-l"], "use another command than 'crontab'"),
        (["-c", "sudo x > /etc/passwd"], "without sudo, and leave out the redirection"),
        (["-c", "echo $(date) $x/b"], "unsure $(date), $x/b"),
        (["-c", "curl https://a.org/x > f"], "hosts a.org"),
        (["-c", "if ("], "on_unreadable: deny of profile:agent"),
        (["--env", "LD_PRELOAD=x", "--", "ls"], "does not let a request set LD_PRELOAD"),
    ],
)
def test_what_would_have_to_change(run_cli, workspace, words, told):
    assert told in explained(run_cli, *words)[1]


def test_each_change_that_is_told_does_change_it(run_cli, workspace):
    document = json.loads(run_cli("explain", "--json", "--", "rm", "-rf", "x", "/").stdout)
    (part,) = document["parts"]
    left_out = [each.removeprefix("leave out ") for each in part["changes"] if "leave" in each]
    assert left_out == ["-rf", "/"]
    for word in left_out:
        words = [each for each in ("rm", "-rf", "x", "/") if each != word]
        assert run_cli("check", "--", *words).returncode == 0


def test_a_default_is_told_with_a_rule_that_would_do(run_cli, workspace):
    (workspace / "few.yaml").write_text(
        "extends: agent\nrules:\n  default: deny\n  list:\n"
        "    - { id: ls, effect: allow, match: { command: ls } }\n"
    )
    code, told = explained(run_cli, "--profile", "few.yaml", "--", "make", "all")
    assert code == 126
    assert "deny the default of profile:few (" in told
    draft = re.search(r"or add to the rules: (\{.*\}\}?)", told)
    text = (workspace / "few.yaml").read_text()
    (workspace / "few.yaml").write_text(f"{text}    - {draft[1]}\n")
    assert explained(run_cli, "--profile", "few.yaml", "--", "make", "all")[0] == 0


def test_rules_of_layers_above_are_told_with_their_file(run_cli, workspace, monkeypatch, tmp_path):
    folder = tmp_path / "policy.d"
    folder.mkdir()
    (folder / "10.yaml").write_text(
        "rules: { list: [{ id: no-make, effect: deny, match: { command: make,\n"
        "  agents: [build*] }, message: Ask. }] }\n"
    )
    monkeypatch.setenv("RUNNER_POLICY_DIRS", str(folder))
    code, told = explained(run_cli, "--agent", "builder", "--", "make")
    assert code == 126
    assert f"rule 'no-make' of user:{folder}/10.yaml ({folder}/10.yaml:1)" in told
    assert "agents build* - yes: builder" in told
    assert explained(run_cli, "--agent", "another", "--", "make")[0] == 0


def test_all_tells_rules_that_do_not_match(run_cli, workspace):
    assert "remove-system" not in explained(run_cli, "--", "rm", "-r", "x")[1]
    told = explained(run_cli, "--all", "--", "rm", "-r", "x")[1]
    assert "rule 'remove-system' of profile:agent" in told
    assert "any_args -r, -R, --r* - yes: -r" in told
    assert "- no" in told
    assert "'privileges'" not in told  # it is about other commands


def test_scripts_and_hostile_words(run_cli, workspace):
    (workspace / "x.py").write_text("import os\nos.system('sudo id')\nopen('/etc/passwd', 'w')\n")
    code, told = explained(run_cli, "x.py")
    assert code == 126
    assert "read as python" in told
    assert "found by a reader whose findings are advice" in told
    done = run_cli("explain", "--", "echo", "\x1b[2J\nfake", "\udcff")
    assert "\x1b" not in done.stdout
    assert done.returncode == 0
    json.loads(run_cli("explain", "--json", "--", "echo", "\x1b[2J", "\udcff").stdout)
    many = "; ".join(["sudo x $y > /etc/passwd"] * 400)
    done = run_cli("explain", "-c", many)
    assert done.returncode == 126
    assert "\x1b" not in done.stdout


def test_bad_input_is_one_sentence(run_cli, workspace):
    for words in (["--profile", "nowhere", "--", "x"], ["no.py"], []):
        done = run_cli("explain", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1


def test_lint_tells_file_line_and_what_to_do(run_cli, workspace):
    (workspace / "team.yaml").write_text(
        "extends: agent\n" + WIDE + "  list:\n"
        "    - { id: push, effect: allow, match: { command: git, args: push } }\n"
        "    - { id: no-git, effect: deny, match: { command: [git, hg] }, message: No. }\n"
        "    - { id: words, effect: deny, match: { command: rm -rf }, message: No. }\n"
        "    - { id: ls, effect: allow, match: { command: ls },\n"
        "        examples: { catches: ls -l, passes: ls } }\n"
    )
    done = run_cli("policy", "lint", "team.yaml")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "team.yaml:6: error: rule 'push' allows nothing, ever: 'no-git' matches all that it does "
        "and says deny",
        "    narrow the match of 'no-git', or take one of the two out",
        "team.yaml:8: error: rule 'words' command 'rm -rf' is several words, and a command's name "
        "is one",
        "    write command: rm, args: [-rf]",
        "team.yaml:10: error: rule 'ls' says that it passes 'ls' and matches it",
        "    narrow its match, or change the example",
        "4 rules in 1 file: 3 errors, 0 warnings",
    ]
    found = json.loads(run_cli("policy", "lint", "--json", "team.yaml").stdout)
    assert (found["errors"], found["warnings"]) == (3, 0)
    assert [(each["line"], each["check"]) for each in found["findings"]] == [
        (6, "always-beaten"), (8, "pattern"), (10, "example")
    ]  # fmt: skip


def test_lint_holds_policies_above_profiles(run_cli, workspace):
    (workspace / "org.yaml").write_text(
        "rules: { list: [{ id: no-git, effect: deny, match: { command: git }, message: No. }] }"
    )
    (workspace / "team.yaml").write_text(
        "extends: agent\n"
        + WIDE
        + "  list: [{ id: git, effect: allow, match: { command: git } }]\n"
    )
    assert run_cli("policy", "lint", "team.yaml").returncode == 0
    done = run_cli("policy", "lint", "org.yaml", "team.yaml")
    assert done.returncode == 1
    assert "rule 'git' allows nothing, ever: 'no-git' of 'user:org.yaml'" in done.stdout


def test_warnings_count_with_strict(run_cli, workspace):
    (workspace / "team.yaml").write_text(
        "extends: agent\nrules: { list: [{ id: ls, effect: allow, match: { command: ls } }] }"
    )
    assert run_cli("policy", "lint", "team.yaml").returncode == 0
    assert run_cli("policy", "lint", "--strict", "team.yaml").returncode == 1


def test_lint_of_bad_files_and_of_nothing(run_cli, workspace):
    (workspace / "bad.yaml").write_text("rules: { lst: [] }")
    (workspace / "none").mkdir()
    for words in (["bad.yaml"], ["none"], ["nowhere.yaml"], ["nowhere"]):
        done = run_cli("policy", "lint", *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert done.stderr.startswith("runner: error: ")


def test_what_ships_has_no_findings(run_cli, workspace):
    assert run_cli("policy", "lint", "--strict").returncode == 0  # what is in force
    done = run_cli("policy", "lint", "--strict", "agent", "ci", "locked")
    assert done.returncode == 0, done.stdout


def test_help_fits(run_cli, workspace):
    for words in (["explain"], ["policy", "lint"]):
        done = run_cli(*words, "--help")
        assert max(map(len, done.stdout.splitlines())) <= 100
        assert "Exit code" in done.stdout


def test_what_no_backend_can_decide_later_is_an_error_everywhere(run_cli, workspace):
    (workspace / "later.yaml").write_text(
        "extends: agent\ndescription: Later\nrules:\n  on_dynamic: defer\n"
    )
    given = ("--profile", "./later.yaml", "-c")
    done = [run_cli(verb, *given, "$x a") for verb in ("run", "check", "explain")]
    assert len({(each.returncode, each.stderr, each.stdout) for each in done}) == 1
    assert done[0].returncode not in (0, 126)
    assert "say on_dynamic: deny in the profile" in done[0].stderr
    assert run_cli("check", *given, "echo a").returncode == 0
