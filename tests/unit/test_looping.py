"""The loop guard's arithmetic: what is the same, when it has to pause, for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import PolicyError, ProfileError
from runner.looping import (
    after,
    failure,
    guarding,
    identity,
    pausing,
    refusals,
    strictest,
)
from runner.model.limits import LimitName
from runner.model.loop_guard import Guarding, Looped, LoopGuard, Trigger
from runner.model.outcome import Ending, Output, Termination
from runner.model.principal import Principal
from runner.model.request import Argv, ExecRequest, Script, ShellText
from runner.model.usage import Usage
from runner.schema.policies import load_policy_file
from runner.schema.profiles import load_profile

GUARD = Guarding("profile:p", refused=3, failing=2, within_s=60.0, pause_s=10.0, longest_s=35.0)
NOW_S = 1_750_000_000.0
PROFILE = load_profile("agent")
FAILED = "failing:ab"


def tried(times: list[float], sign: str = "refused", looped: Looped | None = None):
    """How it stands after these tries, and when pauses began."""
    began = []
    for at_s in times:
        looped, pauses = after(looped, sign, GUARD, NOW_S + at_s)
        if pauses:
            began.append(at_s)
    return looped, began


def pause_at(looped: Looped | None, at_s: float):
    return pausing(looped, GUARD, NOW_S + at_s)


def test_so_many_in_a_row_within_the_window_and_it_pauses():
    looped, began = tried([0, 1])
    assert (began, pause_at(looped, 1)) == ([], None)
    looped, began = tried([0, 1, 2])
    assert began == [2]
    found = pause_at(looped, 2)
    assert (found.trigger, found.count, found.until_s) == (Trigger.REFUSED, 3, NOW_S + 12)
    assert pause_at(looped, 11.9) is not None
    assert pause_at(looped, 12) is None


def test_what_is_older_than_the_window_does_not_count():
    assert tried([0, 1, 59.5])[1] == [59.5]
    assert tried([0, 1, 60])[1] == []


def test_after_a_pause_one_try_and_the_next_is_twice_as_long_up_to_the_longest():
    looped, _ = tried([0, 1, 2])
    lengths = []
    at_s = 2.0
    for _ in range(4):
        at_s = looped.until_s - NOW_S
        looped, began = tried([at_s], looped=looped)
        assert began == [at_s]
        lengths.append(looped.until_s - looped.began_s)
    assert lengths == [20, 35, 35, 35]
    assert looped.count == 7


def test_another_outcome_begins_anew():
    looped, _ = tried([0, 1, 2])
    other, began = tried([12], FAILED, looped)
    assert (other.times_s, other.pauses, began) == ((NOW_S + 12,), 0, [])
    assert tried([13], "failing:cd", other)[1] == []
    assert tried([13], FAILED, other)[1] == [13]


def test_a_quiet_window_after_a_pause_begins_anew():
    looped, _ = tried([0, 1, 2])
    again, began = tried([12 + 60.5], looped=looped)
    assert (again.pauses, began) == (0, [])
    assert tried([12 + 60], looped=looped)[1] == [72]


def test_runs_that_began_before_the_pause_do_not_double_it():
    looped, _ = tried([0, 1, 2])
    assert tried([3, 4, 5], looped=looped) == (looped, [])


def test_nor_do_they_end_it_by_failing_another_way():
    looped, _ = tried([0, 1, 2])
    assert tried([3], FAILED, looped) == (looped, [])
    # Also where that other way is not counted; but a pause that nobody states is none.
    assert after(looped, FAILED, replace(GUARD, failing=None), NOW_S + 3) == (looped, False)
    other, _ = after(looped, FAILED, replace(GUARD, refused=None), NOW_S + 3)
    assert (other.sign, other.pauses) == (FAILED, 0)


def test_a_clock_that_is_set_back_ends_the_pause_and_not_the_count():
    looped, _ = tried([0, 1, 2])
    assert pause_at(looped, -3600) is None
    again, began = tried([-3600], looped=looped)
    assert began == [-3600]
    assert again.until_s - again.began_s == 20
    # And what was counted before counts from then on, and no longer.
    looped, _ = tried([0, 1])
    assert tried([-3600], looped=looped)[1] == [-3600]
    looped, _ = tried([0, -3600])
    assert tried([-3500], looped=looped)[1] == []


@given(st.lists(st.floats(-1e5, 1e5), max_size=60))
def test_no_pause_is_longer_than_the_longest_whatever_the_clock_does(times):
    looped, _ = tried(times)
    if looped is not None and looped.pauses:
        assert 10 <= looped.until_s - looped.began_s <= 35
        assert len(looped.times_s) <= 3
        held = pausing(looped, GUARD, looped.began_s)
        assert held is not None
        assert looped.began_s < held.until_s <= looped.began_s + 35


def test_what_nobody_counts_is_not_remembered_and_does_not_pause():
    guard = replace(GUARD, failing=None)
    assert after(None, FAILED, guard, NOW_S) == (None, False)
    looped, _ = tried([0, 1], FAILED)
    assert pausing(looped, GUARD, NOW_S + 1) is not None
    assert pausing(looped, guard, NOW_S + 1) is None


def test_the_message_says_what_to_do_instead_and_until_when():
    for sign, tell in ((FAILED, "failed the same way 2 times"), ("refused", "refused 3 times")):
        looped, _ = tried([0, 1, 2] if sign == "refused" else [0, 1], sign)
        (rule,) = refusals(pausing(looped, GUARD, looped.began_s))
        assert rule.id == "loop-guard"
        assert tell in rule.message
        assert "before 2025-06-15T15:0" in rule.message
        assert "do not repeat it" in rule.message
    assert refusals(None) == []


# What is the same.


def asked(program, **changes) -> bytes:
    profile = changes.pop("under", PROFILE)
    who = changes.pop("who", Principal(1000, "coder"))
    request = ExecRequest(who, program, changes.pop("directory", "/w"), **changes)
    return identity(request, profile)


def script(content: bytes = b"print(1)", name: str = "a.py", args: tuple[str, ...] = ()):
    return Script(content, "python", ("python3",), name, args=args)


def test_white_space_and_what_words_come_as_make_no_difference():
    one = asked(Argv(("ls", "-l", "src")))
    assert asked(ShellText("ls  -l\n src ")) == one
    assert asked(ShellText("ls -l src", "sh")) == one
    assert asked(ShellText("ls -l src"), environment=(("A", "1"),)) == one
    assert asked(ShellText("ls -l srd")) != one
    assert asked(script()) == asked(script(name="b.py"))
    assert asked(script()) != asked(script(b"print(2)"))
    assert asked(script()) != asked(script(args=("x",)))
    assert asked(Argv(("a\udcff",))) != asked(Argv(("a",)))


def test_an_agent_and_those_that_it_started_are_guarded_as_one():
    one = asked(Argv(("ls",)))
    assert asked(Argv(("ls",)), who=Principal(1000, "helper", parent="coder")) == one
    assert asked(Argv(("ls",)), who=Principal(1000, "coder", session="s")) == one
    for other in (
        Principal(1001, "coder"),
        Principal(1000, "helper"),
        Principal(1000, "coder", tenant="t"),
    ):
        assert asked(Argv(("ls",)), who=other) != one
    assert asked(Argv(("ls",)), directory="/v") != one
    assert asked(Argv(("ls",)), under=load_profile("locked")) != one


def ending(termination: Termination = Termination.EXITED, **fields) -> Ending:
    return Ending(termination, Usage(), **fields)


def test_what_failed_the_same_way():
    def how(of: Ending, out: str = "aa") -> bytes | None:
        output = Output(bytes_total=1, sha256=out, truncated=False, data=b"")
        return failure(of, output, output)

    assert how(ending(exit_code=0)) == b""
    one = how(ending(exit_code=1))
    assert one == how(ending(exit_code=1))
    others = {
        how(ending(exit_code=2)),
        how(ending(exit_code=1), "bb"),
        how(ending(Termination.SIGNALED, signal=1)),
        how(ending(Termination.LIMIT, limit=LimitName.WALL)),
    }
    assert len(others) == 4
    assert one not in others
    assert None not in others
    for neutral in (
        ending(Termination.CANCELLED),
        ending(Termination.RUNNER_FAILED),
        ending(Termination.UNKNOWN),
        ending(Termination.LIMIT, limit=LimitName.BUDGET),
    ):
        assert how(neutral) is None


# Stating it.


def test_of_all_layers_the_strictest_of_each_value(tmp_path):
    policy = tmp_path / "layer.yaml"
    policy.write_text("loop_guard: { refused: 4, within: 5m, longest: 2h }\n")
    base = tmp_path / "base.yaml"
    base.write_text("extends: agent\nloop_guard: { refused: 9, failing: 5, pause: 1m }\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\nloop_guard: { refused: 3, failing: 50, pause: 1s }\n")
    found = guarding(load_profile(str(child)), [load_policy_file(policy)])
    assert found == Guarding(f"user:{policy}", 3, 5, 300.0, 60.0, 7200.0)


def test_who_states_no_count_guards_nothing(tmp_path):
    policy = tmp_path / "layer.yaml"
    policy.write_text("loop_guard: { within: 5m }\n")
    assert guarding(PROFILE, []) is None
    assert guarding(PROFILE, [load_policy_file(policy)]) is None
    assert strictest([]) is None
    policy.write_text("loop_guard: { refused: 5, pause: 2h }\n")
    found = guarding(PROFILE, [load_policy_file(policy)])
    assert found == Guarding(f"user:{policy}", 5, None, 600.0, 7200.0, 7200.0)
    assert strictest([LoopGuard(), LoopGuard(failing=3)]) == LoopGuard(failing=3)


@pytest.mark.parametrize(
    "stated",
    ["refused: 1", "refused: 101", "failing: true", "pause: unlimited", "within: -1s", "more: 1"],
)
def test_what_makes_no_sense_is_refused(tmp_path, stated):
    path = tmp_path / "bad.yaml"
    path.write_text(f"loop_guard: {{ {stated} }}\n")
    with pytest.raises(PolicyError, match="loop_guard"):
        load_policy_file(path)
    path.write_text(f"extends: agent\nloop_guard: {{ {stated} }}\n")
    with pytest.raises(ProfileError, match="loop_guard"):
        load_profile(str(path))
