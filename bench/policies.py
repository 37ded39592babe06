"""What deciding is measured with: rules like those that people write, and commands to decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.model.decision import Effect
from runner.model.rule import Match, OnUnknown, PolicyLayer, Rule

_PROGRAMS = (
    "git", "docker", "kubectl", "npm", "pip", "terraform", "aws", "gcloud", "psql", "systemctl",
    "helm", "cargo", "ssh", "rsync", "apt-get", "make", "curl", "wget", "tar", "chmod", "chown",
    "mysql", "redis-cli", "ansible", "vault",
)  # fmt: skip
_VERBS = ("push", "delete", "apply", "publish", "exec", "destroy", "rm", "upload", "restart")
_PLACES = ("/etc/{}", "/srv/{}/secrets", "/var/lib/{}", "/home/agent/.{}", "/opt/{}/conf")
_EFFECTS = (Effect.DENY, Effect.DENY, Effect.ASK)

Facts = Mapping[str, str]
"""What a command says, as the rival's conditions name it."""


@dataclass(frozen=True, slots=True)
class Stated:
    """One rule, for both contenders."""

    rule: Rule
    facts: Facts
    """What the rival compares: all must be equal."""


def stated(count: int) -> list[Stated]:
    """So many rules; the first denies `git push --force`, no other matches what is measured."""
    first = _of(0, Match(("git",), ("push", "--force")), Effect.DENY,
                {"name": "git", "verb": "push", "flag": "--force"})  # fmt: skip
    return [first, *(_kind(number) for number in range(1, count))]


def _kind(number: int) -> Stated:
    """One of eight kinds in turn; three of them state no command."""
    program = _PROGRAMS[number // 8 % len(_PROGRAMS)]
    verb = _VERBS[number % len(_VERBS)]
    place = _PLACES[number % len(_PLACES)].format(f"service{number}")
    host = f"service{number}.example.com"
    flag = f"--service{number}"
    effect = _EFFECTS[number % len(_EFFECTS)]
    match, facts = (
        (Match((program,), (verb, flag)), {"name": program, "verb": verb, "flag": flag}),
        (Match((program,), (verb, f"production-{number}")), {"name": program, "verb": verb,
                                                             "target": f"production-{number}"}),
        (Match((f"service{number}-ctl",), (verb,)), {"name": f"service{number}-ctl", "verb": verb}),
        (Match((program,), paths=(f"{place}/**",)), {"name": program, "path": place}),
        (Match((program,), hosts=(host,)), {"name": program, "host": host}),
        (Match(paths=(f"{place}/**",)), {"path": place}),
        (Match(writes=(f"{place}/*.conf",)), {"writes": place}),
        (Match(any_args=(flag, f"{flag}=*")), {"flag": flag}),
    )[number % 8]  # fmt: skip
    return _of(number, match, effect, facts)


def _of(number: int, match: Match, effect: Effect, facts: Facts) -> Stated:
    return Stated(Rule(f"rule-{number}", effect, match, "Ask for it by a task."), facts)


def layer(rules: list[Stated]) -> PolicyLayer:
    """A policy whose default allows, as those have that list what is refused."""
    return PolicyLayer(
        "profile:measured",
        tuple(each.rule for each in rules),
        default=Effect.ALLOW,
        on_dynamic=OnUnknown.DENY,
        on_unreadable=OnUnknown.DENY,
    )


@dataclass(frozen=True, slots=True)
class Command:
    """A text to be decided."""

    name: str
    text: str
    """`{}` is a number that makes it another text with the same answer."""
    effect: Effect
    facts: tuple[Facts, ...]
    """Of each simple command in it: the rival reads no text."""


COMMANDS = (
    Command(
        "plain words",
        "git log --oneline -n 20 src/module_{}.py",
        Effect.ALLOW,
        ({"name": "git", "verb": "log", "flag": "--oneline", "path": "src/module_1.py"},),
    ),
    Command(
        "denied",
        "git push --force origin topic-{}",
        Effect.DENY,
        ({"name": "git", "verb": "push", "flag": "--force", "target": "topic-1"},),
    ),
    Command(
        "compound",
        'cd src && make -j4 test_{} 2>&1 | tee test.log; grep -c FAILED test.log || echo "none"',
        Effect.ALLOW,
        (
            {"name": "cd", "path": "src"},
            {"name": "make", "flag": "-j4", "target": "test_1"},
            {"name": "tee", "writes": "test.log"},
            {"name": "grep", "flag": "-c", "path": "test.log"},
            {"name": "echo", "target": "none"},
        ),
    ),
)
