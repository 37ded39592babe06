"""What a rule asks waits for a person, and a yes is to this very thing, once."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner import Runner
from runner.caller import Caller
from runner.errors import ProfileError, RequestError
from runner.intake import build_request
from runner.model.approval import ApprovalState
from runner.model.kill import KillScope
from runner.model.outcome import Outcome, Termination
from runner.streams import Cancellation, NullSink

RULES = """
extends: agent
rules:
  list:
    - id: looked-at
      match: {{command: touch}}
      effect: ask
      message: a person looks at it first
      ask: {{expires: {expires}{approvers}}}
"""


def profile(folder: Path, expires: str = "10m", approvers: str = "", more: str = "") -> str:
    path = folder / "asks.yaml"
    path.write_text(RULES.format(expires=expires, approvers=approvers) + more)
    return str(path)


def events(runner: Runner, kind: str) -> list[dict]:
    return [json.loads(e.body)["data"] for e in runner.store.events() if e.kind == kind]


def yes(runner: Runner, **more):
    (found,) = runner.approvals.waiting()
    return runner.approvals.answer(found.id, "fine", yes=True, **more)


class Told:
    """An observer that does this when something is asked."""

    def __init__(self, do) -> None:
        self.asked = do

    def decided(self, run_id, decision) -> None:
        pass

    def used(self, usage) -> None:
        pass


def until(condition, what: str):
    deadline_s = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"not within a minute: {what}"
        time.sleep(0.02)
    return found


@pytest.fixture
def home(runner: Runner) -> Path:
    return Path(runner.settings.home.value)


def test_a_yes_is_for_one_run_of_the_very_same_request(runner, work, tmp_path):
    chosen = profile(tmp_path)

    def ask(*words: str, **more) -> Outcome:
        return runner.run(words, cwd=work, profile=chosen, **more)

    denied = ask("touch", "a")
    assert (denied.termination, denied.status) == (Termination.DENIED, 126)
    assert "nobody has approved ask-" in denied.decision.reason
    (asked,) = runner.approvals.waiting()
    assert (asked.program, asked.rules, asked.profile) == ("touch a", ("looked-at",), "asks")
    assert not ask("touch", "a").ok
    assert [each.id for each in runner.approvals.waiting()] == [asked.id]  # not asked twice
    yes(runner)
    for other in (
        lambda: ask("touch", "b"),
        lambda: ask("touch", "a", agent="somebody-else"),
        lambda: ask("touch", "a", env={"A": "1"}),
        lambda: ask("touch", "a", labels={"a": "b"}),
        lambda: ask("touch", "a", stdin=b"other"),
        lambda: ask("touch", "a", limits={"wall": "1s"}),
        lambda: ask("touch", "a", session="s"),
    ):
        assert other().termination is Termination.DENIED
    used = ask("touch", "a")
    assert used.ok
    assert used.decision.approved is not None
    assert used.decision.approved.by == f"uid:{os.getuid()}"
    assert not ask("touch", "a").ok
    found = runner.approvals.get(asked.id)
    assert (found.state, found.run_id) == (ApprovalState.USED, used.run_id)
    (answered,) = events(runner, "approval.answered")
    assert (answered["id"], answered["answer"], answered["reason"]) == (
        asked.id,
        "approved",
        "fine",
    )
    decided = [each for each in events(runner, "run.decided") if each["decision"].get("approved")]
    assert [each["decision"]["approved"]["id"] for each in decided] == [asked.id]
    assert runner.store.verify().ok


def test_a_yes_is_no_longer_good_when_the_policy_is_another(runner, work, tmp_path):
    chosen = profile(tmp_path)
    runner.run(["touch", "a"], cwd=work, profile=chosen)
    yes(runner)
    profile(tmp_path, more="    - {id: more, match: {command: rm}, effect: deny, message: no}\n")
    assert not runner.run(["touch", "a"], cwd=work, profile=chosen).ok
    profile(tmp_path, more="network: none\nlimits: {wall: 7s}\n")
    assert not runner.run(["touch", "a"], cwd=work, profile=chosen).ok
    profile(tmp_path)
    assert runner.run(["touch", "a"], cwd=work, profile=chosen).ok


def test_a_script_is_bound_by_its_content(runner, work, tmp_path):
    chosen = profile(tmp_path)
    script = work / "s.sh"
    script.write_text("touch a\n")
    assert not runner.run(script=script, cwd=work, profile=chosen).ok
    assert "touch a" in yes(runner).program
    script.write_text("touch a; echo more\n")
    assert not runner.run(script=script, cwd=work, profile=chosen).ok
    script.write_text("touch a\n")
    assert runner.run(script=script, cwd=work, profile=chosen).ok


def test_what_is_denied_stays_denied_whatever_was_approved(runner, work, tmp_path):
    chosen = profile(tmp_path)
    runner.run(["touch", "a"], cwd=work, profile=chosen, agent="a")
    yes(runner)
    runner.kills.order(KillScope.AGENT, "a", "stop")
    denied = runner.run(["touch", "a"], cwd=work, profile=chosen, agent="a")
    assert denied.decision.rules[0].id == "kill-switch"
    runner.kills.lift(KillScope.AGENT, "a", "go on")
    assert runner.run(["touch", "a"], cwd=work, profile=chosen, agent="a").ok


def test_a_no_stands_and_its_reason_is_told(runner, work, tmp_path):
    chosen = profile(tmp_path)
    runner.run(["touch", "a"], cwd=work, profile=chosen)
    (asked,) = runner.approvals.waiting()
    runner.approvals.answer(asked.id, "use the build folder", yes=False)
    for _ in range(2):
        denied = runner.run(["touch", "a"], cwd=work, profile=chosen, ask_wait=60)
        assert "refused it" in denied.decision.reason
        assert "use the build folder" in denied.decision.reason
    assert runner.approvals.waiting() == []


def test_a_run_waits_for_its_answer(runner, work, tmp_path, home):
    """Given by another process's runner."""
    chosen = profile(tmp_path)
    outcomes: list[Outcome] = []

    def ask() -> None:
        outcomes.append(
            runner.run(["touch", "a"], cwd=work, profile=chosen, ask_wait="5m", agent="a")
        )

    for say_yes, status in ((True, 0), (False, 126)):
        thread = threading.Thread(target=ask)
        thread.start()
        (asked,) = until(runner.approvals.waiting, "it is asked")
        with Runner(home=home) as other:
            other.approvals.answer(asked.id, "looked at it", yes=say_yes)
        thread.join(60)
        assert outcomes[-1].status == status


def test_a_run_that_waits_is_cancelled_or_killed(runner, work, tmp_path):
    chosen = profile(tmp_path)
    request = build_request(argv=["touch", "a"], cwd=work, profile=chosen, agent="a")
    asked: list[str] = []
    with Cancellation() as cancel:
        caller = Caller(
            None,
            NullSink(),
            NullSink(),
            ask_wait_s=600,
            observer=Told(lambda approval: (asked.append(approval.id), cancel.set())),
        )
        outcome = runner.execute(request, caller, cancel)
    assert (outcome.termination, outcome.status) == (Termination.CANCELLED, 130)
    assert "cancelled while it waited" in outcome.decision.reason
    (ended,) = events(runner, "run.ended")
    assert ended["termination"] == "cancelled"
    assert [each.id for each in runner.approvals.waiting()] == asked
    caller = Caller(
        None,
        NullSink(),
        NullSink(),
        ask_wait_s=600,
        observer=Told(lambda _: runner.kills.order(KillScope.AGENT, "a", "stop")),
    )
    killed = runner.execute(request, caller)
    assert killed.decision.rules[0].id == "kill-switch"
    runner.kills.lift(KillScope.AGENT, "a", "go on")

    # Who cancels, and is refused in that moment, was refused.
    def refuse(approval) -> None:
        runner.approvals.answer(approval.id, "never", yes=False)
        cancel.set()

    with Cancellation() as cancel:
        request = build_request(argv=["touch", "b"], cwd=work, profile=chosen, agent="a")
        caller = Caller(None, NullSink(), NullSink(), ask_wait_s=600, observer=Told(refuse))
        outcome = runner.execute(request, caller, cancel)
    assert (outcome.termination, outcome.status) == (Termination.DENIED, 126)


def test_a_question_expires_and_is_asked_anew(runner, work, tmp_path):
    chosen = profile(tmp_path, expires="1s")
    outcome = runner.run(["touch", "a"], cwd=work, profile=chosen, ask_wait="5m")
    assert "nobody answered before it expired" in outcome.decision.reason
    (first,) = runner.approvals.all()
    with pytest.raises(RequestError, match="none begins with"):
        runner.approvals.answer(first.id, "too late", yes=True)
    assert not runner.run(["touch", "a"], cwd=work, profile=chosen).ok
    assert len(runner.approvals.all()) == 2
    yes(runner)
    time.sleep(1.1)
    assert not runner.run(["touch", "a"], cwd=work, profile=chosen).ok  # the yes has expired too


def test_one_yes_begins_one_of_many_runs(runner, work, tmp_path):
    chosen = profile(tmp_path)
    runner.run(["touch", "a"], cwd=work, profile=chosen)
    yes(runner)
    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(runner.run, ["touch", "a"], cwd=work, profile=chosen) for _ in range(8)]
        assert sum(each.result().ok for each in runs) == 1


def test_only_who_the_rule_names_may_answer(runner, work, tmp_path):
    chosen = profile(tmp_path, approvers=', approvers: ["key:ops-*", "user:carol"]')
    runner.run(["touch", "a"], cwd=work, profile=chosen)
    for names in (None, ["uid:1"], ["key:dev"], ["key:opsx"], ["user:carola"]):
        with pytest.raises(RequestError, match="may not answer"):
            yes(runner, by=names)
    assert yes(runner, by=["uid:5", "user:carol"]).answer.by == "uid:5"
    assert runner.run(["touch", "a"], cwd=work, profile=chosen).ok


def test_what_is_answered_is_answered(runner, work, tmp_path):
    runner.run(["touch", "a"], cwd=work, profile=profile(tmp_path))
    (asked,) = runner.approvals.waiting()
    with pytest.raises(RequestError, match="for a reason"):
        runner.approvals.answer(asked.id, "", yes=True)
    with pytest.raises(RequestError, match="too short"):
        runner.approvals.answer("ask-", "x", yes=True)
    runner.approvals.answer(asked.id[:10], "no", yes=False)
    with pytest.raises(RequestError, match="was answered already"):
        runner.approvals.answer(asked.id, "yes", yes=True)


def test_an_agent_can_not_ask_without_end(runner, work, tmp_path, monkeypatch):
    monkeypatch.setattr("runner.approving.MOST_OPEN", 3)
    chosen = profile(tmp_path)
    for number in range(3):
        runner.run(["touch", str(number)], cwd=work, profile=chosen, agent="a")
    denied = runner.run(["touch", "more"], cwd=work, profile=chosen, agent="a")
    assert "wait already: not asked" in denied.decision.reason
    assert len(runner.approvals.waiting()) == 3
    runner.run(["touch", "more"], cwd=work, profile=chosen, agent="b")
    assert len(runner.approvals.waiting()) == 4


def test_a_rewritten_command_is_asked_about_and_runs_as_rewritten(runner, work, tmp_path):
    chosen = tmp_path / "rewrites.yaml"
    chosen.write_text(
        "extends: agent\nrules:\n  list:\n"
        "    - {id: r, match: {command: mkdir}, effect: rewrite, message: use touch,\n"
        "       rewrite: {to: touch rewritten}}\n"
        "    - {id: t, match: {command: touch}, effect: ask, message: look}\n"
    )
    assert not runner.run(["mkdir", "x"], cwd=work, profile=str(chosen)).ok
    assert yes(runner).program == "touch rewritten"
    outcome = runner.run(["mkdir", "x"], cwd=work, profile=str(chosen))
    assert outcome.ok
    assert [change.path for change in outcome.changes] == ["rewritten"]


def test_secrets_are_redacted_for_who_is_asked(runner, work, tmp_path):
    secret = "ghp_" + "A1b2" * 9
    runner.run(["touch", secret], cwd=work, profile=profile(tmp_path))
    (asked,) = runner.approvals.waiting()
    assert secret not in str(asked)
    yes(runner)
    assert runner.run(["touch", secret], cwd=work, profile=profile(tmp_path)).ok


def test_checking_and_planning_ask_nobody(runner, work, tmp_path):
    request = build_request(argv=["touch", "a"], cwd=work, profile=profile(tmp_path))
    assert runner.check(request).effect == "ask"
    assert runner.plan(request).spec is None
    assert runner.approvals.all() == []


def test_a_yes_that_comes_after_the_policy_changed_is_no_yes(runner, work, tmp_path):
    """While a run waits, whoever keeps the rules may have thought again."""
    layers = (
        "extends: agent\nrules:\n  list:\n"
        "    - {id: d, match: {command: touch}, effect: deny, message: m}\n",
        RULES.format(expires="10m", approvers="").replace("touch", "[touch, rm]"),
        "extends: agent\n",
        None,
    )
    for number, changed in enumerate(layers):
        chosen = profile(tmp_path)
        request = build_request(argv=["touch", f"a{number}"], cwd=work, profile=chosen)

        def change(approval, changed=changed, chosen=chosen) -> None:
            if changed is None:
                Path(chosen).unlink()
            else:
                Path(chosen).write_text(changed)
            runner.approvals.answer(approval.id, "fine", yes=True)

        caller = Caller(None, NullSink(), NullSink(), ask_wait_s=600, observer=Told(change))
        try:
            outcome = runner.execute(request, caller)
        except ProfileError:
            assert changed is None
        else:
            assert outcome.status == 126
            assert "the policy changed" in outcome.decision.reason
    # The allowed twin: it is written anew, as it was.
    chosen = profile(tmp_path)
    request = build_request(argv=["touch", "b"], cwd=work, profile=chosen)

    def rewrite(approval) -> None:
        profile(tmp_path)
        runner.approvals.answer(approval.id, "fine", yes=True)

    caller = Caller(None, NullSink(), NullSink(), ask_wait_s=600, observer=Told(rewrite))
    assert runner.execute(request, caller).status == 0
