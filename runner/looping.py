"""The loop guard's arithmetic: which command is the same, when it has to pause, for how long. Pure.

A command that came to the same so often in a row within the window has to pause. Whatever is tried
in a pause is refused and changes nothing. After it there is one try: if it comes to the same, the
next pause begins at once and is twice as long. Another outcome, or a window in which nothing was
tried after a pause, and all begins anew. What began before a pause and ends in it changes nothing,
unless it succeeded: then all begins anew as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace

from runner.audit.canonical import canonical
from runner.granting import moment
from runner.model.decision import Effect, MatchedRule
from runner.model.limits import LimitName
from runner.model.loop_guard import Guarding, Looped, LoopGuard, Paused, Trigger
from runner.model.outcome import Ending, Output, Termination
from runner.model.profile import Profile, Restrictions
from runner.model.request import Argv, ExecRequest, Hold, ShellText

LOOP_RULE = "loop-guard"
"""What a refusal is recorded under, in the place of a rule's id."""

WITHIN_S, PAUSE_S, LONGEST_S = 600.0, 10.0, 3600.0
"""Of what no layer says: a person who looks at a failing tool comes back within ten minutes."""


def strictest(stated: Sequence[LoopGuard]) -> LoopGuard | None:
    """The smaller counts and the longer times; None: nothing is stated."""
    if not stated:
        return None

    def least(values: Sequence[int | None]) -> int | None:
        return min((v for v in values if v is not None), default=None)

    def most(values: Sequence[float | None]) -> float | None:
        return max((v for v in values if v is not None), default=None)

    return LoopGuard(
        refused=least([each.refused for each in stated]),
        failing=least([each.failing for each in stated]),
        within_s=most([each.within_s for each in stated]),
        pause_s=most([each.pause_s for each in stated]),
        longest_s=most([each.longest_s for each in stated]),
    )


def guarding(profile: Profile, layers: Sequence[Restrictions]) -> Guarding | None:
    """What holds of a profile and the layers above it; None: nothing counts anything."""
    stated = [
        (name, guard)
        for name, guard in (
            *((layer.policy.name, layer.loop_guard) for layer in layers),
            (profile.policy.name, profile.loop_guard),
        )
        if guard is not None
    ]
    found = strictest([guard for _, guard in stated])
    if found is None or (found.refused is None and found.failing is None):
        return None
    pause_s = PAUSE_S if found.pause_s is None else found.pause_s
    return Guarding(
        layer=stated[0][0],
        refused=found.refused,
        failing=found.failing,
        within_s=WITHIN_S if found.within_s is None else found.within_s,
        pause_s=pause_s,
        longest_s=max(pause_s, LONGEST_S if found.longest_s is None else found.longest_s),
    )


def family(request: ExecRequest) -> str:
    """Who is guarded as one: an agent, with those that it started."""
    who = request.principal
    return who.agent if who.parent is None else who.parent


def identity(request: ExecRequest, profile: Profile) -> bytes:
    """Whose and which command it is, to be digested with a key; equal for what is the same.

    White space between the words of a text makes no difference, nor does it whether the words come
    as a text or by themselves. The environment, limits and input make none. The folder and the
    profile do: what is tried elsewhere, or under other rules, is another thing.
    """
    who, program = request.principal, request.program
    if isinstance(program, Argv):
        # As the shell's text that is split into the same words, where there is one.
        told = ["words", " ".join(" ".join(program.words).split())]
    elif isinstance(program, ShellText):
        told = ["words", " ".join(program.text.split())]
    elif isinstance(program, Hold):
        told = ["session"]
    else:
        digest = hashlib.sha256(program.content).hexdigest()
        told = ["script", program.language, *program.interpreter, digest, *program.args]
    text = canonical(told)
    place = [request.directory, profile.name, profile.source]
    # Of long commands no more is carried about than this.
    return canonical(
        [who.uid, who.tenant, family(request), place, hashlib.sha256(text).hexdigest()]
    )


def failure(ending: Ending, stdout: Output, stderr: Output) -> bytes | None:
    """How a run failed, to be digested with a key; equal for what failed the same way.

    Empty: it did not fail. None: that says nothing about the command.
    """
    match ending.termination:
        case Termination.EXITED if ending.exit_code == 0:
            return b""
        case Termination.EXITED | Termination.SIGNALED:
            pass
        case Termination.LIMIT if ending.limit is not LimitName.BUDGET:
            pass
        case _:
            return None  # cancelled, runner's own failure, a budget that others used up
    limit = None if ending.limit is None else ending.limit.value
    how = [ending.termination.value, ending.exit_code, ending.signal, limit]
    return canonical([*how, stdout.sha256, stderr.sha256])


def pausing(looped: Looped | None, guard: Guarding, now_s: float) -> Paused | None:
    """The pause that is in force. A clock that was set back behind its beginning ends it."""
    if looped is None or not looped.began_s <= now_s < looped.until_s:
        return None
    if _bound(looped.trigger, guard) is None:
        return None  # nobody states that any more
    return Paused(guard.layer, looped.trigger, looped.count, looped.until_s)


def after(
    looped: Looped | None, sign: str, guard: Guarding, now_s: float
) -> tuple[Looped | None, bool]:
    """How it stands after a try that came to `sign`, and whether a pause begins with that.

    None: nothing is to be remembered of it, because nobody counts that.
    """
    if pausing(looped, guard, now_s) is not None:
        return looped, False  # it began before the pause, beside others
    bound = _bound(Trigger(sign.partition(":")[0]), guard)
    if bound is None:
        return None, False
    if (
        looped is None
        or looped.sign != sign
        or (looped.pauses and looped.until_s + guard.within_s < now_s)
    ):
        looped = Looped(sign, ())
    # Of a clock that was set back: what was tried later than now was tried just now.
    before = tuple(min(at_s, now_s) for at_s in looped.times_s)
    if not looped.pauses:
        before = tuple(at_s for at_s in before if at_s > now_s - guard.within_s)
    times_s = (*before, now_s)[-bound:]
    if len(times_s) < bound and not looped.pauses:
        return replace(looped, times_s=times_s), False
    # Twice as long each time; no power of two is taken that a float can't hold.
    length_s = min(guard.longest_s, guard.pause_s * 2.0 ** min(looped.pauses, 64))
    return Looped(sign, times_s, looped.pauses + 1, now_s, now_s + length_s), True


def forgotten_s(looped: Looped, guard: Guarding) -> float:
    """When it does not count any more, if nothing is tried."""
    return max(looped.times_s[-1], looped.until_s) + guard.within_s


def _bound(trigger: Trigger, guard: Guarding) -> int | None:
    return guard.refused if trigger is Trigger.REFUSED else guard.failing


def refusals(paused: Paused | None) -> list[MatchedRule]:
    """As the decision has it."""
    if paused is None:
        return []
    return [MatchedRule(LOOP_RULE, paused.layer, Effect.DENY, told(paused), paused.trigger.value)]


def told(paused: Paused) -> str:
    """What came of it so far, until when it is refused, and what to do instead."""
    often = f"{paused.count} times" if paused.count > 1 else "once"
    until = moment(paused.until_s)
    if paused.trigger is Trigger.REFUSED:
        return (
            f"this command was refused {often} in a row and is not tried again before {until}; "
            "do not repeat it: read why it was refused, and do it another way, or ask who keeps "
            "that policy"
        )
    return (
        f"this command failed the same way {often} in a row and is not run again before {until}; "
        "do not repeat it: read its output, change what makes it fail, or do it another way"
    )


def stated_data(guard: Guarding) -> dict[str, object]:
    """For a digest."""
    return asdict(guard)
