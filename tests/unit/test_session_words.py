"""Sessions where they are decided, compiled, charged and told: pure."""

from __future__ import annotations

import pytest

from runner.charging import charges
from runner.compile import compile_spec, spec_digest, spec_document
from runner.deciding import EMPTY, Policy, decide
from runner.intake import build_request
from runner.model.action import Facts
from runner.model.budget import Budget, BudgetOf, Resource, Sliding
from runner.model.decision import Effect
from runner.model.limits import UNLIMITED, LimitOverrides
from runner.model.request import Argv, ExecRequest, Hold, Script, ShellText
from runner.policy.engine import create
from runner.records import program_data, program_text, program_to_keep
from runner.schema.profiles import load_profile
from runner.sessions import wire

HOLD = Hold(600.0, 60.0)
AGENT = load_profile("agent")


def asked(**program: object) -> ExecRequest:
    return build_request(cwd="/tmp", **(program or {"argv": ["true"]}))  # type: ignore[arg-type]


def held(within: str | None = None, **program: object) -> ExecRequest:
    from dataclasses import replace

    request = asked(**program)
    if within is None and not program:
        return replace(request, program=HOLD)
    return replace(request, within=within)


def test_a_session_is_an_empty_sandbox_of_the_profile() -> None:
    spec = compile_spec(held(), AGENT)
    one = compile_spec(asked(), AGENT)
    assert spec.argv == ()
    assert spec.hold == HOLD
    assert spec.limits.wall_s == 600.0
    assert spec.limits.cpu_time_s is UNLIMITED
    assert spec.limits.output_bytes is UNLIMITED
    assert spec.limits.memory_bytes == one.limits.memory_bytes
    assert (spec.read, spec.requires, spec.syscalls) == (one.read, one.requires, one.syscalls)
    assert "hold" in spec_document(spec)
    assert "hold" not in spec_document(one)
    assert spec_digest(spec) != spec_digest(one)


def test_a_commands_script_never_lies_over_the_workspace(tmp_path) -> None:
    script = tmp_path / "x.py"
    script.write_text("print(1)")
    own = build_request(script=script, cwd=tmp_path)
    from dataclasses import replace

    assert compile_spec(own, AGENT).argv[-1] == str(script)
    inside = compile_spec(replace(own, within="ses-1"), AGENT)
    assert inside.argv[-1] == "/run/runner/x.py"
    assert [file.path for file in inside.files] == ["/run/runner/x.py"]


def test_it_is_allowed_whatever_the_rules_say_of_programs() -> None:
    strict = load_profile("agent")
    policy = Policy(strict, create((strict.policy,)))
    decided = decide(held(), policy, Facts(0.0))
    assert decided.decision.effect is Effect.ALLOW
    assert decided.decision.reason == EMPTY
    assert decided.decision.policy_digest == policy.digest
    assert decided.intent.commands == ()


def test_what_a_profile_denies_of_the_environment_holds_for_it() -> None:
    from dataclasses import replace

    policy = Policy(AGENT, create((AGENT.policy,)))
    request = replace(held(), environment=(("LD_PRELOAD", "x"),))
    assert decide(request, policy, Facts(0.0)).decision.effect is Effect.DENY


def test_nothing_is_charged_twice() -> None:
    amounts = ((Resource.CALLS, 5), (Resource.WALL, 60_000_000), (Resource.AT_ONCE, 2))
    stated = (("layer", (Budget("b", BudgetOf.ALL, amounts, Sliding(60.0)),)),)

    def charged(request: ExecRequest) -> list[Resource]:
        return [r for c in charges(stated, request, AGENT) for r, _ in c.budget.amounts]

    assert charged(held()) == [Resource.CALLS, Resource.AT_ONCE]
    assert charged(held("ses-1", argv=["true"])) == [Resource.CALLS, Resource.WALL]
    assert charged(asked()) == [Resource.CALLS, Resource.WALL, Resource.AT_ONCE]
    only = (("layer", (Budget("b", BudgetOf.ALL, ((Resource.AT_ONCE, 1),)),)),)
    assert charges(only, held("ses-1", argv=["true"]), AGENT) == ()


def test_it_is_told() -> None:
    data = program_data(HOLD)
    assert (data["kind"], data["lifetime_s"], data["idle_s"]) == ("session", 600.0, 60.0)
    assert program_text(HOLD) == "a session"
    assert program_to_keep(HOLD) is None


@pytest.mark.parametrize(
    "program",
    [
        Argv(("a", "b c", "\udcff")),
        ShellText("echo \udcff", "sh"),
        Script(b"\x00\xff", "python", ("python3", "-u"), "x.py", "/tmp/x.py", ("1",)),
        Script(b"", "sh", ("sh",), "code.sh"),
    ],
)
def test_programs_travel_whole(program) -> None:
    document = wire.program_document(program)
    content = [program.content] if isinstance(program, Script) else []
    assert wire.program_of(document, content) == program


def test_limits_travel_whole() -> None:
    limits = LimitOverrides(wall_s=1.5, memory_bytes=UNLIMITED, processes=3)
    assert wire.limits_of(wire.limits_document(limits)) == limits
    with pytest.raises(TypeError):
        wire.limits_of({"no_such": 1})
