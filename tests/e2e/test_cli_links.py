"""Links in the workspace: what check, run, explain, policy test and the log make of them."""

from __future__ import annotations

import json

RULES = """
extends: agent
description: Guards passwd
rules:
  on_doubt: passes
  list:
    - {id: passwd, effect: deny, match: {command: cat, paths: /etc/passwd}, message: Leave it.}
"""
CASES = """
profile: ./guard.yaml
given: {links: {l: /etc}}
cases:
  - {run: cat l/passwd, expect: deny, rule: passwd}
  - {run: cd l && cat passwd, expect: deny, rule: passwd}
  - {run: cat l/hosts, expect: allow}
  - {run: cat l/passwd, links: {l: /tmp}, expect: allow}
"""


def test_a_link_is_the_same_for_every_command(run_cli, workspace):
    (workspace / "guard.yaml").write_text(RULES)
    (workspace / "l").symlink_to("/etc")
    given = ("--profile", "./guard.yaml", "-c")
    for verb in ("check", "run", "explain"):
        done = run_cli(verb, *given, "cat l/passwd")
        assert done.returncode == 126, (verb, done)
        assert "passwd" in done.stdout + done.stderr
        assert run_cli("check", *given, "cat l/hosts").returncode == 0
    told = run_cli("explain", "--json", *given, "cat l/passwd").stdout
    assert "/etc/passwd" in told
    events = [json.loads(line)["body"] for line in run_cli("audit", "export").stdout.splitlines()]
    links = [event["data"]["links"] for event in events if "links" in event["data"]]
    assert [[f"{workspace}/l", "/etc"]] in links
    # It is decided again with what was there then.
    run = next(event["run"] for event in events if event["run"] and "links" in event["data"])
    (workspace / "l").unlink()
    assert run_cli("explain", "--run", run).returncode == 126
    assert run_cli("check", *given, "cat l/passwd").returncode == 0


def test_cases_state_links(run_cli, workspace):
    (workspace / "guard.yaml").write_text(RULES)
    (workspace / "guard.cases.yaml").write_text(CASES)
    done = run_cli("policy", "test", "guard.cases.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    (workspace / "guard.cases.yaml").write_text(CASES.replace("l: /etc", "l: ''"))
    done = run_cli("policy", "test", "guard.cases.yaml")
    assert done.returncode == 2
    assert "guard.cases.yaml:3" in done.stderr
