"""What may happen so often and no more: exact, however many runs begin at the same moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from runner.app import Runner

WORKER = """
import sys, threading
from pathlib import Path
from runner import Runner

work, profile, parent = sys.argv[1:4]
gate = threading.Barrier(9)
said = []

def run(runner, n):
    gate.wait()
    agent, of = (f"child-{n}", parent) if parent else ("lead", None)
    outcome = runner.run(["true"], cwd=work, profile=profile, agent=agent, parent=of)
    rules = ",".join(sorted({rule.id for rule in outcome.decision.rules}))
    said.append(f"{outcome.termination.value} {outcome.status} {rules}".strip())

with Runner() as runner:
    runner.run(["true"], cwd=work, agent="warm")  # what is made once is made
    threads = [threading.Thread(target=run, args=(runner, n)) for n in range(8)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    gate.wait()
    for thread in threads:
        thread.join()
print("\\n".join(said))
"""

OFTEN = """
extends: agent
description: Five, and no more.
rules:
  list:
    - id: often
      effect: deny
      message: Wait a little.
      match: { calls: { of: agent, window: 1h, at_least: 5 } }
"""

BUDGET = """
grants:
  - agents: [lead]
    profiles: agent
    budget: { calls: 5, per: 1h }
  - agents: ["child-*", warm]
    profiles: agent
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "policy.d").mkdir()
    changed = {
        "RUNNER_HOME": str(tmp_path / "home"),
        "RUNNER_POLICY_DIRS": str(tmp_path / "policy.d"),
    }
    return {**os.environ, **changed}


def sixteen(environment: dict[str, str], *args: object) -> Counter[str]:
    """How sixteen runs of two processes ended that all begin at one moment."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *map(str, args)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    ended: Counter[str] = Counter()
    for worker in workers:
        said, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0
        ended.update(said.splitlines())
    return ended


def test_a_rule_that_counts_is_exact(tmp_path, native, work, environment):
    profile = tmp_path / "often.yaml"
    profile.write_text(OFTEN)
    ended = sixteen(environment, work, profile, "")
    assert ended == {"exited 0": 5, "denied 126 often": 11}
    with Runner(home=tmp_path / "home") as runner:
        assert runner.store.verify().ok
        decided = [
            json.loads(event.body)["data"]["decision"]["effect"]
            for event in runner.store.events()
            if event.kind == "run.decided" and b'"lead"' in event.body
        ]
    # In the order of the log the first five are the ones that ran.
    assert decided == ["allow"] * 5 + ["deny"] * 11


def test_without_the_rule_all_of_them_run(native, work, environment):
    assert sixteen(environment, work, "agent", "") == {"exited 0": 16}


@pytest.mark.parametrize("parent", ["", "lead"])
def test_a_budget_is_exact_also_for_those_that_an_agent_started(
    tmp_path, native, work, environment, parent
):
    (tmp_path / "policy.d" / "10.yaml").write_text(BUDGET)
    ended = sixteen(environment, work, "agent", parent)
    assert ended == {"exited 0": 5, "denied 126 grants.budget": 11}


def test_a_budget_of_somebody_else_s_is_not_spent(tmp_path, native, work, environment):
    (tmp_path / "policy.d" / "10.yaml").write_text(BUDGET)
    assert sixteen(environment, work, "agent", "warm") == {"exited 0": 16}
