"""Budgets hold: before a run, while it goes on, over processes, and when a supervisor dies."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from runner import Runner
from runner.clock import SystemClock
from runner.errors import RequestError
from runner.metering import windows
from runner.model.budget import HISTORY, Account, Bucket, Resource
from runner.model.limits import LimitName
from runner.model.outcome import Termination
from runner.stores.repairing import repair


def profile(folder: Path, budgets: str) -> str:
    path = folder / "budgeted.yaml"
    path.write_text(f"extends: agent\nbudgets:\n{budgets}")
    return str(path)


def events(runner: Runner, kind: str) -> list[dict[str, object]]:
    return [json.loads(e.body)["data"] for e in runner.store.events() if e.kind == kind]


def held(runner: Runner, resource: Resource) -> int:
    return sum(runner.store.held(a) for a in runner.store.accounts() if a.resource is resource)


def test_calls_are_let_one_by_one_and_the_parent_pays(runner, work, tmp_path):
    chosen = profile(tmp_path, "  - {id: few, of: agent, per: 1h, calls: 2}\n")

    def call(agent: str, parent: str | None = None):
        return runner.run(["true"], cwd=work, profile=chosen, agent=agent, parent=parent)

    assert call("lead").ok
    assert call("child", "lead").ok
    refused = call("child", "lead")  # its own has one left, its parent's has none
    assert (refused.termination, refused.status) == (Termination.DENIED, 126)
    assert [rule.id for rule in refused.decision.rules] == ["budget"]
    assert "agent:lead" in refused.decision.rules[0].matched
    assert "wait until 20" in refused.decision.reason
    assert call("child").ok, "what is refused is not charged"
    assert not call("child").ok
    assert call("other").ok


def test_a_change_of_the_amount_keeps_what_was_used(runner, work, tmp_path):
    chosen = profile(tmp_path, "  - {id: few, of: all, per: calendar day, calls: 1}\n")
    assert runner.run(["true"], cwd=work, profile=chosen).ok
    assert not runner.run(["true"], cwd=work, profile=chosen).ok
    profile(tmp_path, "  - {id: few, of: all, per: calendar day, calls: 2}\n")
    assert runner.run(["true"], cwd=work, profile=chosen).ok
    assert not runner.run(["true"], cwd=work, profile=chosen).ok


@pytest.mark.parametrize(
    ("amount", "program"),
    [("wall: 1s", "import time; time.sleep(60)"), ("cpu: 1s", "while True: pass")],
)
def test_what_flows_ends_the_run_that_crosses_it(runner, work, tmp_path, amount, program):
    chosen = profile(tmp_path, f"  - {{id: short, of: agent, per: 1h, {amount}}}\n")
    outcome = runner.run(["python3", "-c", program], cwd=work, profile=chosen, agent="a")
    assert (outcome.termination, outcome.limit) == (Termination.LIMIT, LimitName.BUDGET)
    assert outcome.status == 124
    assert outcome.budget is not None
    assert (outcome.budget.budget_id, outcome.budget.scope) == ("short", "agent:a")
    assert outcome.budget.free_at_s is not None
    (ended,) = [e for e in events(runner, "run.ended") if e["limit"] == "budget"]
    assert ended["budget"]["id"] == "short"
    again = runner.run(["true"], cwd=work, profile=chosen, agent="a")
    assert again.termination is Termination.DENIED
    assert runner.run(["true"], cwd=work, profile=chosen, agent="b").ok


def test_each_run_by_itself(runner, work, tmp_path):
    chosen = profile(tmp_path, "  - {id: each, of: agent, per: run, wall: 1s}\n")
    sleep = ["python3", "-c", "import time; time.sleep(60)"]
    for _ in range(2):
        assert runner.run(sleep, cwd=work, profile=chosen).limit is LimitName.BUDGET
    assert runner.run(["true"], cwd=work, profile=chosen).ok


def test_what_was_not_used_is_given_back(runner, work, tmp_path):
    chosen = profile(tmp_path, "  - {id: much, of: all, per: 1h, wall: 1h, at_once: 1}\n")
    outcome = runner.run(["true"], cwd=work, profile=chosen)
    assert outcome.ok
    assert held(runner, Resource.WALL) == held(runner, Resource.AT_ONCE) == 0
    assert runner.run(["true"], cwd=work, profile=chosen).ok


def test_warnings_once_a_window_and_soft_ones_refuse_nothing(runner, work, tmp_path):
    chosen = profile(
        tmp_path,
        "  - {id: warns, of: agent, per: 1h, calls: 4, warn_at: [50%]}\n"
        "  - {id: soft, of: agent, per: 1h, calls: 1, soft: true}\n",
    )
    assert [runner.run(["true"], cwd=work, profile=chosen).ok for _ in range(5)] == [
        *[True] * 4,
        False,
    ]
    warned = Counter((e["id"], e["percent"]) for e in events(runner, "budget.warned"))
    assert warned == {("warns", 50): 1, ("soft", 100): 1}


def test_what_nobody_meters_is_refused_unless_it_can_not_happen(runner, work, tmp_path):
    chosen = profile(tmp_path, "  - {id: execs, of: agent, per: 1h, execs: 100}\n")
    refused = runner.run(["true"], cwd=work, profile=chosen)
    assert refused.termination is Termination.DENIED
    assert "can't be metered" in refused.decision.reason
    chosen = profile(tmp_path, "  - {id: net, of: agent, per: 1h, requests: 1, money: 1}\n")
    assert runner.run(["true"], cwd=work, profile=chosen).ok, "without a network it stays 0"


SPENDER = """
import sys
from runner.clock import SystemClock
from runner.model.budget import Account, Resource, Sliding
from runner.metering import windows
from runner.stores.sqlite import create
from pathlib import Path

store = create(Path(sys.argv[1]), SystemClock())
account, window, granted = Account("layer#ten-thousand", "all", Resource.CALLS), Sliding(86400.0), 0
print("ready", flush=True)
sys.stdin.readline()
while True:
    with store.transaction() as tx:
        now_s = SystemClock().now()
        if tx.spent(account, windows.oldest(window, now_s)) >= 10_000:
            break
        tx.charge(account, (windows.place(window, now_s), windows.history(now_s)), 1)
    granted += 1
print(granted)
"""


def test_32_processes_spend_ten_thousand_and_no_more(tmp_path):
    """`How it shows`, 3, at the store; through runs see test_many_at_once_through_runs."""
    home = tmp_path / "home"
    spenders = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDER, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(32)
    ]
    for each in spenders:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in spenders:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    granted = [int(each.communicate(timeout=600)[0]) for each in spenders]
    assert sum(granted) == 10_000
    assert all(each.returncode == 0 for each in spenders)


CROWD = """
import sys, threading
from runner import Runner
from runner.errors import RequestError
work, profile = sys.argv[1:3]
said = []
def one(runner):
    outcome = runner.run(["sh", "-c", "sleep 1"], cwd=work, profile=profile, agent="a")
    said.append(outcome.termination.value)
with Runner(home=sys.argv[3]) as runner:
    threads = [threading.Thread(target=one, args=(runner,)) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
print(" ".join(said))
"""


def test_many_at_once_through_runs(native, work, tmp_path):
    chosen = profile(tmp_path, "  - {id: crowd, of: agent, per: 1h, calls: 7}\n")
    words = [sys.executable, "-c", CROWD, str(work), chosen, str(tmp_path / "home")]
    crowds = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = Counter(" ".join(each.communicate(timeout=300)[0] for each in crowds).split())
    assert said == {"exited": 7, "denied": 11}


STUCK = """
import sys
from runner import Runner
from runner.errors import RequestError
with Runner(home=sys.argv[3]) as runner:
    runner.run(["python3", "-c", "print('on', flush=True); import time; time.sleep(600)"],
               cwd=sys.argv[1], profile=sys.argv[2], stdout=open(sys.argv[4], "wb", 0), agent="a")
"""


def test_what_the_dead_held_is_charged_once_and_their_places_are_free(native, work, tmp_path):
    chosen = profile(
        tmp_path,
        "  - {id: one, of: agent, at_once: 1}\n  - {id: time, of: agent, per: 1h, wall: 60s}\n",
    )
    home, output = tmp_path / "home", tmp_path / "output"
    output.touch()
    stuck = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(work), chosen, str(home), str(output)]
    )
    try:
        deadline_s = time.monotonic() + 120
        with Runner(home=home) as runner:
            while held(runner, Resource.AT_ONCE) == 0 and time.monotonic() < deadline_s:
                time.sleep(0.05)
            refused = runner.run(["true"], cwd=work, profile=chosen, agent="a")
            assert refused.termination is Termination.DENIED
            assert "1 runs at once" in refused.decision.reason
            took = held(runner, Resource.WALL)
            assert took > 0
    finally:
        os.kill(stuck.pid, signal.SIGKILL)
        stuck.wait(timeout=60)
    with Runner(home=home) as runner:
        assert len(runner.recovered) == 1
        assert held(runner, Resource.AT_ONCE) == held(runner, Resource.WALL) == 0
        (recovered,) = events(runner, "run.recovered")
        charged = {c["resource"]: c["amount"] for c in recovered["charged"]}
        assert charged["wall"] > 0
        assert runner.run(["true"], cwd=work, profile=chosen, agent="a").ok
    with Runner(home=home) as runner:
        assert runner.recovered == []
        account = next(a for a in runner.store.accounts() if a.resource is Resource.WALL)
        assert isinstance(account, Account)


def test_a_repair_frees_nothing_of_what_a_killed_run_used(native, work, tmp_path):
    """Not even what it used before the last slice that it held."""
    chosen = profile(tmp_path, "  - {id: time, of: agent, per: 1h, wall: 4s}\n")
    home, output = tmp_path / "home", tmp_path / "output"
    output.touch()

    def spent(runner: Runner) -> int:
        accounts = [a for a in runner.store.accounts() if a.resource is Resource.WALL]
        return sum(runner.store.spent(a, Bucket(HISTORY, 0)) for a in accounts)

    stuck = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(work), chosen, str(home), str(output)]
    )
    try:
        deadline_s = time.monotonic() + 120
        with Runner(home=home) as runner:
            while not (before := spent(runner)) and time.monotonic() < deadline_s:
                time.sleep(0.05)
            assert before > 0
    finally:
        os.kill(stuck.pid, signal.SIGKILL)
        stuck.wait(timeout=60)
    with Runner(home=home) as runner:
        assert len(runner.recovered) == 1
        (recovered,) = events(runner, "run.recovered")
        (charged,) = recovered["charged"]
        expected = spent(runner)
        assert charged["amount"] == expected > before
    repaired(home)
    with Runner(home=home) as runner:
        assert spent(runner) == expected


class _Interrupting:
    """A sink in which somebody presses Control-C: what the run used is not asked for then."""

    def fileno(self) -> None:
        return None

    def write(self, data: bytes) -> int:
        raise KeyboardInterrupt


def test_what_an_unmeasured_run_held_is_charged_after_a_repair_too(native, work, tmp_path):
    chosen = profile(tmp_path, "  - {id: time, of: agent, per: 1h, cpu: 60s}\n")
    home = tmp_path / "home"

    def spent(runner: Runner) -> int:
        return sum(runner.store.spent(a, Bucket(HISTORY, 0)) for a in runner.store.accounts())

    with Runner(home=home) as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(["echo"], cwd=work, profile=chosen, stdout=_Interrupting())
        (ended,) = events(runner, "run.ended")
        (charged,) = ended["charged"]
        expected = spent(runner)
        assert (charged["resource"], charged["amount"]) == ("cpu", expected)
        assert expected > 0
    repaired(home)
    with Runner(home=home) as runner:
        assert spent(runner) == expected


def test_a_reset_begins_the_window_anew_and_is_recorded(runner, work, tmp_path):
    chosen = profile(tmp_path, "  - {id: one, of: agent, per: 1h, calls: 1}\n")
    for agent in ("a", "b"):
        assert runner.run(["true"], cwd=work, profile=chosen, agent=agent).ok
    assert [(s.scope, s.used, s.amount) for s in runner.budgets.standing(chosen)] == [
        ("agent:a", 1, 1),
        ("agent:b", 1, 1),
    ]
    assert runner.budgets.reset("one", "why not", scope="agent:a", profile=chosen) == ("agent:a",)
    assert runner.run(["true"], cwd=work, profile=chosen, agent="a").ok
    assert not runner.run(["true"], cwd=work, profile=chosen, agent="b").ok
    (reset,) = events(runner, "budget.reset")
    layers = [f"profile:{chosen}"]
    assert reset == {
        "budget": "one",
        "layers": layers,
        "scopes": ["agent:a"],
        "by": f"uid:{os.getuid()}",
        "reason": "why not",
    }
    for budget, reason in (("none", "x"), ("one", " ")):
        with pytest.raises(RequestError):
            runner.budgets.reset(budget, reason, profile=chosen)


def test_another_profile_of_the_same_name_has_budgets_of_its_own(runner, work, tmp_path):
    kept, own = tmp_path / "kept", tmp_path / "own"
    for folder in (kept, own):
        folder.mkdir()
    chosen = profile(kept, "  - {id: few, of: agent, per: 1h, calls: 1, fixed: true}\n")
    alike = profile(own, "  - {id: few, of: agent, per: 1h, calls: 100}\n")
    assert runner.run(["true"], cwd=work, profile=chosen, agent="a").ok
    assert runner.run(["true"], cwd=work, profile=alike, agent="a").ok
    assert runner.run(["true"], cwd=work, profile=alike, agent="b").ok
    runner.budgets.reset("few", "mine", profile=alike)
    runner.budgets.set("few", {"calls": "9"}, "r", lasting="1h", scope="agent:a", profile=alike)
    assert not runner.run(["true"], cwd=work, profile=chosen, agent="a").ok, "it is fixed"
    assert runner.run(["true"], cwd=work, profile=chosen, agent="b").ok, "nobody spent it"


def test_a_profile_spelled_otherwise_is_the_same_one(runner, work, tmp_path):
    chosen = profile(
        tmp_path,
        "  - {id: few, of: profile, per: 1h, calls: 1}\n"
        "  - {id: some, of: agent, per: 1h, calls: 3}\n",
    )
    (tmp_path / "link.yaml").symlink_to(chosen)
    assert runner.run(["true"], cwd=work, profile=chosen).ok
    for spelled in (f"{tmp_path}/link.yaml", f"{tmp_path}/../{tmp_path.name}/budgeted.yaml"):
        assert not runner.run(["true"], cwd=work, profile=spelled).ok


def test_another_amount_holds_for_a_time_and_is_recorded(runner, work, tmp_path):
    chosen = profile(
        tmp_path,
        "  - {id: one, of: agent, per: 1h, calls: 1, wall: 1h}\n"
        "  - {id: all, of: all, per: 1d, calls: 100}\n",
    )

    def call() -> bool:
        return runner.run(["true"], cwd=work, profile=chosen, agent="a").ok

    def set_to(calls: str, lasting: str = "1h") -> None:
        runner.budgets.set(
            "one", {"calls": calls}, "r", lasting=lasting, scope="agent:a", profile=chosen
        )

    assert [call(), call()] == [True, False]
    set_to("3")
    assert [(s.scope, s.used, s.amount) for s in runner.budgets.standing(chosen)][1:2] == [
        ("agent:a", 1, 3)
    ]
    assert [call(), call(), call()] == [True, True, False]
    set_to("0")
    assert not call()
    set_to("50", "1s")
    time.sleep(1.1)
    assert not call(), "its time is over"
    set_to("50")
    runner.budgets.unset("one", "back", scope="agent:a", profile=chosen)
    assert runner.budgets.overrides(chosen) == ()
    assert not call()
    told = [(e["scope"], e["amounts"], e["reason"]) for e in events(runner, "budget.set")]
    assert told[0] == ("agent:a", {"calls": 3}, "r")
    assert told[-1] == ("agent:a", {}, "back")
    assert events(runner, "budget.set")[-1]["until"] is None
    runner.budgets.set("all", {"calls": "2"}, "r", lasting="1d", profile=chosen)
    refused = runner.run(["true"], cwd=work, profile=chosen, agent="b")
    assert "2 calls of all" in refused.decision.reason


def test_a_run_that_goes_on_takes_what_is_set_with_its_next_slice(runner, work, tmp_path):
    chosen = profile(tmp_path, "  - {id: short, of: agent, per: 1h, wall: 2s}\n")
    runner.budgets.set("short", {"wall": "1h"}, "r", lasting="1h", scope="agent:a", profile=chosen)
    assert runner.run(["sleep", "2.5"], cwd=work, profile=chosen, agent="a").ok
    runner.budgets.set("short", {"wall": "3s"}, "r", lasting="1h", scope="agent:a", profile=chosen)
    outcome = runner.run(["sleep", "60"], cwd=work, profile=chosen, agent="a")
    assert outcome.limit is LimitName.BUDGET


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget_id": "none"}, "no budget 'none' is stated"),
        ({"scope": None}, "say whose with --of"),
        ({"scope": "tenant:x"}, "no counter of 'few'"),
        ({"amounts": {"cpu": "1h"}}, "does not bound cpu"),
        ({"amounts": {"calls": "many"}}, "no number of them"),
        ({"amounts": {"calls": "-1"}}, "no number of them"),
        ({"amounts": {"apples": "1"}}, "nothing that is budgeted"),
        ({"amounts": {}}, "say which amount"),
        ({"lasting": "for ever"}, "--for 'for ever'"),
        ({"lasting": "unlimited"}, "must have an end; give it as 15m, 1h or 1d; what is to stay"),
        ({"lasting": "9999d"}, "more than 366 days, the longest there is; what is to stay"),
        ({"lasting": "3w"}, "give a number of seconds or one with a unit (500ms, 5s, 2m, 1h, 1d);"),
        ({"lasting": "10ms"}, "is less than a second"),
        ({"reason": " "}, "for a reason"),
        ({"budget_id": "each"}, "bounds each run by itself"),
        ({"budget_id": "fixed", "scope": None}, "is fixed by"),
    ],
)
def test_what_can_not_be_set_is_refused_and_changes_nothing(runner, work, tmp_path, given, said):
    chosen = profile(
        tmp_path,
        "  - {id: few, of: agent, per: 1h, calls: 2}\n"
        "  - {id: each, of: agent, per: run, wall: 1h}\n"
        "  - {id: fixed, of: all, per: 1h, calls: 2, fixed: true}\n",
    )
    call = {
        "budget_id": "few", "amounts": {"calls": "5"}, "reason": "r", "lasting": "1h",
        "scope": "agent:a", **given,
    }  # fmt: skip
    if given.get("budget_id") == "each":
        call["amounts"] = {"wall": "1h"}
    before = runner.store.head().size
    with pytest.raises(RequestError, match=re.escape(said)):
        runner.budgets.set(**call, profile=chosen)
    if given.get("budget_id") == "fixed":
        with pytest.raises(RequestError, match=re.escape(said)):
            runner.budgets.reset("fixed", "r", profile=chosen)
    assert runner.store.head().size == before
    assert runner.budgets.overrides(chosen) == ()


def test_a_forecast_is_made_of_what_was_charged(runner, work, tmp_path):
    chosen = profile(tmp_path, "  - {id: b, of: agent, per: 30d, calls: 1000}\n")
    assert runner.run(["true"], cwd=work, profile=chosen, agent="a").ok
    (found,) = runner.budgets.forecasts(chosen)
    assert (found.per_day, found.used_up_s) == (None, None), "one hour tells nothing"
    account = found.spent.account
    now = windows.history(time.time())
    with runner.store.transaction() as tx:
        for ago in range(1, 49):
            tx.charge(account, [Bucket(now.level, now.number - ago)], 10)
    (found,) = runner.budgets.forecasts(chosen)
    assert found.per_day == pytest.approx(240)
    assert found.month is not None
    assert found.month.low <= found.month.likely <= found.month.high
    assert found.used_up_s is not None
    days = (found.used_up_s.likely - time.time()) / 86_400
    assert days == pytest.approx(999 / 240, abs=0.2)


def test_a_repair_makes_the_ledger_of_the_events(native, work, tmp_path):
    home = tmp_path / "home"
    chosen = profile(
        tmp_path,
        "  - {id: few, of: agent, per: 10d, calls: 100, wall: 1h, cpu: 1h, warn_at: [1%]}\n"
        "  - {id: day, of: all, per: calendar month, calls: 100, zone: Europe/Berlin}\n"
        "  - {id: crowd, of: all, at_once: 7}\n"
        "  - {id: each, of: agent, per: run, wall: 1h}\n",
    )

    def standing(runner: Runner) -> list[tuple[object, ...]]:
        return [
            (s.account, s.amount, s.used, runner.store.spent(s.account, Bucket(HISTORY, 0)))
            for s in runner.budgets.standing(chosen)
        ]

    with Runner(home=home) as runner:
        for agent in ("a", "b\ufffd", "a", "c"):
            assert runner.run(["true"], cwd=work, profile=chosen, agent=agent).ok
        runner.run(["sudo", "id"], cwd=work, profile=chosen, agent="a")
        runner.budgets.reset("few", "r", scope="agent:a", profile=chosen)
        assert runner.run(["true"], cwd=work, profile=chosen, agent="a", parent="lead").ok
        for lasting, scope in (("1h", "agent:c"), ("1h", "agent:a"), ("1s", "agent:lead")):
            runner.budgets.set(
                "few", {"calls": "7"}, "r", lasting=lasting, scope=scope, profile=chosen
            )
        runner.budgets.unset("few", "r", scope="agent:a", profile=chosen)
        time.sleep(1.1)
        expected = standing(runner)
    assert len(expected) > 8
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        db.execute("UPDATE budget_use SET amount = amount + 1")
        db.execute("DELETE FROM budget_overrides")
        db.execute("UPDATE tree SET peaks = zeroblob(length(peaks))")
    told = repair(home, SystemClock())
    assert told.ledger_left_out == 0
    with Runner(home=home) as runner:
        assert standing(runner) == expected


@pytest.mark.parametrize("scope", ["coder", "agent:", "all", "label:x"])
def test_a_counter_that_can_be_nobodys_is_refused_with_the_form(runner, tmp_path, scope):
    chosen = profile(tmp_path, "  - {id: few, of: agent, per: 1h, calls: 1}\n")
    with pytest.raises(RequestError, match="say agent:NAME"):
        runner.budgets.set("few", {"calls": "2"}, "r", lasting="1h", scope=scope, profile=chosen)


def repaired(home: Path) -> None:
    with closing(sqlite3.connect(home / "runner.db", isolation_level=None)) as db:
        db.execute("UPDATE tree SET peaks = zeroblob(length(peaks))")
    assert repair(home, SystemClock()).ledger_left_out == 0


def test_a_repair_keeps_what_another_profile_could_not_reset(native, work, tmp_path):
    home, own = tmp_path / "home", tmp_path / "own"
    own.mkdir()
    chosen = profile(tmp_path, "  - {id: few, of: agent, per: 1h, calls: 1, fixed: true}\n")
    alike = profile(own, "  - {id: few, of: agent, per: 1h, calls: 1}\n")
    with Runner(home=home) as runner:
        for each in (chosen, alike):
            assert runner.run(["true"], cwd=work, profile=each, agent="a").ok
        runner.budgets.reset("few", "mine", profile=alike)
    repaired(home)
    with Runner(home=home) as runner:
        assert not runner.run(["true"], cwd=work, profile=chosen, agent="a").ok
        assert runner.run(["true"], cwd=work, profile=alike, agent="a").ok


def test_a_secret_that_names_a_session_is_not_written_and_is_counted(native, work, tmp_path):
    home = tmp_path / "home"
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    chosen = profile(
        tmp_path,
        "  - {id: few, of: session, per: 1h, calls: 2, wall: 1h}\n"
        "  - {id: of-label, of: 'label:key', per: 1h, calls: 9}\n",
    )

    def call(runner: Runner, session: str = secret) -> bool:
        labels = {"key": secret}
        return runner.run(["true"], cwd=work, profile=chosen, session=session, labels=labels).ok

    with Runner(home=home) as runner:
        assert call(runner)
        assert call(runner, "another")
        runner.budgets.set(
            "few", {"calls": "3"}, "r", lasting="1h", scope=f"session:{secret}", profile=chosen
        )
        assert secret not in str(runner.budgets.standing(chosen))
        assert call(runner)
    for file in home.glob("runner.db*"):
        assert secret.encode() not in file.read_bytes(), file
    repaired(home)
    with Runner(home=home) as runner:
        assert [call(runner), call(runner)] == [True, False]
        assert call(runner, "another")


@pytest.mark.docker
@pytest.mark.parametrize(
    ("amount", "program"),
    [("wall: 1s", "import time; time.sleep(60)"), ("cpu: 1s", "while True: pass")],
)
def test_with_docker_too(work, tmp_path, amount, program):
    chosen = profile(tmp_path, f"  - {{id: short, of: agent, per: 1h, {amount}}}\n")
    with Runner(home=tmp_path / "home", backend="docker") as runner:
        outcome = runner.run(["python3", "-c", program], cwd=work, profile=chosen)
        assert (outcome.termination, outcome.limit) == (Termination.LIMIT, LimitName.BUDGET)
        assert not runner.run(["true"], cwd=work, profile=chosen).ok
