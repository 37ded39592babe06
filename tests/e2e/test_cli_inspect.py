"""The commands around a run: decisions, profiles, settings, records, the machine."""

from __future__ import annotations

import json
import sqlite3
import subprocess

import pytest
from conftest import RUNNER_COMMAND

from runner.audit.verify import verify_jsonl


def test_check_dry_run_and_run_decide_the_same(run_cli, workspace):
    for words, code, effect in (
        (["-c", "echo hi && sudo rm -rf /"], 126, "deny"),
        (["--env", "BASH_ENV=x", "--", "true"], 126, "deny"),
        (["--", "true"], 0, "allow"),
    ):
        checked = run_cli("check", "--json", *words)
        assert checked.returncode == code
        decision = json.loads(checked.stdout)["decision"]
        assert decision["effect"] == effect
        dry = run_cli("run", "--dry-run", *words)
        assert dry.returncode == code
        shown = json.loads(dry.stdout)
        assert shown["decision"] == decision
        assert (shown["spec"] is None) == (effect == "deny")
        if effect == "deny":
            ran = run_cli("run", "--json", *words)
            assert json.loads(ran.stdout)["decision"] == decision
            assert decision["rules"]
            assert {"id", "layer", "message", "matched"} <= decision["rules"][0].keys()
    spoken = run_cli("check", "-c", "sudo true")
    assert spoken.stdout.startswith("deny: rule 'privileges'")


def test_dry_run_runs_nothing(run_cli, workspace):
    (workspace / "tight.yaml").write_text("name: tight\nextends: agent\nlimits: { wall: 7s }\n")
    done = run_cli("run", "--dry-run", "--profile", "tight.yaml", "--", "touch", "made")
    spec = json.loads(done.stdout)["spec"]
    assert spec["argv"] == ["touch", "made"]
    assert spec["limits"]["wall_s"] == 7
    assert not (workspace / "made").exists()
    assert run_cli("audit", "verify").stdout.startswith("1 events")


def test_profiles(run_cli, workspace):
    listed = json.loads(run_cli("profile", "list", "--json").stdout)
    assert {"agent", "ci", "locked"} <= {row["name"] for row in listed}
    assert all(row["error"] is None for row in listed)
    assert "agent " in run_cli("profile", "list").stdout
    shown = run_cli("profile", "show", "locked").stdout
    assert "Threat model" in shown
    assert "network    none" in shown
    mine = workspace / "mine.yaml"
    mine.write_text("name: mine\nextends: locked\nlimits: { wall: 3s }\n")
    assert run_cli("profile", "validate", "agent", "mine.yaml").returncode == 0
    assert "wall 3s" in run_cli("profile", "show", "mine.yaml").stdout
    schema = json.loads(run_cli("profile", "schema").stdout)
    assert {"name", "extends", "limits", "rules"} <= schema["properties"].keys()
    assert "rules" in json.loads(run_cli("profile", "schema", "--policy").stdout)["properties"]


def test_a_profile_file_is_looked_for_where_it_was_typed(run_cli, workspace):
    (workspace / "inner").mkdir()
    (workspace / "no.yaml").write_text(
        "name: no\nextends: agent\nrules: { list: [{ id: no-true, effect: deny, "
        "match: { command: 'true' }, message: Try false. }] }\n"
    )
    done = run_cli("check", "--profile", "no.yaml", "-C", "inner", "--", "true")
    assert done.returncode == 126
    assert "no-true" in done.stdout


def test_config_says_where_each_setting_came_from(run_cli, runner_home, tmp_path, monkeypatch):
    config = tmp_path / "config" / "runner"
    config.mkdir(parents=True)
    (config / "config.yaml").write_text("profile: locked\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("RUNNER_KEEP_OUTPUT_BYTES", "2MiB")
    rows = json.loads(run_cli("config", "show", "--json").stdout)
    assert rows["home"] == {"value": str(runner_home), "origin": "environment RUNNER_HOME"}
    assert rows["profile"] == {"value": "locked", "origin": str(config / "config.yaml")}
    assert rows["backend"]["origin"] == "default"
    assert rows["keep_output_bytes"]["value"] == 2 << 20
    assert f"from {config / 'config.yaml'}" in run_cli("config", "show").stdout


@pytest.mark.usefixtures("native")
def test_doctor_tries_everything(run_cli, runner_home):
    done = run_cli("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    rows = {row["protection"]: row for row in report["protections"]}
    assert {"user_namespace", "seccomp", "landlock", "cgroup"} <= rows.keys()
    assert rows["seccomp"]["in_force"]
    for row in rows.values():
        assert row["detail"]
        assert row["in_force"] or row["remedy"], row
    assert {row["profile"]: row["runs"] for row in report["profiles"]}["agent"]
    assert "profile runner" in run_cli("doctor", "--apparmor").stdout


@pytest.fixture
def recorded(run_cli, workspace, native) -> str:
    """A log with one run, whose id is returned, one denial and one refusal."""
    ran = run_cli("run", "--json", "--agent", "worker", "--parent", "boss", "-c",
                  "echo out; echo err >&2")  # fmt: skip
    assert run_cli("run", "--agent", "worker", "--", "sudo", "true").returncode == 126
    assert run_cli("run", "missing.py").returncode == 2
    return json.loads(ran.stdout)["run_id"]


def test_what_was_recorded_can_be_shown_checked_and_counted(run_cli, recorded, tmp_path):
    shown = run_cli("audit", "show").stdout.splitlines()
    assert [line.split()[0] for line in shown] == [str(n) for n in range(len(shown))]
    assert [k for k in ("run.decided", "run.started", "run.ended") if k in "\n".join(shown)]
    own = run_cli("audit", "show", "--run", recorded, "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in own] == ["run.decided", "run.started", "run.ended"]
    assert len(run_cli("audit", "show", "--last", "2").stdout.splitlines()) == 2

    logs = run_cli("logs", recorded)
    assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
    assert run_cli("logs", "--stderr", recorded).stdout == "err\n"
    assert run_cli("logs", "--stdout", recorded).stdout == "out\n"

    verified = run_cli("audit", "verify")
    assert verified.returncode == 0
    assert verified.stdout.startswith(f"{len(shown)} events, head ")

    export = tmp_path / "log.jsonl"
    export.write_text(run_cli("audit", "export", "--format", "jsonl").stdout)
    told = run_cli("audit", "verify", str(export)).stdout
    assert told.splitlines()[:2] == verified.stdout.splitlines()[:2]
    assert "checkpoints hold" in verified.stdout  # which an export does not hold
    with open(export, "rb") as lines:
        assert verify_jsonl(lines).failure is None

    rows = json.loads(run_cli("usage", "--json").stdout)
    calls = {(row["scope"], row["key"]): row["calls"] for row in rows}
    assert calls["agent", "worker"] == 2
    assert calls["agent", "boss"] == 1
    assert sorted(calls.values())[-1] == 2
    assert "worker" in run_cli("usage").stdout


def test_a_changed_log_is_found_out_and_where(run_cli, runner_home, recorded, tmp_path):
    export = tmp_path / "log.jsonl"
    lines = run_cli("audit", "export").stdout.splitlines(keepends=True)
    altered = [line.replace('"agent":"worker"', '"agent":"nobody"') for line in lines]
    number = next(n for n, (a, b) in enumerate(zip(lines, altered, strict=True)) if a != b)
    export.write_text("".join(altered))
    told = run_cli("audit", "verify", str(export))
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(f"event {number}: ")
    export.write_text("".join(lines[:2] + lines[3:]))  # one taken out
    assert run_cli("audit", "verify", str(export)).stderr.startswith("event 2: ")

    with sqlite3.connect(next(runner_home.glob("*.db"))) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute(
            "UPDATE events SET body = CAST(replace(CAST(body AS TEXT), 'sudo', 'echo') AS BLOB)"
        )
    database.close()
    denied = next(n for n, line in enumerate(lines) if "sudo" in line)
    told = run_cli("audit", "verify")
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(f"event {denied}: ")


def test_a_reader_that_leaves_early(run_cli, recorded):
    for words in (["audit", "export"], ["audit", "show", "--json"]):
        done = subprocess.run(
            ["bash", "-c", '"$@" | true', "bash", *RUNNER_COMMAND, *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stderr == ""


def test_what_an_agent_wrote_does_not_move_the_readers_cursor(run_cli, workspace):
    run_cli("check", "--", "echo", "\x1b[2J\nfake line")
    shown = run_cli("audit", "show").stdout
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 2


def test_clean_with_nothing_to_do(run_cli, workspace):
    done = run_cli("clean")
    assert (done.returncode, done.stderr) == (0, "")
