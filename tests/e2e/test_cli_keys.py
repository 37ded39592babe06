"""`runner keys`: what people see of the keys of the API."""

from __future__ import annotations

import json
import re

import pytest

KEY = re.compile(r"rnk_[a-z2-7]{12}_[A-Za-z0-9]{32}_[0-9a-f]{8}")
BOT = ("keys", "create", "bot", "--agent", "bot", "--profile", "agent")


def test_a_key_from_its_making_to_its_end(run_cli, workspace):
    assert run_cli("keys", "list").stdout == "no key is in force\n"
    assert run_cli("keys", "list", "--all").stdout == "there is no key\n"
    made = run_cli(*BOT)
    assert made.returncode == 0
    text = made.stdout.strip()
    assert KEY.fullmatch(text)
    assert "apply read run; agent bot; no tenant; profiles agent" in made.stderr
    assert text not in made.stderr

    (row,) = json.loads(run_cli("keys", "list", "--json").stdout)
    assert text.startswith(row["id"] + "_")
    assert row["tenants"] == [""]
    assert "key" not in row
    listed = run_cli("keys", "list").stdout
    assert row["id"] in listed
    assert text.split("_")[2] not in listed + run_cli("audit", "show", "--json").stdout

    revoked = run_cli("keys", "revoke", row["id"], "--reason", "lost")
    assert revoked.stdout == f"revoked: {row['id']} bot\n"
    assert run_cli("keys", "list").stdout == "no key is in force\n"
    (row,) = json.loads(run_cli("keys", "list", "--all", "--json").stdout)
    assert row["state"] == "revoked"
    again = run_cli("keys", "revoke", row["id"])
    assert (again.returncode, again.stdout) == (2, "")
    shown = run_cli("audit", "show").stdout
    assert re.search(rf"apikey\.created +default +bot {row['id']}", shown)
    assert re.search(rf"apikey\.revoked +default +bot {row['id']}", shown)
    assert run_cli("audit", "verify").returncode == 0


def test_a_key_of_a_service_as_json(run_cli, workspace):
    made = run_cli(
        *("keys", "create", "op", "--agents", "ci-*", "--agents", "ops", "--tenant", "acme"),
        *("--verb", "approve", "--verb", "read", "--expires", "never", "--json"),
    )
    told = json.loads(made.stdout)
    assert KEY.fullmatch(told.pop("key"))
    assert (told["verbs"], told["agents"], told["agent"]) == (
        ["approve", "read"], ["ci-*", "ops"], None
    )  # fmt: skip
    assert (told["tenants"], told["profiles"], told["expires"]) == (["acme"], [], None)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["x", "--agent", "bot"], "--profile NAME"),
        (["x", "--agents", "*", "--profile", "*"], "--verb, one or more of run, read"),
        (["x", "--verb", "run", "--profile", "*"], "--agent NAME"),
        (["x", "--agent", "bot", "--profile", "a", "--verb", "kill"], "can't be given the verb"),
        (["x", "--agent", "bot", "--profile", "a", "--verb", "rnu"], "did you mean 'run'?"),
        (["x", "--agent", "bot", "--agents", "*", "--profile", "a"], "leave agents out"),
        (["x", "--agent", "bot", "--tenant", "*", "--profile", "a"], "belongs to one tenant"),
        (["x", "--agent", "b\nt", "--profile", "a"], "not the name of an agent"),
        (["x y", "--agent", "bot", "--profile", "a"], "no name for a key"),
        (["x", "--agent", "bot", "--profile", "a", "--expires", "soon"], "30d or 12h"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(run_cli, workspace, words, says):
    wrong = run_cli("keys", "create", *words)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert says in wrong.stderr
    assert run_cli("keys", "list", "--all").stdout == "there is no key\n"


def test_a_key_is_redacted_where_it_is_printed(run_cli, workspace, native):
    text = run_cli(*BOT).stdout.strip()
    run_cli("run", "--", "echo", text)
    told = run_cli("audit", "show", "--json").stdout
    assert text.split("_")[2] not in told
    assert text.split("_")[1] in told


def test_help_says_how(run_cli, workspace):
    told = run_cli("keys", "create", "--help").stdout
    for words in ("--agent bot --profile agent", "Authorization: Bearer KEY", "digest", "never"):
        assert words in told
